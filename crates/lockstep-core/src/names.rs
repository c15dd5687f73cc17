//! Checks the names of Kubernetes objects in a spec before they are used in a URL or a command. The
//! CRDs have patterns for them; these checks also cover objects that are older than the patterns.

use lockstep_api::{Reason, SyncedSecretSpec};

use crate::{
    Failure, spec,
    text::{self, is_label, is_subdomain},
};

/// Maximum length of the name of a CronJob.
pub const MAX_CRON_JOB: usize = 52;

/// Checks every name of a spec.
///
/// # Errors
/// When a field is not a valid name. The message names the field.
pub fn check(spec: &SyncedSecretSpec) -> Result<(), Failure> {
    if let Some(name) = &spec.target.name {
        check_subdomain("target.name", name)?;
    }
    if let Some(store) = &spec.secret_store_ref {
        check_subdomain("secretStoreRef.name", &store.name)?;
    }
    for entry in spec::entries(spec).flatten() {
        let field = format!("{}.secretStoreRef.name", entry.path.item());
        check_subdomain(&field, &entry.store.name)?;
    }
    let Some(rollout) = spec::rollout(spec) else {
        return Ok(());
    };
    for (index, target) in rollout.targets.iter().enumerate() {
        if let Some(name) = &target.name {
            check_subdomain(&format!("rotation.rollout.targets[{index}].name"), name)?;
        }
    }
    let Some(verify) = &rollout.verify else {
        return Ok(());
    };
    if let Some(job) = &verify.job {
        check_name(
            "rotation.rollout.verify.job.cronJob",
            &job.cron_job,
            is_cron_job(&job.cron_job),
        )?;
    }
    if let Some(get) = &verify.http_get {
        check_name(
            "rotation.rollout.verify.httpGet.service",
            &get.service,
            is_label(&get.service),
        )?;
    }
    Ok(())
}

/// Whether Kubernetes accepts the name for a CronJob.
pub fn is_cron_job(name: &str) -> bool {
    name.len() <= MAX_CRON_JOB && is_subdomain(name)
}

fn check_subdomain(field: &str, name: &str) -> Result<(), Failure> {
    check_name(field, name, is_subdomain(name))
}

fn check_name(field: &str, name: &str, is_valid: bool) -> Result<(), Failure> {
    if is_valid {
        return Ok(());
    }
    let message = format!(
        "{field}: \"{}\" is not a valid Kubernetes name. Use lower-case letters, digits, \"-\" and \".\", and begin and end with a letter or digit",
        text::excerpt(name)
    );
    Err(Failure::new(Reason::InvalidSpec, message))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(change: impl FnOnce(&mut Value)) -> SyncedSecretSpec {
        let mut spec = json!({
            "secretStoreRef": { "name": "vault.team-1" },
            "data": [{ "secretKey": "a", "remoteRef": { "key": "k" }, "secretStoreRef": { "name": "other" } }],
            "dataFrom": [{ "extract": { "key": "k" }, "secretStoreRef": { "name": "third" } }],
            "target": { "name": "database" },
            "rotation": { "rollout": {
                "targets": [{ "kind": "Deployment", "name": "api" }],
                "verify": { "job": { "cronJob": "smoke" }, "httpGet": { "service": "api", "port": 80 } },
            } },
        });
        change(&mut spec);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn every_name_of_a_spec_is_checked() {
        assert_eq!(check(&spec(|_| ())), Ok(()));
        let fields = [
            ("/target/name", "target.name"),
            ("/secretStoreRef/name", "secretStoreRef.name"),
            ("/data/0/secretStoreRef/name", "data[0].secretStoreRef.name"),
            (
                "/dataFrom/0/secretStoreRef/name",
                "dataFrom[0].secretStoreRef.name",
            ),
            (
                "/rotation/rollout/targets/0/name",
                "rotation.rollout.targets[0].name",
            ),
            (
                "/rotation/rollout/verify/job/cronJob",
                "rotation.rollout.verify.job.cronJob",
            ),
            (
                "/rotation/rollout/verify/httpGet/service",
                "rotation.rollout.verify.httpGet.service",
            ),
        ];
        let hostile = [
            "a; rm -rf ~",
            "$(id)",
            "../x",
            "a?b",
            "a\u{1b}[2J",
            "a\u{202e}b",
            "",
            "A",
            "a..b",
        ];
        for (pointer, field) in fields {
            for name in hostile {
                let failure =
                    check(&spec(|spec| *spec.pointer_mut(pointer).unwrap() = name.into())).unwrap_err();
                assert_eq!(failure.reason, Reason::InvalidSpec);
                let starts = failure.message.starts_with(&format!("{field}: "));
                assert!(starts, "{}", failure.message);
                assert!(
                    !failure.message.chars().any(text::is_hidden),
                    "{}",
                    failure.message
                );
            }
        }
    }

    #[test]
    fn code_and_schema_accept_the_same_names() {
        let subdomain = regex::Regex::new(lockstep_api::name::SUBDOMAIN).unwrap();
        let label = regex::Regex::new(lockstep_api::name::LABEL).unwrap();
        for name in [
            "a", "a.b", "0-1.x", "a-", "-a", "a..b", ".a", "a.", "A", "a_b", "a b", "", "a\n",
        ] {
            assert_eq!(is_subdomain(name), subdomain.is_match(name), "{name:?}");
            assert_eq!(is_label(name), label.is_match(name), "{name:?}");
        }
    }
}
