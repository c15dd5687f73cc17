//! Determines which request a response answers, and converts its value.

use aws_smithy_types::{Blob, DateTime};
use lockstep_provider::{RemoteSecret, SecretValue};

use crate::{
    locate::is_arn,
    value::{created, is_version_id},
};

/// The version that a read requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) stage: Option<&'a str>,
}

impl Wanted<'static> {
    /// The version that the service returns if none is requested.
    pub(super) const CURRENT: Self = Self {
        id: None,
        stage: Some("AWSCURRENT"),
    };
}

impl<'a> Wanted<'a> {
    /// Parses a version: a stage, or `uuid/` and an id. An event names a version that must still be
    /// the current one, as `uuid/ID@STAGE`: the service rejects an id that does not have that
    /// stage.
    pub(super) fn new(version: &'a str) -> Self {
        let (id, stage) = match version.strip_prefix("uuid/") {
            None => (None, Some(version)),
            Some(id) => id
                .split_once('@')
                .map_or((Some(id), None), |(id, stage)| (Some(id), Some(stage))),
        };
        Self { id, stage }
    }

    /// Whether the returned version is the requested one.
    pub(super) fn is_met(&self, id: Option<&str>, stages: &[String]) -> bool {
        self.id.is_none_or(|wanted| id == Some(wanted))
            && self
                .stage
                .is_none_or(|wanted| stages.iter().any(|stage| stage == wanted))
    }
}

/// Returns the id of a batch that a secret answers. An ARN identifies one secret; a name also
/// exists in other accounts. So a secret whose ARN was requested does not answer an equal name.
pub(super) fn answered_id<'a>(
    ids: &'a [String],
    name: Option<&str>,
    arn: Option<&str>,
) -> Option<&'a String> {
    let find = |wanted: Option<&str>, of_arns: bool| {
        let mut ids = ids.iter();
        ids.find(|id| is_arn(id) == of_arns && Some(id.as_str()) == wanted)
    };
    find(arn, true).or_else(|| find(name, false))
}

/// Whether an id names this secret, by its name or by its ARN.
pub(super) fn is_answer_to(id: &str, name: Option<&str>, arn: Option<&str>) -> bool {
    let answered = if is_arn(id) { arn } else { name };
    answered == Some(id)
}

/// Converts a value of the service, text or bytes. A version id that is not in the form of one is
/// left out.
pub(super) fn secret(
    text: Option<String>,
    binary: Option<Blob>,
    version: Option<String>,
    created_date: Option<&DateTime>,
) -> Option<RemoteSecret> {
    let value = match (text, binary) {
        (Some(text), _) => SecretValue::from(text),
        (None, Some(binary)) => SecretValue::new(binary.into_inner()),
        (None, None) => return None,
    };
    Some(RemoteSecret {
        value,
        version: version
            .filter(|id| is_version_id(id))
            .map(|id| format!("uuid/{id}")),
        created: created(created_date),
        fresh_for: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:";

    /// Names and ARNs of secrets that are easily confused.
    fn secrets() -> Vec<(&'static str, String)> {
        let other = ARN.replace("123456789012", "210987654321");
        vec![
            ("prod/db", format!("{ARN}prod/db-xwMINM")),
            ("prod/db-xwMINM", format!("{ARN}prod/db-xwMINM-ubSvUU")),
            (
                "prod/db-xwMINM-ubSvUU",
                format!("{ARN}prod/db-xwMINM-ubSvUU-a1B2c3"),
            ),
            ("prod/db-backup", format!("{ARN}prod/db-backup-AbCdEf")),
            ("prod", format!("{ARN}prod-AbCdEf")),
            ("prod/db", format!("{other}prod/db-xwMINM")),
        ]
    }

    #[test]
    fn single_read_accepts_only_the_secret_that_was_asked_for() {
        for (id, answers) in [
            ("prod/db".to_owned(), &[0, 5][..]),
            ("prod/db-xwMINM".to_owned(), &[1]),
            ("prod/db-xwMINM-ubSvUU".to_owned(), &[2]),
            (format!("{ARN}prod/db"), &[]),
            (format!("{ARN}prod/db-xwMINM"), &[0]),
            (format!("{ARN}prod/db-xwMINM-ubSvUU"), &[1]),
            (format!("{ARN}prod/db-backup"), &[]),
            (format!("{ARN}prod/db-"), &[]),
            (format!("{ARN}prod"), &[]),
            (format!("{ARN}pro"), &[]),
            (ARN.to_owned(), &[]),
            ("arn:".to_owned(), &[]),
            (String::new(), &[]),
        ] {
            for (index, (name, arn)) in secrets().iter().enumerate() {
                assert_eq!(
                    is_answer_to(&id, Some(name), Some(arn)),
                    answers.contains(&index),
                    "{id} {arn}"
                );
            }
        }
    }

    #[test]
    fn secret_of_a_batch_answers_only_its_exact_arn_or_name() {
        let secrets = secrets();
        let names = secrets.iter().map(|(name, _)| (*name).to_owned());
        let arns = secrets.iter().map(|(_, arn)| arn.clone());
        let ids: Vec<String> = names.chain(arns).collect();
        // Every set of ids.
        for chosen in 1..1_u32 << ids.len() {
            let batch: Vec<String> = (0..ids.len())
                .filter(|index| chosen & (1 << index) != 0)
                .map(|index| ids[index].clone())
                .collect();
            for (name, arn) in &secrets {
                let expected = [arn.as_str(), name]
                    .into_iter()
                    .find(|id| batch.iter().any(|asked| asked == id));
                assert_eq!(
                    answered_id(&batch, Some(name), Some(arn)).map(String::as_str),
                    expected
                );
            }
        }
    }
}
