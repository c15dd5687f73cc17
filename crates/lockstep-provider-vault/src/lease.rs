//! Credentials that an engine issues: database, aws, pki and every other engine with leases.
//!
//! A lease ends with the token that issued it. The operator's own token ends with each restart, so
//! each credential has its own issuance token: an orphan, which outlives the login. Its accessor is
//! noted before the credential is issued. Revoking by accessor revokes what the token issued, even
//! if the response was lost. lockstep does not keep the token.
//!
//! ```text
//!   issue_token:      sys/internal/ui/mounts/<path> ─▶ type of the engine,
//!                     then auth/token/create-orphan ─▶ accessor, token
//!   issue_credential: the type again,
//!                     then <engine>/creds/<role> with that token ─▶ lease id, fields
//!   renew_issued:     auth/token/renew-accessor, then sys/leases/renew
//!   revoke_issued:    auth/token/revoke-accessor, or sys/leases/revoke if that is denied,
//!                     then sys/leases/lookup until the lease is gone
//! ```
//!
//! The server queues a revocation and reports success before the engine has removed the credential.
//! If the engine cannot remove it, the credential keeps working. Thus a credential counts as revoked
//! only when the server no longer knows its lease.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use lockstep_api::GenerateMethod;
use lockstep_provider::{
    ErrorKind, IssuanceToken, LeaseHandle, LeaseRequest, Location, Minted, Operation, ProviderError,
    SecretValue,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::sleep;

use crate::{
    answer::Answer,
    credential,
    endpoint::{CreateOrphan, Generate, LookUpLease, RenewAccessor, RenewLease, RevokeAccessor, RevokeLease},
    engine,
    error::Purpose,
    json,
    lookup::mount_at,
    provider::Vault,
};

/// Lifetime of an issuance token unless the credential is renewed. Without renewals, a credential
/// ends together with its token, so this is also how long lockstep can be down before a credential
/// with a longer lease ends.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);
/// The pauses before each lookup of a revoked lease. An engine that works needs some milliseconds.
const LOOKUP_PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(500),
];

impl Vault {
    /// Creates the token that issues one credential.
    pub(crate) async fn issue_token(&self, request: &LeaseRequest) -> Result<IssuanceToken, ProviderError> {
        self.check_engine(Operation::IssueToken, &request.path).await?;
        let purpose = self.purpose(
            Operation::IssueToken,
            format!("getting a token to make \"{}\" with", request.path),
            ("auth/token/create-orphan", "update"),
        );
        let endpoint = CreateOrphan {
            display_name: "lockstep".to_owned(),
            ttl: seconds(TOKEN_TTL),
            renewable: true,
        };
        let answer = self.server.send(Operation::IssueToken, &endpoint).await?;
        if !answer.is_success() {
            if answer.status == 400 && answer.envelope().is_some() {
                let message = format!("the server gives no token {}", self.server.identity());
                return Err(
                    ProviderError::new(ErrorKind::ConfigInvalid, Operation::IssueToken, message).with_hint(
                        "The login must give tokens of type service: a batch token makes no others",
                    ),
                );
            }
            return Err(purpose.failed(&answer));
        }
        let auth = answer.envelope().and_then(|envelope| envelope.auth);
        let Some((auth, accessor)) = auth.and_then(|auth| {
            let accessor = auth.accessor.clone()?.into_owned();
            (!auth.client_token.is_empty() && !accessor.is_empty()).then_some((auth, accessor))
        }) else {
            return Err(purpose.malformed(&answer, "holds no token and accessor"));
        };
        // the token is not used and expires
        if !is_accessor(&accessor) || reveals(&accessor, &auth.client_token) {
            return Err(purpose.malformed(&answer, "holds an invalid accessor"));
        }
        Ok(IssuanceToken {
            server: self.server.origin(),
            accessor,
            token: SecretValue::new(auth.client_token.as_bytes()),
            lives: lives(auth.lease_duration),
        })
    }

