use std::{error::Error as StdError, io};

use lockstep_provider::{ErrorKind, Operation, ProviderError};
use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as Tls};

use crate::endpoint::EndpointError;

/// The hint for a failed connection. It is the same for every reason: if a tenant could tell the
/// reasons apart, the tenant could scan the operator's network.
const NOT_CONNECTED_HINT: &str = "Check the address and the port, and that network policies let lockstep reach them. A \
                                      SecretStore cannot use loopback or link-local addresses; the operator's log has the reason";

/// The reason why a request got no usable response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// The connection failed: it was refused, timed out, was blocked by the endpoint policy, or the
    /// server does not speak TLS.
    NotConnected,
    /// The host name has no address.
    NameNotResolved,
    /// The endpoint policy does not permit plain `http`.
    PlainHttp,
    /// The server did not respond in time.
    NotAnsweredInTime,
    /// The connection broke during the request.
    Broken,
    /// The server's certificate is not trusted.
    Untrusted {
        /// The reason. It continues the sentence "the server cannot be trusted: ".
        why: &'static str,
        /// What the user can do, as a sentence.
        hint: &'static str,
    },
    /// Too many long responses are being read at the same time.
    NoRoom,
    /// The response body is too long.
    TooLong {
        /// The response status.
        status: u16,
        /// The maximum length, in bytes.
        longest: usize,
    },
    /// The response has more JSON elements than [`crate::JsonLimits`] allow.
    TooComplex {
        /// The response status.
        status: u16,
    },
}

impl HttpError {
    /// Converts the error of a request to `server`. The reason of a failed connection is logged and
    /// left out of the error.
    pub(crate) fn of(error: &reqwest::Error, server: &str) -> Self {
        let is_connect = error.is_connect();
        let told = match connection_failure(error) {
            Some(told) => told,
            None if is_connect => Self::NotConnected,
            None if error.is_timeout() => Self::NotAnsweredInTime,
            None => Self::Broken,
        };
        if is_connect {
            let reason = reason(error).unwrap_or(if error.is_timeout() { "timed out" } else { "other" });
            tracing::info!(server, reason, "could not connect to a store");
        }
        told
    }

    /// Returns the error that the user sees. `server` is the address as the user knows it.
    pub fn into_provider_error(self, operation: Operation, server: &str) -> ProviderError {
        let error = |kind, message: String| ProviderError::new(kind, operation, message);
        match self {
            Self::NotConnected => error(ErrorKind::Unavailable, format!("could not connect to {server}"))
                .with_hint(NOT_CONNECTED_HINT),
            Self::NameNotResolved => error(
                ErrorKind::Unavailable,
                format!("the host name of {server} could not be resolved"),
            )
            .with_hint("Check that the name can be resolved inside the cluster"),
            Self::PlainHttp => error(
                ErrorKind::ConfigInvalid,
                format!("{server}: a SecretStore cannot use plain http"),
            )
            .with_hint("Use https. A ClusterSecretStore can use http"),
            Self::NotAnsweredInTime => {
                error(ErrorKind::Timeout, format!("{server} did not respond in time"))
            }
            Self::Broken => error(
                ErrorKind::Unavailable,
                format!("the connection to {server} broke"),
            ),
            Self::Untrusted { why, hint } => error(
                ErrorKind::Unavailable,
                format!("{server} cannot be trusted: {why}"),
            )
            .with_hint(hint),
            Self::NoRoom => error(
                ErrorKind::RateLimited,
                "too many long responses are being read at the same time, and this one could not be read before the timeout".to_owned(),
            ),
            Self::TooLong { status, longest } => error(
                ErrorKind::Malformed,
                format!("the server's response (status {status}) is longer than {longest} bytes"),
            ),
            Self::TooComplex { status } => error(
                ErrorKind::Malformed,
                format!("the server's response (status {status}) has too many JSON elements"),
            ),
        }
    }

