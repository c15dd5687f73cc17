//! Decides where a developer's credentials and plaintext may go. A manifest names endpoints, and a
//! pull request can change a manifest. Its endpoints are used only if they belong to the cloud
//! provider itself or the developer trusts them.

use std::{collections::BTreeSet, net::IpAddr};

use lockstep_api::{StoreProvider, aws::is_region};
use lockstep_core::text::shell_quote;
use url::{Host, Url};

/// Endpoints that the developer trusts.
#[derive(Debug, Clone, Default)]
pub(super) struct Trusted(BTreeSet<Endpoint>);

/// One value of `--trust-endpoint`: a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint {
    /// The host as in URLs: lowercase, IPv6 in brackets.
    host: String,
    /// The port; `None` is the default port of the scheme.
    port: Option<u16>,
}

impl Endpoint {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            // the last colon of an IPv6 address precedes a port only if the address is in brackets
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
            None => None,
        };
        let host = Host::parse(host).ok()?.to_string().to_ascii_lowercase();
        host.bytes().all(is_of_host).then_some(Self { host, port })
    }

    fn is_of(&self, host: &str, url: &Url) -> bool {
        // a URL has no port if it names the default port
        let same_port = match self.port {
            None => url.port().is_none(),
            port => port == url.port_or_known_default(),
        };
        same_port && self.host == host
    }
}

impl Trusted {
    /// Parses endpoints in the form `HOST` or `HOST:PORT`.
    ///
    /// # Errors
    /// Names the option with another form.
    pub(super) fn new(endpoints: &[String]) -> Result<Self, String> {
        let endpoint = |text: &String| {
            Endpoint::parse(text).ok_or_else(|| {
                format!("--trust-endpoint \"{text}\" is not a host. Use HOST or HOST:PORT, such as kms.example.org:8443")
            })
        };
        endpoints.iter().map(endpoint).collect::<Result<_, _>>().map(Self)
    }

    /// Checks every endpoint of a store that sealing connects to. `vault_is_given`: the Vault
    /// address does not come from the store.
    ///
    /// # Errors
    /// Names the field and the host, and how to trust it.
    pub(super) fn check(&self, provider: &StoreProvider, vault_is_given: bool) -> Result<(), String> {
        let aws = provider
            .aws
            .as_ref()
            .and_then(|aws| aws.kms.as_ref()?.endpoint.as_deref());
        if let Some(endpoint) = aws {
            self.check_one("spec.provider.aws.kms.endpoint", endpoint, is_of_aws, "AWS KMS")?;
        }
        let gcp = provider
            .gcp
            .as_ref()
            .and_then(|gcp| gcp.kms.as_ref()?.endpoint.as_deref());
        if let Some(endpoint) = gcp {
            self.check_one(
                "spec.provider.gcp.kms.endpoint",
                endpoint,
                is_of_google,
                "Google Cloud KMS",
            )?;
        }
        match &provider.vault {
            Some(vault) if !vault_is_given => {
                let field = "spec.provider.vault.server";
                let advice = "--vault-address or VAULT_ADDR";
                self.check_one(field, &vault.server, |_| false, advice)
            }
            _ => Ok(()),
        }
    }

    fn check_one(
        &self,
        field: &str,
        endpoint: &str,
        is_own: fn(&str) -> bool,
        whose: &str,
    ) -> Result<(), String> {
        // the provider would also reject an invalid URL before it connects
        let url = Url::parse(endpoint).map_err(|_| format!("{field}: \"{endpoint}\" is not a URL"))?;
        let Some(host) = url.host() else {
            return Err(format!("{field}: \"{endpoint}\" has no host"));
        };
        let name = host.to_string().to_ascii_lowercase();
        if !name.bytes().all(is_of_host) {
            return Err(format!(
                "{field}: host \"{name}\" contains an invalid character. Use only letters, digits, '.', ':', '[', ']' and '-'"
            ));
        }
        if url.scheme() != "https" && !is_loopback(&host) {
            return Err(format!(
                "{field}: \"{endpoint}\" is not https, so your credentials and the plaintext could be intercepted. Use https"
            ));
        }
        let is_standard = url.port().is_none() && url.scheme() == "https";
        let is_trusted = self.0.iter().any(|endpoint| endpoint.is_of(&name, &url));
        if is_trusted || (is_standard && is_own(&name)) {
            return Ok(());
        }
        let endpoint = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name,
        };
        Err(format!(
            "{field}: host \"{endpoint}\" does not belong to {whose} and would receive your credentials and the plaintext. If you trust it, add --trust-endpoint {}",
            shell_quote(&endpoint)
        ))
    }
}