    /// Issues a credential with its issuance token.
    pub(crate) async fn issue_credential(
        &self,
        token: &IssuanceToken,
        request: &LeaseRequest,
    ) -> Result<Minted, ProviderError> {
        let path = &request.path;
        self.check_engine(Operation::Mint, path).await?;
        let capability = match request.method {
            GenerateMethod::Get => "read",
            GenerateMethod::Post | GenerateMethod::Put => "update",
        };
        let purpose = Purpose {
            missing: format!("there is no credential to make at \"{path}\""),
            ..self.purpose(
                Operation::Mint,
                format!("making a credential at \"{path}\""),
                (path, capability),
            )
        };
        let token = credential::token_header(token.token.expose(), "the token of the credential")?;
        let endpoint = Generate {
            path: path.to_string(),
            method: request.method,
            parameters: request.parameters.clone(),
        };
        let answer = self.server.send_with(Operation::Mint, &endpoint, &token).await?;
        if !answer.is_success() {
            return Err(issue_error(&purpose, &answer, path));
        }
        let Some(envelope) = answer.envelope() else {
            return Err(purpose.malformed(&answer, "is not Vault's JSON"));
        };
        let text = envelope
            .data()
            .map(RawValue::get)
            .filter(|text| text.starts_with('{'));
        let Some(text) = text else {
            return Err(purpose.malformed(&answer, "does not hold a JSON object"));
        };
        let value = json::compact(text)
            .map(|mut bytes| SecretValue::new(std::mem::take(&mut *bytes)))
            .ok_or_else(|| purpose.malformed(&answer, "does not hold a JSON object of Unicode text"))?;
        let id = envelope.lease_id.filter(|id| !id.is_empty()).map(Cow::into_owned);
        // the form of the id is checked where it is recorded
        let issuance_token = token.to_str().unwrap_or_default();
        if id.as_deref().is_some_and(|id| {
            let name = id.rsplit('/').next().unwrap_or_default();
            id.contains(issuance_token) || reveals(name, issuance_token)
        }) {
            return Err(purpose.malformed(&answer, "holds an invalid lease id"));
        }
        let lives = match (&id, envelope.lease_duration) {
            (Some(_), seconds) => lives(seconds),
            // a certificate contains its own expiry
            (None, _) => self.ends_by_itself(text).ok_or_else(|| {
                let message = format!("\"{path}\" answers with what has neither a lease nor an end");
                ProviderError::new(ErrorKind::Unsupported, Operation::Mint, message)
                    .with_hint("Read it with data or dataFrom.extract, from a store with the engine's path and version: v1")
            })?,
        };
        Ok(Minted {
            renewable: envelope.renewable && id.is_some(),
            id,
            value,
            lives,
        })
    }

    /// Checks that an engine issues credentials at a path. Only the server knows which engine is
    /// there.
    ///
    /// # Errors
    /// `ConfigInvalid` when it does not, and an error of the request when the server returns no
    /// engine.
    async fn check_engine(&self, operation: Operation, path: &Location) -> Result<(), ProviderError> {
        let hint = "Check generate.vault.path: it begins with the mount path of the engine, as in database/creds/<role>. The policy of the token must grant that path";
        let mount = mount_at(&self.server, operation, path, hint).await?;
        engine::check(&mount, path).map_err(|(what, hint)| {
            let message = format!("path \"{path}\" {what}");
            ProviderError::new(ErrorKind::ConfigInvalid, operation, message).with_hint(hint)
        })
    }

    /// Returns the lifetime of a credential without a lease, from its own field `expiration`.
    fn ends_by_itself(&self, data: &str) -> Option<Duration> {
        let Ends { expiration } = serde_json::from_str(data).ok()?;
        let end = Timestamp::from_second(expiration).ok()?;
        Duration::try_from(end.duration_since(self.clock.now())).ok()
    }

    /// Renews the issuance token and then the lease of a credential. Returns how long both are
    /// valid.
    pub(crate) async fn renew_issued(
        &self,
        lease: &LeaseHandle,
        wanted: Duration,
    ) -> Result<Duration, ProviderError> {
        self.check_origin(Operation::RenewLease, lease)?;
        let Some(id) = &lease.id else {
            return Err(ended("the credential has no lease that could be renewed"));
        };
        let token = self.renew_token(&lease.accessor, wanted).await?;
        let lease = self.renew_lease(id, wanted).await?;
        Ok(lease.min(token))
    }

