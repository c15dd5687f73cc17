use std::{error::Error as StdError, io};

use lockstep_provider::{ErrorKind, Operation, ProviderError};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// The server could not be reached in time.
    NotReachedInTime,
    /// The server did not answer in time.
    NotAnsweredInTime,
    /// The server cannot be reached.
    Unreachable,
    /// The connection broke.
    Broken,
    /// The server's certificate is not trusted: why, and what to do.
    Untrusted {
        /// Goes on after "the server cannot be trusted: ".
        why: &'static str,
        /// A sentence.
        hint: &'static str,
    },
    /// Too many long answers are read at the same time.
    NoRoom,
    /// The answer is too long.
    TooLong {
        /// Its status.
        status: u16,
        /// The longest that is read, in bytes.
        longest: usize,
    },
}

impl HttpError {
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return if error.is_connect() {
                Self::NotReachedInTime
            } else {
                Self::NotAnsweredInTime
            };
        }
        if let Some((why, hint)) = distrust(error) {
            return Self::Untrusted { why, hint };
        }
        if error.is_connect() {
            Self::Unreachable
        } else {
            Self::Broken
        }
    }

    /// The error that a user sees; `server` is its address, as the user knows it.
    pub fn told(self, operation: Operation, server: &str) -> ProviderError {
        let error = |kind, message: String| ProviderError::new(kind, operation, message);
        match self {
            Self::NotReachedInTime => error(
                ErrorKind::Timeout,
                format!("{server} could not be reached in time"),
            ),
            Self::NotAnsweredInTime => {
                error(ErrorKind::Timeout, format!("{server} has not answered in time"))
            }
            Self::Unreachable => error(ErrorKind::Unavailable, format!("{server} cannot be reached")),
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
                "lockstep reads as many long answers at the same time as its memory allows, and this one's turn did not come in time".to_owned(),
            ),
            Self::TooLong { status, longest } => error(
                ErrorKind::Malformed,
                format!("the server's answer (status {status}) is longer than {longest} bytes"),
            ),
        }
    }
}

/// What is wrong with the server's certificate, and what to do, where that is what is wrong.
fn distrust(error: &reqwest::Error) -> Option<(&'static str, &'static str)> {
    use rustls::{CertificateError as Certificate, Error as Tls};
    let mut source = error.source();
    while let Some(current) = source {
        match unwrapped(current).downcast_ref::<Tls>() {
            Some(Tls::InvalidCertificate(
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
            )) => {
                return Some((
                    "its certificate is for another name",
                    "Use a name of the certificate in server",
                ));
            }
            Some(Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. })) => {
                return Some(("its certificate has expired", "Renew the server's certificate"));
            }
            Some(Tls::InvalidCertificate(_)) => {
                return Some((
                    "its certificate comes from no known certificate authority",
                    "Set caBundle or caProvider to the authority that signed it",
                ));
            }
            Some(Tls::AlertReceived(_)) => {
                return Some((
                    "it broke off the TLS handshake",
                    "It may ask for a client certificate: see auth.cert",
                ));
            }
            _ => source = current.source(),
        }
    }
    None
}

/// What an I/O error was made from. The TLS connector packs one into another, and `source` skips what is packed.
fn unwrapped<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut error = error;
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    error
}
