//! Resolves keys to locations, for each of the services.
//!
//! The location is the part of a name below the store's `prefix`. Without a prefix, a key may also
//! be an ARN of the service and the region of the store: its location is the ARN itself, which a
//! grant covers only if it spells out everything up to the name. With a prefix, ARNs are rejected
//! because they would bypass it.

use lockstep_api::aws::AwsService;
use lockstep_provider::{Located, Location, LocationError, Locator};

use crate::config::Config;

/// Maximum length of a name or ARN.
const LONGEST: usize = 2048;

/// Parses the keys of a store.
#[derive(Debug, Clone)]
pub(crate) struct AwsLocator {
    pub(crate) service: Option<AwsService>,
    pub(crate) region: String,
    pub(crate) prefix: String,
}

impl AwsLocator {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            service: config.service,
            region: config.region.clone(),
            prefix: config.prefix.clone(),
        }
    }

    fn service(&self) -> Result<AwsService, LocationError> {
        self.service.ok_or_else(|| {
            LocationError::refused(
                "leads nowhere, because the store has a KMS key alone",
                "Set spec.provider.aws.service, or use ciphertext in place of remoteRef",
            )
        })
    }

    /// Whether a name can start like this: no search starts with an ARN.
    pub(crate) fn can_begin(&self, begin: &str) -> bool {
        begin.bytes().all(|byte| match self.service {
            Some(AwsService::SecretsManager) => in_secret(byte),
            Some(AwsService::ParameterStore) => in_parameter(byte),
            None => false,
        })
    }

    /// Returns the name or ARN of a location.
    ///
    /// # Errors
    /// When no secret or parameter can have it.
    pub(crate) fn id(&self, location: &str) -> Result<String, LocationError> {
        let service = self.service()?;
        if self.prefix.is_empty() && is_arn(location) {
            return Ok(location.to_owned());
        }
        let name = format!("{}{location}", self.prefix);
        match service {
            AwsService::SecretsManager => check_secret(&name)?,
            AwsService::ParameterStore => check_parameter(&name)?,
        }
        Ok(name)
    }

    fn arn(&self, service: AwsService, key: &str) -> Result<Location, LocationError> {
        if !self.prefix.is_empty() {
            return Err(LocationError::refused(
                "is an ARN, which would lead out of the store's prefix",
                "Write the name below the prefix",
            ));
        }
        let (word, resource, example) = match service {
            AwsService::SecretsManager => (
                "secretsmanager",
                "secret:",
                "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/db-AbCdEf",
            ),
            AwsService::ParameterStore => (
                "ssm",
                "parameter/",
                "arn:aws:ssm:eu-central-1:123456789012:parameter/shop/db",
            ),
        };
        let parts: Vec<&str> = key.splitn(6, ':').collect();
        let name = match parts.as_slice() {
            ["arn", partition, of, region, account, rest]
                if partition.starts_with("aws")
                    && partition
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                    && *of == word
                    && account.len() == 12
                    && account.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                if *region != self.region {
                    return Err(LocationError::refused(
                        "is in another region than the store",
                        "Use a store of that region",
                    ));
                }
                rest.strip_prefix(resource)
            }
            _ => None,
        };
        let allowed = |byte: u8| match service {
            AwsService::SecretsManager => in_secret(byte),
            AwsService::ParameterStore => in_parameter(byte),
        };
        match (service, name) {
            (AwsService::ParameterStore, Some(name)) => check_reference(name)?,
            (AwsService::SecretsManager, Some(name)) => check_complete(name)?,
            (_, None) => {}
        }
        let name = name.filter(|name| !name.is_empty() && name.bytes().all(allowed));
        let name = name.ok_or_else(|| {
            LocationError::refused(
                format!("is not an ARN of {}", service_name(service)),
                format!("An ARN is like {example}"),
            )
        })?;
        Location::anchored(key, key.len() - name.len())
    }
}

fn service_name(service: AwsService) -> &'static str {
    match service {
        AwsService::SecretsManager => "a secret",
        AwsService::ParameterStore => "a parameter",
    }
}

fn in_secret(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte)
}

fn in_parameter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte)
}

/// Checks the name of a secret. One invalid id fails the whole call for several ids.
fn check_secret(name: &str) -> Result<(), LocationError> {
    if !name.bytes().all(in_secret) {
        return Err(LocationError::refused(
            "has characters that no secret's name has",
            "Names have letters, digits and /_+=.@-",
        ));
    }
    check_length(name)
}