    async fn renew_token(&self, accessor: &str, wanted: Duration) -> Result<Duration, ProviderError> {
        let purpose = self.purpose(
            Operation::RenewLease,
            "renewing the token of a credential".to_owned(),
            ("auth/token/renew-accessor", "update"),
        );
        let endpoint = RenewAccessor {
            accessor: accessor.to_owned(),
            increment: seconds(wanted.max(TOKEN_TTL)),
        };
        let answer = self.server.send(Operation::RenewLease, &endpoint).await?;
        if !answer.is_success() {
            return Err(if is_gone(&answer) {
                ended("the token of the credential has ended, and the lease with it")
            } else {
                purpose.failed(&answer)
            });
        }
        match answer.envelope().and_then(|envelope| envelope.auth) {
            Some(token) => Ok(lives(token.lease_duration)),
            None => Err(purpose.malformed(&answer, "holds no token")),
        }
    }

    async fn renew_lease(&self, id: &str, wanted: Duration) -> Result<Duration, ProviderError> {
        let purpose = self.purpose(
            Operation::RenewLease,
            "renewing a lease".to_owned(),
            ("sys/leases/renew", "update"),
        );
        let endpoint = RenewLease {
            lease_id: id.to_owned(),
            increment: seconds(wanted),
        };
        let answer = self.server.send(Operation::RenewLease, &endpoint).await?;
        if !answer.is_success() {
            return Err(if answer.status == 400 && answer.envelope().is_some() {
                ended("the lease has ended, was revoked, or is not renewed by its engine")
            } else {
                purpose.failed(&answer)
            });
        }
        match answer.envelope() {
            Some(envelope) if envelope.lease_id.is_some() => given(envelope.lease_duration),
            _ => Err(purpose.malformed(&answer, "holds no lease")),
        }
    }

    /// Checks that this server issued the credential. Otherwise a server that the store used before
    /// could choose what this one is asked to revoke.
    fn check_origin(&self, operation: Operation, lease: &LeaseHandle) -> Result<(), ProviderError> {
        if lease.server == self.server.origin() {
            return Ok(());
        }
        let message = "another server or namespace made the credential, so it is left to expire";
        Err(ProviderError::new(ErrorKind::Unsupported, operation, message))
    }

    /// Revokes a credential by its issuance token, or by its lease if the policy denies that.
    pub(crate) async fn revoke_issued(&self, lease: &LeaseHandle) -> Result<(), ProviderError> {
        self.check_origin(Operation::Revoke, lease)?;
        let purpose = self.purpose(
            Operation::Revoke,
            "revoking the token of a credential".to_owned(),
            ("auth/token/revoke-accessor", "update"),
        );
        let endpoint = RevokeAccessor {
            accessor: lease.accessor.clone(),
        };
        let was_proven = self.server.is_proven();
        let answer = self.server.send(Operation::Revoke, &endpoint).await?;
        // The request required that state only if it was known before. The response shows whether
        // the server has an index at all.
        let is_proven = was_proven && self.server.is_proven();
        // This is normal if the token was revoked before or has expired. A standby that lags reports
        // the same for a token that it does not know yet.
        if is_gone(&answer) && !is_proven {
            return Err(unproven());
        }
        if answer.is_success() || is_gone(&answer) {
            return self.confirm_revoked(lease).await;
        }
        let denied = purpose.failed(&answer);
        let Some(id) = lease
            .id
            .clone()
            .filter(|_| denied.kind == ErrorKind::PermissionDenied)
        else {
            return Err(denied);
        };
        let answer = self
            .server
            .send(Operation::Revoke, &RevokeLease { lease_id: id })
            .await?;
        if !answer.is_success() {
            return Err(denied);
        }
        self.confirm_revoked(lease).await
    }

