//! Answers of the server: bounded bytes, and the borrowed views that are parsed from them.

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use lockstep_http::Body;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

/// One answer. The body may hold values and tokens: it is wiped, and neither shown nor measured: its length is
/// that of the value.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    body: Body,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer(status {})", self.status)
    }
}

impl Answer {
    pub(crate) fn new(status: u16, retry_after: Option<Duration>, body: impl Into<Body>) -> Self {
        Self {
            status,
            retry_after,
            body: body.into(),
        }
    }

    /// Whether the status says that it worked.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body in Vault's form; `None` when it is not.
    pub(crate) fn envelope(&self) -> Option<Envelope<'_>> {
        // A login page or a gateway's error is not Vault's, even where it happens to be JSON of another kind.
        self.body
            .trim_ascii_start()
            .starts_with(b"{")
            .then(|| serde_json::from_slice(&self.body).ok())
            .flatten()
    }

    /// What the server says that went wrong: to tell cases apart, never to be shown.
    fn complaints(&self) -> Vec<Cow<'_, str>> {
        let Some(envelope) = self.envelope() else {
            return Vec::new();
        };
        envelope
            .errors
            .into_iter()
            .chain(envelope.warnings)
            .flatten()
            .collect()
    }

    /// Whether one of the server's complaints holds this text.
    pub(crate) fn complains_of(&self, text: &str) -> bool {
        self.complaints().iter().any(|complaint| complaint.contains(text))
    }

    /// The names of a list; `None` when it is not one.
    ///
    /// Nothing in a folder is a 404 as a rule. A server that does not know the parameters of paging warns of them, and
    /// then it is a success without names. Without the warning it is not taken for an empty list.
    pub(crate) fn names(&self) -> Option<Vec<String>> {
        let Names { keys } = self.envelope()?.parse()?;
        keys.or_else(|| self.complains_of(IGNORED_PARAMETERS).then(Vec::new))
    }

    /// Whether Vault itself says that there is nothing: an empty list of errors, or its own envelope, which holds the metadata of a deleted
    /// version. Gateways have JSON of their own for addresses that they do not know.
    pub(crate) fn is_nothing(&self) -> bool {
        let is_nothing = |envelope: Envelope<'_>| {
            envelope.errors.as_ref().is_some_and(Vec::is_empty)
                || envelope.request_id.is_some() && envelope.lease_id.is_some()
        };
        self.status == 404 && self.envelope().is_some_and(is_nothing)
    }

    /// Whether the server complains of anything.
    pub(crate) fn complains(&self) -> bool {
        !self.complaints().is_empty()
    }
}

/// What a server warns of that does not know the parameters of paging (`sdk/framework/backend.go` of Vault).
const IGNORED_PARAMETERS: &str = "ignored these unrecognized parameters";

/// The form of every answer.
#[derive(Deserialize)]
pub(crate) struct Envelope<'a> {
    #[serde(borrow, default)]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) auth: Option<Auth<'a>>,
    /// Of a credential that the engine made.
    #[serde(borrow, default)]
    pub(crate) lease_id: Option<Cow<'a, str>>,
    /// Seconds.
    #[serde(default)]
    pub(crate) lease_duration: u64,
    #[serde(default)]
    pub(crate) renewable: bool,
    #[serde(borrow, default)]
    errors: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, default)]
    warnings: Option<Vec<Cow<'a, str>>>,
}

impl<'a> Envelope<'a> {
    /// The `data`, as the engine answers it.
    pub(crate) fn data(&self) -> Option<&'a RawValue> {
        self.data
    }

    /// The `data` as names; `None` when it is not in that form.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.data?.get()).ok()
    }

    /// The `data` of version 2; `None` when it is not in that form.
    pub(crate) fn versioned(&self) -> Option<Versioned<'a>> {
        serde_json::from_str(self.data?.get()).ok()
    }
}

/// The token in the answer to a login or a renewal.
#[derive(Deserialize)]
pub(crate) struct Auth<'a> {
    #[serde(borrow)]
    pub(crate) client_token: Cow<'a, str>,
    /// The token's name, which is no secret. A batch token has none.
    #[serde(borrow, default)]
    pub(crate) accessor: Option<Cow<'a, str>>,
    /// Seconds; 0 is for ever.
    #[serde(default)]
    pub(crate) lease_duration: u64,
    #[serde(default)]
    pub(crate) renewable: bool,
}