    /// Returns the error that the user sees for a public cloud service, which is called "the
    /// service" instead of by its address. `doing` describes the request with a verb in -ing, such
    /// as `reading "database"`. Messages begin with it.
    pub fn into_cloud_error(self, operation: Operation, doing: &str, hints: &ServiceHints) -> ProviderError {
        let error = |kind, message: &str| ProviderError::new(kind, operation, message);
        let malformed = |what: String| error(ErrorKind::Malformed, &format!("{doing}: the response {what}"));
        let generic = || self.into_provider_error(operation, "the service");
        match self {
            Self::NotConnected | Self::Broken => generic(),
            Self::NameNotResolved => generic().with_hint(hints.name),
            Self::Untrusted { .. } => generic().with_hint(hints.certificate),
            Self::PlainHttp => error(ErrorKind::ConfigInvalid, "a SecretStore cannot use plain http")
                .with_hint("Use https in the endpoints. A ClusterSecretStore can use http"),
            Self::NotAnsweredInTime => error(ErrorKind::Timeout, "the service did not respond in time"),
            Self::NoRoom => error(
                ErrorKind::RateLimited,
                "too many long responses are being read at the same time",
            ),
            Self::TooLong { status, longest } => {
                malformed(format!("is longer than {longest} bytes (status {status})"))
            }
            Self::TooComplex { status } => malformed(format!("has too many JSON elements (status {status})")),
        }
    }
}

/// The hints of a provider for failed connections to a service whose address is usually the
/// default.
#[derive(Debug, Clone, Copy)]
pub struct ServiceHints {
    /// What to do when the host name has no address.
    pub name: &'static str,
    /// What to do when the certificate is not trusted.
    pub certificate: &'static str,
}

/// Returns the connection failures that a user may tell apart from [`HttpError::NotConnected`],
/// taken from the chain of sources. Returns `None` for every other failure.
pub fn connection_failure(error: &(dyn StdError + 'static)) -> Option<HttpError> {
    sources(error).find_map(|source| {
        if let Some(error) = source.downcast_ref::<EndpointError>() {
            return Some(match error {
                EndpointError::NameNotResolved => HttpError::NameNotResolved,
                EndpointError::Blocked => HttpError::NotConnected,
                EndpointError::PlainHttp => HttpError::PlainHttp,
            });
        }
        let (why, hint) = distrust(source.downcast_ref::<Tls>()?)?;
        Some(HttpError::Untrusted { why, hint })
    })
}

/// Returns why a connection failed, for the operator's log, or `None` if the error chain does not
/// contain the reason.
pub fn reason(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    sources(error).find_map(|source| {
        if let Some(error) = source.downcast_ref::<EndpointError>() {
            return Some(match error {
                EndpointError::NameNotResolved => "name not resolved",
                EndpointError::Blocked => "blocked by the endpoint policy",
                EndpointError::PlainHttp => "plain http",
            });
        }
        if source.is::<Tls>() {
            return Some("TLS handshake failed");
        }
        let error = source.downcast_ref::<io::Error>()?;
        Some(match error.kind() {
            io::ErrorKind::ConnectionRefused => "refused",
            io::ErrorKind::ConnectionReset => "reset",
            io::ErrorKind::TimedOut => "timed out",
            io::ErrorKind::HostUnreachable => "host unreachable",
            io::ErrorKind::NetworkUnreachable => "network unreachable",
            io::ErrorKind::UnexpectedEof => "closed by the server",
            _ => return None,
        })
    })
}

/// Returns what is wrong with a certificate, and what to do, if a certificate caused the failure.
/// Of the alerts that a server sends, only those about our own certificate count. Any other alert
/// would reveal whether the server speaks TLS.
fn distrust(error: &Tls) -> Option<(&'static str, &'static str)> {
    match error {
        Tls::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => Some((
            "its certificate is for another name",
            "Use a name of the certificate in server",
        )),
        Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            Some(("its certificate has expired", "Renew the server's certificate"))
        }
        Tls::InvalidCertificate(_) => Some((
            "its certificate comes from no known certificate authority",
            "Set caBundle or caProvider to the authority that signed it",
        )),
        Tls::AlertReceived(
            Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA,
        ) => Some((
            "it broke off the TLS handshake",
            "The server may require a client certificate: see auth.cert",
        )),
        _ => None,
    }
}

