//! Responses of the server: their limited bytes, and the borrowed views that are parsed from them.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData, sync::OnceLock, time::Duration};

use jiff::Timestamp;
use lockstep_http::{Body, JsonCounter, JsonLimits};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// Maximum number of names of a list that are kept: one more than a search accepts.
const MOST_NAMES: usize = MOST_KEYS + 1;
/// Maximum number of error messages that are kept, and of warnings.
const MOST_MESSAGES: usize = 8;
/// Maximum length of a message that is kept, in bytes.
const LONGEST_MESSAGE: usize = 4096;
/// Limits for the data that is parsed into a struct, such as the metadata of 10,000 versions of a
/// key. Values are not parsed and have no such limits.
const DATA_LIMITS: JsonLimits = JsonLimits {
    containers: 16_384,
    commas: 65_536,
    depth: 32,
};

/// Returns whether JSON text is within the limits of data that is parsed. A parser would turn small
/// elements into a multiple of their size.
pub(crate) fn is_parsable(text: &str) -> bool {
    JsonCounter::new(DATA_LIMITS).count(text.as_bytes()).is_ok()
}

/// Maximum number of keys that one search examines.
pub(crate) const MOST_KEYS: usize = 10_000;

/// One response. The body may contain values and tokens: it is wiped on drop, and neither the body
/// nor its length, which reveals that of a value, is shown.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    body: Body,
    complaints: OnceLock<Vec<Zeroizing<String>>>,
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
            complaints: OnceLock::new(),
        }
    }

    /// Returns whether the status is a success.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Parses the body as Vault's envelope. Returns `None` if it has another form.
    pub(crate) fn envelope(&self) -> Option<Envelope<'_>> {
        // A login page or a gateway's error is not an envelope, even if it happens to be JSON.
        self.body
            .trim_ascii_start()
            .starts_with(b"{")
            .then(|| serde_json::from_slice(&self.body).ok())
            .flatten()
    }

    /// Returns whether the response is a success with a token that has an accessor. A batch token has
    /// none.
    pub(crate) fn holds_accessor(&self) -> bool {
        let accessor = self.envelope().and_then(|envelope| envelope.auth?.accessor);
        self.is_success() && accessor.is_some_and(|accessor| !accessor.is_empty())
    }

    /// Returns the first of the server's error messages and warnings. They distinguish cases and must
    /// never be shown.
    fn complaints(&self) -> &[Zeroizing<String>] {
        self.complaints.get_or_init(|| {
            let envelope = self.envelope();
            let messages = envelope.map(|envelope| [envelope.errors, envelope.warnings]);
            let kept = |Text(text): &Text<'_>| {
                Zeroizing::new(text[..text.floor_char_boundary(LONGEST_MESSAGE)].to_owned())
            };
            let messages = messages.iter().flatten().flatten();
            messages.flat_map(|First(texts)| texts).map(kept).collect()
        })
    }

    /// Returns whether one of the server's messages contains this text.
    pub(crate) fn has_error_containing(&self, text: &str) -> bool {
        self.complaints().iter().any(|complaint| complaint.contains(text))
    }

    /// Returns the names of a list, or `None` if the response is not a list. Of a long list, it
    /// returns one name more than a search accepts.
    ///
    /// An empty folder is usually a 404. A server that does not support paging warns about the
    /// unknown parameters, and then the response is a success without names. Without the warning it
    /// does not count as an empty list.
    pub(crate) fn names(&self) -> Option<Vec<String>> {
        let Names { keys } = serde_json::from_str(self.envelope()?.data?.get()).ok()?;
        keys.map(|First(keys)| keys)
            .or_else(|| self.has_error_containing(IGNORED_PARAMETERS).then(Vec::new))
    }

    /// Returns whether Vault itself reports that nothing exists: an empty list of errors, or its
    /// own envelope, which contains the metadata of a deleted version. Gateways return their own
    /// JSON for unknown paths.
    pub(crate) fn is_nothing(&self) -> bool {
        let is_nothing = |envelope: Envelope<'_>| {
            envelope
                .errors
                .as_ref()
                .is_some_and(|First(errors)| errors.is_empty())
                || envelope.request_id.is_some() && envelope.lease_id.is_some()
        };
        self.status == 404 && self.envelope().is_some_and(is_nothing)
    }

    /// Returns whether the response contains any error message or warning.
    pub(crate) fn complains(&self) -> bool {
        !self.complaints().is_empty()
    }
}

/// The warning of a server that does not support the paging parameters (`sdk/framework/backend.go`
/// of Vault).
const IGNORED_PARAMETERS: &str = "ignored these unrecognized parameters";

/// The envelope of every response.
#[derive(Deserialize)]
pub(crate) struct Envelope<'a> {
    #[serde(borrow, default)]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) auth: Option<Auth<'a>>,
    /// Set for a credential that the engine issued.
    #[serde(borrow, default)]
    pub(crate) lease_id: Option<Cow<'a, str>>,
    /// In seconds.
    #[serde(default)]
    pub(crate) lease_duration: u64,
    #[serde(default)]
    pub(crate) renewable: bool,
    #[serde(borrow, default)]
    errors: Option<First<Text<'a>, MOST_MESSAGES>>,
    #[serde(borrow, default)]
    warnings: Option<First<Text<'a>, MOST_MESSAGES>>,
}

