//! Where a developer's credentials and plaintext may go. A manifest names endpoints, and a pull request can change a manifest, so an
//! endpoint that a manifest names is used only where it belongs to the cloud itself, or where the developer says so.

use std::{collections::BTreeSet, net::IpAddr};

use lockstep_api::StoreProvider;
use lockstep_core::text::shell_quote;
use url::{Host, Url};

/// Hosts that the developer trusts, in lower case.
#[derive(Debug, Clone, Default)]
pub(super) struct Trusted(BTreeSet<String>);

impl Trusted {
    /// The hosts that options name.
    pub(super) fn new(hosts: &[String]) -> Self {
        Self(hosts.iter().map(|host| host.to_ascii_lowercase()).collect())
    }

    /// Checks every endpoint of a store that sealing talks to. `vault_is_given`: Vault's address does not come from the store.
    ///
    /// # Errors
    /// A sentence that names the field and the host, and says how to trust it.
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
                let advice = "--vault-address and VAULT_ADDR";
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
        // what is no URL is refused by the provider, before it connects
        let url = Url::parse(endpoint).map_err(|_| format!("{field}: \"{endpoint}\" is not a URL"))?;
        let Some(host) = url.host() else {
            return Err(format!("{field}: \"{endpoint}\" has no host"));
        };
        let name = host.to_string().to_ascii_lowercase();
        if !name.bytes().all(is_of_host) {
            return Err(format!(
                "{field}: host \"{name}\" has a character that is not allowed. Use letters, digits, '.', ':', '[', ']' and '-' only"
            ));
        }
        if url.scheme() != "https" && !is_loopback(&host) {
            return Err(format!(
                "{field}: \"{endpoint}\" is not https, so others could read your credentials and the plaintext. Use https"
            ));
        }
        let is_standard = url.port().is_none() && url.scheme() == "https";
        if self.0.contains(&name) || (is_standard && is_own(&name)) {
            return Ok(());
        }
        Err(format!(
            "{field}: host \"{name}\" is not that of {whose}, and would get your credentials and the plaintext. If you trust it, add --trust-endpoint {}",
            shell_quote(&name)
        ))
    }
}

/// Whether a byte may be in a host. URLs allow more, such as `$` and `;`, which a shell acts on.
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

/// Whether a host is KMS of AWS, or a VPC endpoint of it. Other hosts below `amazonaws.com` belong to customers of AWS.
fn is_of_aws(host: &str) -> bool {
    let Some(name) = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"]
        .iter()
        .find_map(|domain| host.strip_suffix(domain))
    else {
        return false;
    };
    let labels: Vec<&str> = name.split('.').collect();
    match labels.as_slice() {
        ["kms" | "kms-fips", region] => is_label(region),
        [endpoint, "kms" | "kms-fips", region, "vpce"] => {
            endpoint.starts_with("vpce-") && is_label(endpoint) && is_label(region)
        }
        _ => false,
    }
}

/// Whether a host is Cloud KMS of Google, everywhere or of one region.
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
        Trusted::new(&trusted).check(&provider, false)
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
    fn only_the_clouds_own_hosts_get_credentials() {
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
    fn host_with_other_characters_is_refused_even_if_trusted() {
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
                for trusted in [&[][..], &[host]] {
                    let message = checked(trusted, provider.clone()).unwrap_err();
                    let wanted = format!("{field}: host \"{host}\" has a character that is not allowed");
                    assert!(message.starts_with(&wanted), "{message}");
                    assert!(!message.contains("--trust-endpoint"), "{message}");
                }
            }
        }
    }

    #[test]
    fn host_in_the_advice_is_quoted_for_a_shell() {
        let message = checked(&[], vault("https://[2001:db8::1]:8200")).unwrap_err();
        assert!(
            message.ends_with("add --trust-endpoint '[2001:db8::1]'"),
            "{message}"
        );
        assert_eq!(
            checked(&["[2001:db8::1]"], vault("https://[2001:db8::1]:8200")),
            Ok(())
        );
    }

    #[test]
    fn a_trusted_host_is_used_over_https_or_on_this_machine() {
        assert_eq!(
            checked(&["Vault.Example.org"], vault("https://vault.example.ORG:8200")),
            Ok(())
        );
        assert_eq!(checked(&["127.0.0.1"], aws("http://127.0.0.1:4566")), Ok(()));
        assert_eq!(checked(&["localhost"], vault("http://localhost:8200")), Ok(()));
        let message = checked(&["vault.example.org"], vault("http://vault.example.org")).unwrap_err();
        assert!(message.contains("is not https"), "{message}");
        let message = checked(&["vault.example.org"], vault("https://other.example.org")).unwrap_err();
        assert_eq!(
            message,
            "spec.provider.vault.server: host \"other.example.org\" is not that of --vault-address and VAULT_ADDR, and would get \
             your credentials and the plaintext. If you trust it, add --trust-endpoint other.example.org"
        );
    }
}