/// Iterates over an error and its sources. The TLS connector wraps one I/O error in another, and
/// `source` skips the wrapped one.
fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(packed) => Some(packed as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(error: impl StdError + Send + Sync + 'static) -> io::Error {
        io::Error::other(io::Error::other(error))
    }

    #[test]
    fn connection_failures_share_one_message() {
        assert_eq!(
            connection_failure(&packed(EndpointError::Blocked)),
            Some(HttpError::NotConnected)
        );
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut] {
            assert_eq!(connection_failure(&io::Error::from(kind)), None);
        }
        // a server that does not speak TLS, or aborts the handshake
        for error in [
            Tls::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
            Tls::AlertReceived(Alert::HandshakeFailure),
        ] {
            assert_eq!(connection_failure(&packed(error)), None);
        }
        let told = HttpError::NotConnected.into_provider_error(Operation::Read, "https://vault:8200");
        assert_eq!(told.message, "could not connect to https://vault:8200");
        assert_eq!(told.kind, ErrorKind::Unavailable);
    }

    #[test]
    fn actionable_failures_stay_distinct() {
        let name = connection_failure(&packed(EndpointError::NameNotResolved));
        assert_eq!(name, Some(HttpError::NameNotResolved));
        let http = connection_failure(&packed(EndpointError::PlainHttp));
        assert_eq!(http, Some(HttpError::PlainHttp));
        for error in [
            Tls::InvalidCertificate(Certificate::UnknownIssuer),
            Tls::InvalidCertificate(Certificate::Expired),
            Tls::AlertReceived(Alert::CertificateRequired),
        ] {
            assert!(matches!(
                connection_failure(&packed(error)),
                Some(HttpError::Untrusted { .. })
            ));
        }
    }

    #[test]
    fn error_of_a_service_has_the_hints_of_its_provider() {
        let hints = ServiceHints {
            name: "Check the name",
            certificate: "Check the certificate",
        };
        let told = |error: HttpError| {
            let told = error.into_cloud_error(Operation::Read, "reading \"db\"", &hints);
            told.to_string()
        };
        assert!(told(HttpError::NotConnected).starts_with("could not connect to the service. Check"));
        let untrusted = HttpError::Untrusted {
            why: "it is not",
            hint: "canary",
        };
        for (error, text) in [
            (
                HttpError::NameNotResolved,
                "the host name of the service could not be resolved. Check the name",
            ),
            (
                untrusted,
                "the service cannot be trusted: it is not. Check the certificate",
            ),
            (HttpError::Broken, "the connection to the service broke"),
            (
                HttpError::TooComplex { status: 200 },
                "reading \"db\": the response has too many JSON elements (status 200)",
            ),
        ] {
            assert_eq!(told(error), text);
        }
    }

    #[test]
    fn names_in_a_certificate_are_not_shown() {
        let error = Tls::InvalidCertificate(Certificate::NotValidForNameContext {
            expected: rustls::pki_types::ServerName::try_from("vault.example.org").unwrap(),
            presented: vec!["canary.internal".to_owned()],
        });
        let failure = connection_failure(&packed(error)).unwrap();
        let told = failure.into_provider_error(Operation::Read, "https://vault.example.org");
        assert!(!format!("{told} {told:?}").contains("canary"), "{told}");
    }

    #[test]
    fn reason_is_available_for_the_log() {
        for (error, want) in [
            (io::Error::from(io::ErrorKind::ConnectionRefused), "refused"),
            (io::Error::from(io::ErrorKind::TimedOut), "timed out"),
            (packed(EndpointError::Blocked), "blocked by the endpoint policy"),
            (
                packed(Tls::AlertReceived(Alert::HandshakeFailure)),
                "TLS handshake failed",
            ),
        ] {
            assert_eq!(reason(&error), Some(want));
        }
    }
}
