//! The key of all fingerprints. It is created once and kept in an immutable Secret in the
//! operator's namespace.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, api::PostParams};
use lockstep_core::fingerprint::FingerprintKey;

/// The name of the Secret.
pub const KEY_NAME: &str = "lockstep-fingerprint-key";

const FIELD: &str = "key";

/// The reason why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The request to the API server failed.
    #[error(
        "Secret \"{KEY_NAME}\" in namespace \"{namespace}\" could not be {action}: the API server answered {code}"
    )]
    Api {
        /// The namespace of the Secret.
        namespace: String,
        /// What failed: reading or creating.
        action: &'static str,
        /// The status code, or 0 without a response.
        code: u16,
    },
    /// The Secret does not contain a usable key.
    #[error(
        "Secret \"{KEY_NAME}\" in namespace \"{0}\" holds no key of 32 bytes or more; delete it, and lockstep makes a new one"
    )]
    Malformed(String),
    /// The system's random number generator failed.
    #[error("the operating system gave no random bytes")]
    Random,
}

/// Reads the key, or creates it. Two operators that start at the same time get the same key.
///
/// # Errors
/// When the API server rejects a request, or the Secret contains something else.
pub async fn load_or_create(client: &Client, namespace: &str) -> Result<FingerprintKey, KeyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let failed = |action, error: &kube::Error| KeyError::Api {
        namespace: namespace.to_owned(),
        action,
        code: code(error),
    };
    for _ in 0..3 {
        if let Some(secret) = api
            .get_opt(KEY_NAME)
            .await
            .map_err(|error| failed("read", &error))?
        {
            let bytes = secret
                .data
                .unwrap_or_default()
                .remove(FIELD)
                .map(|bytes| bytes.0)
                .unwrap_or_default();
            return FingerprintKey::new(bytes).map_err(|_| KeyError::Malformed(namespace.to_owned()));
        }
        let mut bytes = vec![0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|_| KeyError::Random)?;
        let mut secret = Secret {
            data: Some([(FIELD.to_owned(), ByteString(bytes))].into()),
            immutable: Some(true),
            ..Secret::default()
        };
        secret.metadata.name = Some(KEY_NAME.to_owned());
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => tracing::info!(namespace, name = KEY_NAME, "made the fingerprint key"),
            // Another operator created it first: read its key.
            Err(error) if code(&error) == 409 => {}
            Err(error) => return Err(failed("created", &error)),
        }
    }
    Err(KeyError::Malformed(namespace.to_owned()))
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}