/// A string of a response, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The first elements of an array. The rest is skipped and takes no memory.
struct First<T, const N: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for First<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstVisitor(PhantomData))
    }
}

struct FirstVisitor<T, const N: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for FirstVisitor<T, N> {
    type Value = First<T, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut first = Vec::new();
        while first.len() < N {
            match array.next_element()? {
                Some(element) => first.push(element),
                None => return Ok(First(first)),
            }
        }
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(first))
    }
}

impl<'a> Envelope<'a> {
    /// Returns the raw `data` of the engine.
    pub(crate) fn data(&self) -> Option<&'a RawValue> {
        self.data
    }

    /// Parses the `data`. Returns `None` if it has another form, or too many elements.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Option<T> {
        let text = self.data?.get();
        is_parsable(text)
            .then(|| serde_json::from_str(text).ok())
            .flatten()
    }

    /// Parses the `data` of version 2. Returns `None` if it has another form.
    pub(crate) fn versioned(&self) -> Option<Versioned<'a>> {
        serde_json::from_str(self.data?.get()).ok()
    }
}

/// The token in the response to a login or a renewal.
#[derive(Deserialize)]
pub(crate) struct Auth<'a> {
    #[serde(borrow)]
    pub(crate) client_token: Cow<'a, str>,
    /// The token's accessor, which is not secret. A batch token has none.
    #[serde(borrow, default)]
    pub(crate) accessor: Option<Cow<'a, str>>,
    /// In seconds; 0 means unlimited.
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
    /// Returns whether the version has no value, because it was deleted or destroyed.
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

/// The metadata of one version in version 2.
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

/// The metadata of one key in version 2.
#[derive(Deserialize)]
pub(crate) struct KeyMetadata {
    #[serde(default)]
    pub(crate) custom_metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) current_version: u64,
    #[serde(default)]
    pub(crate) versions: BTreeMap<String, KeyVersion>,
}

/// The entry of one version in [`KeyMetadata`].
#[derive(Deserialize)]
pub(crate) struct KeyVersion {
    #[serde(default)]
    pub(crate) deletion_time: String,
    #[serde(default)]
    pub(crate) destroyed: bool,
}

impl KeyMetadata {
    /// Returns whether there is a current version to read. A deletion may be scheduled for a later
    /// time.
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

/// The names below a path.
#[derive(Deserialize)]
struct Names {
    keys: Option<First<String, MOST_NAMES>>,
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn response_shows_only_its_status() {
        let answer = Answer::new(200, None, Zeroizing::new(b"canary".to_vec()));
        assert_eq!(format!("{answer:?}"), "Answer(status 200)");
    }

    #[test]
    fn list_without_names_is_empty_only_with_the_paging_warning() {
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

    fn parsed(body: &str) -> Answer {
        Answer::new(200, None, Zeroizing::new(body.as_bytes().to_vec()))
    }

    #[test]
    fn long_list_is_cut_after_more_names_than_a_search_accepts() {
        let list = |names: usize| {
            let body = format!(r#"{{"data":{{"keys":[{}""]}}}}"#, r#""","#.repeat(names - 1));
            parsed(&body).names().unwrap().len()
        };
        assert_eq!(list(10_000), 10_000);
        assert_eq!(list(600_000), 10_001);
        assert!(parsed(r#"{"data":{"keys":["a",1]}}"#).names().is_none());
    }

    #[test]
    fn only_the_first_messages_are_kept() {
        let body = format!(
            r#"{{"errors":[{}"last"],"warnings":["{}end","warning"]}}"#,
            r#""error","#.repeat(100_000),
            "é".repeat(LONGEST_MESSAGE)
        );
        let answer = parsed(&body);
        assert_eq!(answer.complaints().len(), MOST_MESSAGES + 2);
        let longest = answer.complaints().iter().map(|text| text.len()).max();
        assert_eq!(longest, Some(LONGEST_MESSAGE));
        assert!(answer.has_error_containing("error") && answer.has_error_containing("warning"));
        assert!(!answer.has_error_containing("last") && !answer.has_error_containing("end"));
    }

    #[test]
    fn metadata_of_ten_thousand_versions_is_parsed_and_more_is_not() {
        let metadata = |versions: usize| {
            let version = r#"{"created_time":"t","deletion_time":"","destroyed":false,"created_by":null}"#;
            let versions: Vec<String> = (1..=versions)
                .map(|number| format!("\"{number}\":{version}"))
                .collect();
            let body = format!(r#"{{"data":{{"versions":{{{}}}}}}}"#, versions.join(","));
            let envelope = parsed(&body);
            let envelope = envelope.envelope().unwrap();
            envelope
                .parse::<KeyMetadata>()
                .map(|metadata| metadata.versions.len())
        };
        assert_eq!(metadata(10_000), Some(10_000));
        assert_eq!(metadata(20_000), None);
    }

    #[test]
    fn value_of_many_elements_is_not_limited() {
        let numbers = format!("{{\"a\":[{}0]}}", "0,".repeat(500_000));
        let body = format!(r#"{{"data":{{"data":{numbers},"metadata":{{"version":1}}}}}}"#);
        let answer = parsed(&body);
        let versioned = answer.envelope().unwrap().versioned().unwrap();
        assert_eq!(versioned.data.unwrap().get(), numbers);
    }

    #[test]
    fn body_that_is_not_a_json_object_has_no_envelope() {
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