/// A value of version 2.
#[derive(Deserialize)]
pub(crate) struct Versioned<'a> {
    #[serde(borrow)]
    pub(crate) data: Option<&'a RawValue>,
    pub(crate) metadata: VersionMetadata,
}

impl Versioned<'_> {
    /// Whether the version has no value, because it was deleted or destroyed.
    pub(crate) fn is_gone(&self) -> bool {
        let VersionMetadata {
            deletion_time,
            destroyed,
            ..
        } = &self.metadata;
        let is_deleted = deletion_time.as_ref().is_some_and(|time| !time.is_empty());
        self.data.is_none_or(|data| data.get() == "null") && (*destroyed || is_deleted)
    }
}

/// What version 2 tells of one version.
#[derive(Deserialize)]
pub(crate) struct VersionMetadata {
    pub(crate) version: u64,
    #[serde(default)]
    pub(crate) created_time: String,
    /// Empty for a version that is not deleted.
    #[serde(default)]
    pub(crate) deletion_time: Option<String>,
    #[serde(default)]
    pub(crate) destroyed: bool,
}

/// What version 2 tells of one key.
#[derive(Deserialize)]
pub(crate) struct KeyMetadata {
    #[serde(default)]
    pub(crate) custom_metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) current_version: u64,
    #[serde(default)]
    pub(crate) versions: BTreeMap<String, KeyVersion>,
}

/// What [`KeyMetadata`] tells of one version.
#[derive(Deserialize)]
pub(crate) struct KeyVersion {
    #[serde(default)]
    pub(crate) deletion_time: String,
    #[serde(default)]
    pub(crate) destroyed: bool,
}

impl KeyMetadata {
    /// Whether there is a current version to read. A deletion may be set for a later time.
    pub(crate) fn is_readable(&self, now: Timestamp) -> bool {
        let current = self.versions.get(&self.current_version.to_string());
        current.is_some_and(|version| {
            let kept = version.deletion_time.is_empty()
                || version
                    .deletion_time
                    .parse::<Timestamp>()
                    .is_ok_and(|deletion| deletion > now);
            kept && !version.destroyed
        })
    }
}

/// Names below a path.
#[derive(Deserialize)]
struct Names {
    keys: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn an_answer_shows_its_status_and_nothing_else() {
        let answer = Answer::new(200, None, Zeroizing::new(b"canary".to_vec()));
        assert_eq!(format!("{answer:?}"), "Answer(status 200)");
    }

    #[test]
    fn a_list_without_names_is_empty_where_the_server_warns_and_no_list_where_it_does_not() {
        let cases: [(&str, Option<&[&str]>); 7] = [
            (r#"{"data":{"keys":["a","b/"]}}"#, Some(&["a", "b/"])),
            (r#"{"data":{},"warnings":["something else"]}"#, None),
            (
                r#"{"data":{},"warnings":["Endpoint ignored these unrecognized parameters: [limit]"]}"#,
                Some(&[]),
            ),
            (
                r#"{"data":{"keys":null},"warnings":["Endpoint ignored these unrecognized parameters: [limit]"]}"#,
                Some(&[]),
            ),
            (r#"{"data":{}}"#, None),
            (
                r#"{"data":{"keys":"a"},"warnings":["Endpoint ignored these unrecognized parameters: [limit]"]}"#,
                None,
            ),
            (
                r#"{"data":null,"warnings":["Endpoint ignored these unrecognized parameters: [limit]"]}"#,
                None,
            ),
        ];
        for (body, want) in cases {
            let names = Answer::new(200, None, Zeroizing::new(body.as_bytes().to_vec())).names();
            let want: Option<Vec<String>> =
                want.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            assert_eq!(names, want, "{body}");
        }
    }

    #[test]
    fn what_is_not_a_json_object_has_no_envelope() {
        for body in [
            "",
            "<html>",
            "[]",
            "null",
            "{",
            r#"{"data":{}} trailing"#,
            "\u{0}",
        ] {
            assert!(
                Answer::new(200, None, Zeroizing::new(body.as_bytes().to_vec()))
                    .envelope()
                    .is_none(),
                "{body}"
            );
        }
    }
}