    /// Waits until the server no longer knows a lease whose revocation it has accepted.
    ///
    /// # Errors
    /// `Unavailable` when the lease is still there, so that the revocation is retried.
    async fn confirm_revoked(&self, lease: &LeaseHandle) -> Result<(), ProviderError> {
        let Some(id) = &lease.id else {
            return Ok(());
        };
        let purpose = self.purpose(
            Operation::Revoke,
            "looking up a revoked lease".to_owned(),
            ("sys/leases/lookup", "update"),
        );
        for pause in LOOKUP_PAUSES {
            sleep(pause).await;
            let endpoint = LookUpLease { lease_id: id.clone() };
            let answer = self.server.send(Operation::Revoke, &endpoint).await?;
            match answer.status {
                200 if answer.envelope().is_some() => {}
                400 if answer.has_error_containing("invalid lease") => return Ok(()),
                // Nobody can tell, so the server's first answer counts.
                403 if answer.envelope().is_some() => return Ok(()),
                200..300 => return Err(purpose.malformed(&answer, "is not Vault's JSON")),
                _ => return Err(purpose.failed(&answer)),
            }
        }
        let message = "the revocation is queued at the server, and the credential may still work";
        Err(
            ProviderError::new(ErrorKind::Unavailable, Operation::Revoke, message).with_hint(
                "lockstep looks again. If this does not end, the server's log says why the engine does not remove the credential",
            ),
        )
    }

    fn purpose(&self, operation: Operation, doing: String, policy: (&str, &'static str)) -> Purpose {
        Purpose {
            operation,
            doing,
            identity: self.server.identity(),
            missing: "the server has no such path".to_owned(),
            mount: policy.0.split('/').next().unwrap_or_default().to_owned(),
            policy: Some((policy.0.to_owned(), policy.1)),
        }
    }
}

/// Converts a failed response into the error of issuing a credential.
fn issue_error(purpose: &Purpose, answer: &Answer, path: &str) -> ProviderError {
    // For a role that does not exist, OpenBao and Vault return 400 or 500, depending on the engine.
    // They do the same for a database that does not respond.
    let not_found_texts = ["unknown role", "not found", "no handler for route"];
    if matches!(answer.status, 400 | 404 | 500)
        && not_found_texts
            .iter()
            .any(|text| answer.has_error_containing(text))
    {
        return ProviderError::new(
            ErrorKind::ConfigInvalid,
            Operation::Mint,
            format!("the server has no engine or no role at \"{path}\""),
        )
        .with_hint("Check generate.vault.path: it begins with the mount path of the engine, as in database/creds/<role>");
    }
    match answer.status {
        400 | 405 if answer.envelope().is_some() => ProviderError::new(
            ErrorKind::ConfigInvalid,
            Operation::Mint,
            format!(
                "the engine rejected the request for a credential at \"{path}\" (status {})",
                answer.status
            ),
        )
        .with_hint("Check generate.vault: path, method and parameters"),
        500 if answer.envelope().is_some() => ProviderError::new(
            ErrorKind::Unavailable,
            Operation::Mint,
            format!(
                "the engine failed to issue a credential at \"{path}\" (status 500). Check the server's log"
            ),
        ),
        _ => purpose.failed(answer),
    }
}

/// Returns whether a text has the form of an accessor. Servers use 24 letters and digits, and a dot
/// and the id of the namespace.
fn is_accessor(text: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(is_name)
}

/// Returns whether a name contains a token, or is a large part of it. The status shows accessors and
/// lease ids, so a server could publish a token as one.
fn reveals(name: &str, token: &str) -> bool {
    name.contains(token) || (name.len() >= 8 && token.contains(name))
}

/// Returns whether the server does not know the accessor. A revocation then is a success with a
/// warning.
fn is_gone(answer: &Answer) -> bool {
    let unknown = [
        "invalid accessor",
        "bad token",
        "token not found",
        "no token found",
        "No token found",
    ];
    matches!(answer.status, 200 | 400 | 403 | 404 | 500)
        && unknown.iter().any(|text| answer.has_error_containing(text))
}

/// Returns the error of a server that does not know an accessor, but may be a standby that lags.
fn unproven() -> ProviderError {
    let message = "the server does not know the token of the credential, but may be a standby that lags";
    ProviderError::new(ErrorKind::Unavailable, Operation::Revoke, message)
        .with_hint("Set server to the address of the active node, or use an auth method other than token")
}

fn ended(message: &str) -> ProviderError {
    ProviderError::new(ErrorKind::NotFound, Operation::RenewLease, message)
}

/// Returns how long a lease is valid after its renewal. Zero means that the lease has ended; for a
/// token it would mean unlimited.
fn given(seconds: u64) -> Result<Duration, ProviderError> {
    if seconds == 0 {
        return Err(ended("the store renewed the lease for no time: it is at its end"));
    }
    Ok(lives(seconds))
}

/// Returns the lifetime of a token. Vault uses zero for unlimited, which becomes a hundred years.
/// Whatever the token issues ends with it.
fn lives(seconds: u64) -> Duration {
    const EVER: u64 = 100 * 365 * 24 * 3600;
    Duration::from_secs(if seconds == 0 { EVER } else { seconds.min(EVER) })
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs().max(1)
}

/// The expiry of a certificate.
#[derive(Deserialize)]
struct Ends {
    expiration: i64,
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer::new(status, None, Zeroizing::new(body.as_bytes().to_vec()))
    }