/// Checks that the name in an ARN has its random suffix. Without it, a grant for the ARN of one
/// secret, such as `shop-??????`, could cover the name of another, such as `shop-db.api`.
fn check_complete(name: &str) -> Result<(), LocationError> {
    let suffix = name.rsplit_once('-').map(|(_, suffix)| suffix);
    let is_suffix =
        |suffix: &str| suffix.len() == 6 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if suffix.is_some_and(is_suffix) {
        return Ok(());
    }
    Err(LocationError::refused(
        "is an ARN without its suffix, a hyphen and six letters or digits",
        "Use the complete ARN of the secret, or its name",
    ))
}

/// Rejects names that Parameter Store reads from another service, which has its own grants.
fn check_reference(name: &str) -> Result<(), LocationError> {
    let mut segments = name.split('/').filter(|segment| !segment.is_empty());
    let begins = ["aws", "reference"].map(|word| {
        let segment = segments.next();
        segment.is_some_and(|segment| segment.eq_ignore_ascii_case(word))
    });
    if begins == [true, true] {
        return Err(LocationError::refused(
            "is a reference to another service",
            "Use a store with service: SecretsManager",
        ));
    }
    Ok(())
}

fn check_parameter(name: &str) -> Result<(), LocationError> {
    check_reference(name)?;
    if name.ends_with('/') {
        return Err(LocationError::Refused("ends with a slash".to_owned()));
    }
    if !name.bytes().all(in_parameter) {
        return Err(LocationError::refused(
            "has characters that no parameter's name has",
            "Names have letters, digits and _.-/",
        ));
    }
    if name.contains('/') && !name.starts_with('/') {
        return Err(LocationError::refused(
            "does not begin with a slash, as names with a slash must",
            "Write a slash before it, or set spec.provider.aws.prefix to one",
        ));
    }
    check_length(name)
}

fn check_length(name: &str) -> Result<(), LocationError> {
    if name.len() > LONGEST {
        return Err(LocationError::TooLong);
    }
    Ok(())
}

/// Checks a version, because it becomes a part of the requested id.
pub(crate) fn check_version(service: AwsService, version: &str) -> Result<(), LocationError> {
    let bad = |what: &str| Err(LocationError::Refused(what.to_owned()));
    match service {
        AwsService::SecretsManager => {
            let text = version.strip_prefix("uuid/").unwrap_or(version);
            if text.is_empty() || text.len() > 256 || lockstep_core::remote::check_visible(text).is_err() {
                return bad(
                    "has a version that is neither a stage, such as AWSPREVIOUS, nor uuid/ and a version id",
                );
            }
        }
        AwsService::ParameterStore => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            if version.is_empty() || version.len() > 100 || !version.bytes().all(allowed) {
                return bad("has a version that is neither a number nor a label");
            }
        }
    }
    Ok(())
}

/// Whether it is an ARN: no name starts like one.
pub(crate) fn is_arn(id: &str) -> bool {
    id.starts_with("arn:")
}

impl Locator for AwsLocator {
    fn locate(&self, key: &str, version: Option<&str>) -> Result<Located, LocationError> {
        let service = self.service()?;
        lockstep_core::remote::check(key)?;
        let location = if is_arn(key) {
            self.arn(service, key)?
        } else {
            self.id(key)?;
            Location::new(key)?
        };
        if let Some(version) = version {
            check_version(service, version)?;
        }
        Ok(Located {
            location,
            version: version.map(str::to_owned),
        })
    }

