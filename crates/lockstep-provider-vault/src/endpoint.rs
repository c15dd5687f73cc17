//! Endpoints that vaultrs does not have, or has wrong, on its own endpoint trait.

use rustify_derive::Endpoint;

/// Login with the TLS client certificate. vaultrs sends the role as `cert_name`; the server reads `name` and would
/// try every role instead of the one that the user named.
///
/// <https://openbao.org/api-docs/auth/cert/#login-with-tls-certificate-method>
#[derive(Endpoint)]
#[endpoint(path = "auth/{self.mount}/login", method = "POST")]
pub(crate) struct LoginWithCertificate {
    #[endpoint(skip)]
    pub(crate) mount: String,
    pub(crate) name: Option<String>,
}

/// Renewal of the token that the request carries. vaultrs' path begins with a tab.
///
/// <https://openbao.org/api-docs/auth/token/#renew-a-token-self>
#[derive(Endpoint)]
#[endpoint(path = "auth/token/renew-self", method = "POST")]
pub(crate) struct RenewSelf {}

/// One page of the names below a path. vaultrs' list endpoints have no paging. It is the `GET` form, because
/// proxies refuse the method `LIST` more often than an honest `GET`.
///
/// <https://openbao.org/api-docs/secret/kv/kv-v2/#list-secrets>
#[derive(Endpoint)]
#[endpoint(path = "{self.folder}/")]
pub(crate) struct ListPage {
    /// Mount, `metadata` in version 2, and path, without a slash at the end.
    #[endpoint(skip)]
    pub(crate) folder: String,
    #[endpoint(query)]
    pub(crate) list: bool,
    /// The last name of the page before.
    #[endpoint(query)]
    pub(crate) after: Option<String>,
    /// The largest number of names. Vault ignores it, and OpenBao does for engines without paging.
    #[endpoint(query)]
    pub(crate) limit: usize,
}

/// A subscription to events of these types, which becomes a WebSocket.
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
    fn a_certificate_login_names_its_role_as_the_server_reads_it() {
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
    fn a_page_says_where_it_begins() {
        let page = ListPage {
            folder: "kv/metadata/shop".to_owned(),
            list: true,
            after: Some("a&b".to_owned()),
            limit: 2,
        };
        assert_eq!(page.path(), "kv/metadata/shop/");
        assert_eq!(page.query().unwrap().unwrap(), "list=true&after=a%26b&limit=2");
    }
}
