//! Endpoints that vaultrs lacks or implements incorrectly, based on its endpoint trait.

use std::collections::BTreeMap;

use lockstep_api::GenerateMethod;
use rustify::{
    enums::{RequestMethod, RequestType, ResponseType},
    errors::ClientError,
};
use rustify_derive::Endpoint;

/// Logs in with the TLS client certificate. vaultrs sends the role as `cert_name`, but the server
/// reads `name` and would try every role instead of the one that the user named.
///
/// <https://openbao.org/api-docs/auth/cert/#login-with-tls-certificate-method>
#[derive(Endpoint)]
#[endpoint(path = "auth/{self.mount}/login", method = "POST")]
pub(crate) struct LoginWithCertificate {
    #[endpoint(skip)]
    pub(crate) mount: String,
    pub(crate) name: Option<String>,
}

/// Renews the token that the request carries. The path in vaultrs begins with a tab.
///
/// <https://openbao.org/api-docs/auth/token/#renew-a-token-self>
#[derive(Endpoint)]
#[endpoint(path = "auth/token/renew-self", method = "POST")]
pub(crate) struct RenewSelf {}

/// Lists the names below a path. The list endpoints of vaultrs use the method `LIST`, which proxies
/// reject more often than `GET`.
///
/// <https://openbao.org/api-docs/secret/kv/kv-v2/#list-secrets>
#[derive(Endpoint)]
#[endpoint(path = "{self.folder}/")]
pub(crate) struct ListFolder {
    /// The mount path, `metadata` in version 2, and the path, without a trailing slash.
    #[endpoint(skip)]
    pub(crate) folder: String,
    #[endpoint(query)]
    pub(crate) list: bool,
    #[endpoint(query)]
    pub(crate) limit: u32,
}

impl ListFolder {
    /// The limit of a list that must be complete. Without a limit, OpenBao cuts the list at the
    /// `pagination_limit` of the policy and does not say so. With a higher one, it rejects the
    /// request.
    pub(crate) const EVERYTHING: u32 = 1_000_000_000;
}

/// Creates a token that outlives the one that the request carries, with the same policies.
///
/// <https://openbao.org/api-docs/auth/token/#create-token>
#[derive(Endpoint)]
#[endpoint(path = "auth/token/create-orphan", method = "POST")]
pub(crate) struct CreateOrphan {
    pub(crate) display_name: String,
    /// In seconds.
    pub(crate) ttl: u64,
    pub(crate) renewable: bool,
}

/// Renews the token that the accessor names.
///
/// <https://openbao.org/api-docs/auth/token/#renew-a-token-accessor>
#[derive(Endpoint)]
#[endpoint(path = "auth/token/renew-accessor", method = "POST")]
pub(crate) struct RenewAccessor {
    pub(crate) accessor: String,
    /// In seconds.
    pub(crate) increment: u64,
}

/// Revokes the token that the accessor names, and every lease that was issued with it.
///
/// <https://openbao.org/api-docs/auth/token/#revoke-a-token-accessor>
#[derive(Endpoint)]
#[endpoint(path = "auth/token/revoke-accessor", method = "POST")]
pub(crate) struct RevokeAccessor {
    pub(crate) accessor: String,
}

/// Renews a lease.
///
/// <https://openbao.org/api-docs/system/leases/#renew-lease>
#[derive(Endpoint)]
#[endpoint(path = "sys/leases/renew", method = "POST")]
pub(crate) struct RenewLease {
    pub(crate) lease_id: String,
    /// In seconds.
    pub(crate) increment: u64,
}

/// Revokes a lease.
///
/// <https://openbao.org/api-docs/system/leases/#revoke-lease>
#[derive(Endpoint)]
#[endpoint(path = "sys/leases/revoke", method = "POST")]
pub(crate) struct RevokeLease {
    pub(crate) lease_id: String,
}

/// Looks up a lease. The policy `default` grants it.
///
/// <https://openbao.org/api-docs/system/leases/#read-lease>
#[derive(Endpoint)]
#[endpoint(path = "sys/leases/lookup", method = "POST")]
pub(crate) struct LookUpLease {
    pub(crate) lease_id: String,
}

/// Looks up the engine that a path leads to. A token may look up every mount below which it has any
/// permission.
///
/// <https://openbao.org/api-docs/system/internal-ui-mounts/#get-single-mount-details>
#[derive(Endpoint)]
#[endpoint(path = "sys/internal/ui/mounts/{self.path}")]
pub(crate) struct MountOf {
    #[endpoint(skip)]
    pub(crate) path: String,
}

/// Requests a credential from an engine. The user defines its path and method, which the derive
/// macro does not support.
pub(crate) struct Generate {
    pub(crate) path: String,
    pub(crate) method: GenerateMethod,
    pub(crate) parameters: BTreeMap<String, String>,
}

impl rustify::Endpoint for Generate {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        match self.method {
            GenerateMethod::Get => RequestMethod::GET,
            GenerateMethod::Post => RequestMethod::POST,
            GenerateMethod::Put => RequestMethod::PUT,
        }
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        if self.method == GenerateMethod::Get {
            return Ok(None);
        }
        serde_json::to_vec(&self.parameters)
            .map(Some)
            .map_err(|error| ClientError::DataParseError { source: error.into() })
    }
}

/// Subscribes to events of these types. The connection becomes a WebSocket.
///
/// <https://developer.hashicorp.com/vault/api-docs/system/events>
#[derive(Endpoint)]
#[endpoint(path = "sys/events/subscribe/{self.types}")]
pub(crate) struct Subscribe {
    #[endpoint(skip)]
    pub(crate) types: &'static str,
    #[endpoint(query)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use rustify::Endpoint as _;

    use super::*;

    #[test]
    fn certificate_login_sends_the_role_as_name() {
        let named = LoginWithCertificate {
            mount: "cert".to_owned(),
            name: Some("shop".to_owned()),
        };
        assert_eq!(named.path(), "auth/cert/login");
        assert_eq!(named.body().unwrap().unwrap(), br#"{"name":"shop"}"#);
        let any = LoginWithCertificate {
            mount: "cert".to_owned(),
            name: None,
        };
        assert_eq!(any.body().unwrap().unwrap(), b"");
    }

    #[test]
    fn list_ends_with_a_slash() {
        let list = ListFolder {
            folder: "kv/metadata/shop".to_owned(),
            list: true,
            limit: 7,
        };
        assert_eq!(list.path(), "kv/metadata/shop/");
        assert_eq!(list.query().unwrap().unwrap(), "list=true&limit=7");
    }
}