    fn folder(&self, path: &str) -> Result<Option<Location>, LocationError> {
        let service = self.service()?;
        lockstep_core::remote::check_visible(path)?;
        let path = path.trim_end_matches('/');
        let path = match service {
            AwsService::SecretsManager => path.trim_start_matches('/').to_owned(),
            AwsService::ParameterStore if self.prefix.ends_with('/') => {
                path.trim_start_matches('/').to_owned()
            }
            // Names with a slash start with one.
            AwsService::ParameterStore if self.prefix.is_empty() && !path.is_empty() => {
                format!("/{}", path.trim_start_matches('/'))
            }
            AwsService::ParameterStore => path.to_owned(),
        };
        (!path.is_empty()).then(|| Location::new(path)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/db-AbCdEf";
    const PARAMETER: &str = "arn:aws:ssm:eu-central-1:123456789012:parameter/shop/db";

    fn locator(service: AwsService, prefix: &str) -> AwsLocator {
        AwsLocator {
            service: Some(service),
            region: "eu-central-1".to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    #[test]
    fn references_to_other_services_are_rejected() {
        let rows = [
            ("", "/aws/reference/secretsmanager/shop/db"),
            ("", "//AWS//Reference/secretsmanager/shop/db"),
            ("/aws/", "reference/secretsmanager/shop/db"),
            (
                "",
                "arn:aws:ssm:eu-central-1:123456789012:parameter/aws/reference/secretsmanager/shop/db",
            ),
        ];
        for (prefix, key) in rows {
            let located = locator(AwsService::ParameterStore, prefix).locate(key, None);
            let error = located.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(
                error.contains("is a reference to another service"),
                "{prefix} {key}: {error}"
            );
        }
        let own = locator(AwsService::ParameterStore, "").locate("/aws/references/db", None);
        assert!(own.is_ok());
    }

    #[test]
    fn location_is_the_name_below_the_prefix() {
        for (service, prefix, key, id) in [
            (AwsService::SecretsManager, "", "shop/db", "shop/db"),
            (AwsService::SecretsManager, "", "/shop/db", "/shop/db"),
            (AwsService::SecretsManager, "team/", "shop/db", "team/shop/db"),
            (AwsService::SecretsManager, "", SECRET, SECRET),
            (AwsService::ParameterStore, "", "/shop/db", "/shop/db"),
            (AwsService::ParameterStore, "/team/", "db", "/team/db"),
            (AwsService::ParameterStore, "", PARAMETER, PARAMETER),
        ] {
            let locator = locator(service, prefix);
            let located = locator.locate(key, None).unwrap();
            assert_eq!(located.location.as_str(), key);
            assert_eq!(locator.id(&located.location).unwrap(), id);
        }
    }

    #[test]
    fn arn_is_anchored_up_to_its_name() {
        for (service, arn, anchor) in [
            (
                AwsService::SecretsManager,
                SECRET,
                "arn:aws:secretsmanager:eu-central-1:123456789012:secret:",
            ),
            (
                AwsService::ParameterStore,
                PARAMETER,
                "arn:aws:ssm:eu-central-1:123456789012:parameter/",
            ),
        ] {
            let location = locator(service, "").locate(arn, None).unwrap().location;
            assert_eq!(location.anchor(), anchor);
        }
    }

    #[test]
    fn arn_outside_of_the_store_is_rejected() {
        let error = locator(AwsService::SecretsManager, "team/").locate(SECRET, None);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("out of the store's prefix")
        );
        for arn in [
            "arn:aws:secretsmanager:us-east-1:123456789012:secret:shop/db-AbCdEf",
            "arn:aws:secretsmanager:eu-central-1:1:secret:shop/db-AbCdEf",
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:",
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:a:b",
            // A part of the ARN of "shop/db", or of "shop-db.api".
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/db",
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop-db.api",
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:-AbCd",
            "arn:aws:ssm:eu-central-1:123456789012:parameter/shop/db",
            "arn:x:secretsmanager:eu-central-1:123456789012:secret:a",
            "arn:",
            "arn:aws",
        ] {
            assert!(
                locator(AwsService::SecretsManager, "").locate(arn, None).is_err(),
                "{arn}"
            );
        }
        let selected = format!("{PARAMETER}:3");
        assert!(
            locator(AwsService::ParameterStore, "")
                .locate(&selected, None)
                .is_err()
        );
    }

    #[test]
    fn search_path_has_the_form_of_names() {
        let folder = |service, prefix: &str, path: &str| {
            let folder = locator(service, prefix).folder(path).unwrap();
            folder.map(|folder| folder.to_string())
        };
        for path in ["shop", "shop/", "/shop/"] {
            assert_eq!(
                folder(AwsService::SecretsManager, "", path).as_deref(),
                Some("shop")
            );
            assert_eq!(
                folder(AwsService::ParameterStore, "", path).as_deref(),
                Some("/shop")
            );
            assert_eq!(
                folder(AwsService::ParameterStore, "/team/", path).as_deref(),
                Some("shop")
            );
        }
        assert_eq!(folder(AwsService::ParameterStore, "", "/"), None);
        assert!(locator(AwsService::SecretsManager, "").folder(" shop").is_err());
    }
}