    #[test]
    fn engine_errors_have_one_kind_and_bodies_are_never_shown() {
        let purpose = Purpose {
            operation: Operation::Mint,
            doing: "making a credential at \"database/creds/shop\"".to_owned(),
            identity: "as role \"shop\" (auth/kubernetes)".to_owned(),
            missing: "there is no credential to make".to_owned(),
            mount: "database".to_owned(),
            policy: Some(("database/creds/shop".to_owned(), "read")),
        };
        let cases = [
            (
                400,
                r#"{"errors":["unknown role: canary"]}"#,
                ErrorKind::ConfigInvalid,
            ),
            (
                404,
                r#"{"errors":["no handler for route \"canary\""]}"#,
                ErrorKind::ConfigInvalid,
            ),
            (400, r#"{"errors":["canary"]}"#, ErrorKind::ConfigInvalid),
            (405, r#"{"errors":["canary"]}"#, ErrorKind::ConfigInvalid),
            (403, r#"{"errors":["canary"]}"#, ErrorKind::PermissionDenied),
            (500, r#"{"errors":["dial tcp canary"]}"#, ErrorKind::Unavailable),
            (502, "<html>canary</html>", ErrorKind::Unavailable),
            (200, "canary", ErrorKind::Malformed),
            (429, "canary", ErrorKind::RateLimited),
        ];
        for (status, body, want) in cases {
            let error = issue_error(&purpose, &answer(status, body), "database/creds/shop");
            assert_eq!(error.kind, want, "{status} {body}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn unknown_accessor_is_gone_and_denied_one_is_not() {
        assert!(is_gone(&answer(400, r#"{"errors":["invalid accessor"]}"#)));
        assert!(!is_gone(&answer(403, r#"{"errors":["permission denied"]}"#)));
        assert!(is_gone(&answer(
            200,
            r#"{"data":null,"warnings":["No token found with this accessor"]}"#
        )));
        assert!(!is_gone(&answer(200, r#"{"data":null,"warnings":null}"#)));
        assert!(!is_gone(&answer(204, "")));
        assert!(!is_gone(&answer(502, "invalid accessor")));
    }

    #[test]
    fn accessors_are_short_names() {
        for name in [
            "Te7hXHta5gHQ8SuoMYWFYi8c",
            "Te7hXHta5gHQ8SuoMYWFYi8c.nSid",
            "a_b-1",
        ] {
            assert!(is_accessor(name), "{name}");
        }
        for text in ["", "a b", "a/b", "päss", "hunter2!", "a\n", &"a".repeat(129)] {
            assert!(!is_accessor(text), "{text}");
        }
    }

    #[test]
    fn name_reveals_a_token_that_it_shares() {
        let token = "hvs.CAESIJh1nGcS";
        for name in [token, "x-hvs.CAESIJh1nGcS-x", "CAESIJh1nGcS"] {
            assert!(reveals(name, token), "{name}");
        }
        for name in ["Te7hXHta5gHQ8SuoMYWFYi8c", "hvs"] {
            assert!(!reveals(name, token), "{name}");
        }
    }

    #[test]
    fn renewal_for_zero_seconds_ends_the_lease() {
        assert_eq!(given(20).unwrap(), Duration::from_secs(20));
        let error = given(0).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "it is replaced");
    }

    #[test]
    fn zero_lifetime_is_unlimited_and_none_overflows() {
        assert_eq!(lives(20), Duration::from_secs(20));
        assert!(lives(0) > Duration::from_secs(1 << 31));
        assert_eq!(lives(u64::MAX), lives(0));
    }
}