/// Whether a byte is allowed in a host. URLs allow more, such as `$` and `;`, which are special in
/// a shell.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".:[]-".contains(&byte)
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::V4(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(*address).is_loopback(),
    }
}

/// Whether a host is AWS KMS or one of its VPC endpoints. Other hosts below `amazonaws.com` belong
/// to AWS customers.
fn is_of_aws(host: &str) -> bool {
    let Some(name) = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"]
        .iter()
        .find_map(|domain| host.strip_suffix(domain))
    else {
        return false;
    };
    let labels: Vec<&str> = name.split('.').collect();
    match labels.as_slice() {
        ["kms" | "kms-fips", region] => is_region(region),
        [endpoint, "kms" | "kms-fips", region, "vpce"] => {
            endpoint.starts_with("vpce-") && is_label(endpoint) && is_region(region)
        }
        _ => false,
    }
}

/// Whether a host is the global or a regional endpoint of Google Cloud KMS.
fn is_of_google(host: &str) -> bool {
    let regional = host
        .strip_prefix("cloudkms.")
        .and_then(|rest| rest.strip_suffix(".rep.googleapis.com"));
    host == "cloudkms.googleapis.com" || regional.is_some_and(is_label)
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(trusted: &[&str], provider: Value) -> Result<(), String> {
        let trusted: Vec<String> = trusted.iter().map(ToString::to_string).collect();
        let provider = serde_json::from_value(provider).unwrap();
        Trusted::new(&trusted).unwrap().check(&provider, false)
    }

    fn aws(endpoint: &str) -> Value {
        json!({ "aws": { "region": "eu-central-1", "kms": { "keyId": "alias/a", "endpoint": endpoint } } })
    }

    fn gcp(endpoint: &str) -> Value {
        let key = "projects/p/locations/l/keyRings/r/cryptoKeys/k";
        json!({ "gcp": { "kms": { "key": key, "endpoint": endpoint } } })
    }

    fn vault(server: &str) -> Value {
        json!({ "vault": { "server": server, "auth": {}, "transit": { "key": "shop" } } })
    }

    #[test]
    fn only_cloud_provider_hosts_get_credentials() {
        for good in [
            json!({ "aws": { "region": "eu-central-1", "kms": { "keyId": "alias/a" } } }),
            aws("https://kms.eu-central-1.amazonaws.com"),
            aws("https://KMS-FIPS.us-east-1.amazonaws.com/"),
            aws("https://kms.cn-north-1.amazonaws.com.cn"),
            aws("https://kms.eu-central-1.api.aws"),
            aws("https://vpce-1a2b-3c.kms.eu-central-1.vpce.amazonaws.com"),
            gcp("https://cloudkms.googleapis.com"),
            gcp("https://cloudkms.europe-west3.rep.googleapis.com"),
        ] {
            assert_eq!(checked(&[], good.clone()), Ok(()), "{good}");
        }
        for bad in [
            aws("https://evil.example.org"),
            aws("https://kms.eu-central-1.amazonaws.com.evil.example.org"),
            aws("https://abc.execute-api.eu-central-1.amazonaws.com"),
            aws("https://kms.s3.eu-central-1.amazonaws.com"),
            aws("https://kms.s3.amazonaws.com"),
            aws("https://kms.s3-us-west-2.amazonaws.com"),
            aws("https://kms.s3-accelerate.amazonaws.com"),
            aws("https://kms.vpce-svc-1.eu-central-1.vpce.amazonaws.com"),
            aws("https://evilamazonaws.com"),
            aws("https://kms.eu-central-1.amazonaws.com:8443"),
            gcp("https://cloudkms.googleapis.com.evil.example.org"),
            gcp("https://cloudkms.a.b.rep.googleapis.com"),
            gcp("https://storage.googleapis.com"),
            gcp("https://169.254.169.254"),
            vault("https://vault.example.org:8200"),
        ] {
            let message = checked(&[], bad.clone()).unwrap_err();
            assert!(message.contains("add --trust-endpoint "), "{bad}: {message}");
        }
    }

    #[test]
    fn host_with_other_characters_cannot_be_trusted() {
        for host in [
            "$(id).example.org",
            "a;id.example.org",
            "a&id.example.org",
            "a'b.example.org",
            "a!b.example.org",
            "a_b.example.org",
            "*.example.org",
        ] {
            for (field, provider) in [
                ("spec.provider.aws.kms.endpoint", aws(&format!("https://{host}"))),
                (
                    "spec.provider.gcp.kms.endpoint",
                    gcp(&format!("https://{host}:8443/")),
                ),
                (
                    "spec.provider.vault.server",
                    vault(&format!("https://{host}:8200")),
                ),
            ] {
                let message = checked(&[], provider).unwrap_err();
                let wanted = format!("{field}: host \"{host}\" contains an invalid character");
                assert!(message.starts_with(&wanted), "{message}");
                assert!(!message.contains("--trust-endpoint"), "{message}");
            }
            assert!(Trusted::new(&[host.to_owned()]).is_err(), "{host}");
        }
    }

    #[test]
    fn trusted_host_is_its_default_port_only() {
        for (trusted, endpoint, is_trusted) in [
            ("kms.example.org", "https://kms.example.org", true),
            ("kms.example.org", "https://kms.example.org:443/", true),
            ("kms.example.org", "https://kms.example.org:8443", false),
            ("KMS.Example.org:8443", "https://kms.example.ORG:8443", true),
            ("kms.example.org:8443", "https://kms.example.org", false),
            ("kms.example.org:8443", "https://kms.example.org:8444", false),
            ("kms.example.org:443", "https://kms.example.org", true),
            ("localhost", "http://localhost", true),
            ("localhost", "http://localhost:443", false),
            ("localhost", "http://localhost:4566", false),
            ("localhost:80", "http://localhost", true),
            ("[2001:db8::1]", "https://[2001:db8::1]:8200", false),
            ("[2001:db8::1]:8200", "https://[2001:DB8:0::1]:8200", true),
        ] {
            for provider in [aws(endpoint), gcp(endpoint), vault(endpoint)] {
                let checked = checked(&[trusted], provider);
                assert_eq!(checked.is_ok(), is_trusted, "{trusted} {endpoint}: {checked:?}");
            }
        }
        let message = checked(&["kms.example.org"], aws("https://kms.example.org:8443")).unwrap_err();
        assert!(
            message.ends_with("add --trust-endpoint kms.example.org:8443"),
            "{message}"
        );
    }

    #[test]
    fn trusted_endpoint_is_a_host_and_a_port() {
        for text in [
            "https://kms.example.org",
            "kms.example.org/",
            "kms.example.org:",
            "kms.example.org:0",
            "kms.example.org:65536",
            "user@kms.example.org",
            "2001:db8::1",
            "[2001:db8::1]8200",
            "",
            ":8200",
        ] {
            let message = Trusted::new(&[text.to_owned()]).unwrap_err();
            assert!(message.contains("Use HOST or HOST:PORT"), "{message}");
        }
    }

    #[test]
    fn host_in_the_advice_is_shell_quoted() {
        let message = checked(&[], vault("https://[2001:db8::1]:8200")).unwrap_err();
        assert!(
            message.ends_with("add --trust-endpoint '[2001:db8::1]:8200'"),
            "{message}"
        );
        assert_eq!(
            checked(&["[2001:db8::1]:8200"], vault("https://[2001:db8::1]:8200")),
            Ok(())
        );
    }

    #[test]
    fn trusted_host_requires_https_or_loopback() {
        assert_eq!(
            checked(
                &["Vault.Example.org:8200"],
                vault("https://vault.example.ORG:8200")
            ),
            Ok(())
        );
        assert_eq!(checked(&["127.0.0.1:4566"], aws("http://127.0.0.1:4566")), Ok(()));
        assert_eq!(
            checked(&["localhost:8200"], vault("http://localhost:8200")),
            Ok(())
        );
        let message = checked(&["vault.example.org"], vault("http://vault.example.org")).unwrap_err();
        assert!(message.contains("is not https"), "{message}");
        let message = checked(&["vault.example.org"], vault("https://other.example.org")).unwrap_err();
        assert_eq!(
            message,
            "spec.provider.vault.server: host \"other.example.org\" does not belong to --vault-address or VAULT_ADDR and would receive \
             your credentials and the plaintext. If you trust it, add --trust-endpoint other.example.org"
        );
    }
}
