//! The version of a value that a message names.
//!
//! A source may return an older value for a few seconds after a change. A message that names the
//! current version shows which value to wait for.

use std::time::Duration;

use jiff::Timestamp;

use crate::remote::{ErrorKind, ProviderError, RemoteSecret};

/// How much the clocks of a source and its events may differ, including times that are rounded to
/// seconds.
const CLOCKS: Duration = Duration::from_secs(2);

/// How long after a change a source may still return the previous value. Sources are consistent
/// within seconds.
const LAGGING: Duration = Duration::from_mins(10);

/// A version of a value that became the current one, according to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionHint {
    /// Every way in which a reference can name the value.
    pub keys: Vec<String>,
    /// The version, in the form of [`RemoteRef::version`](crate::remote::RemoteRef).
    pub version: String,
    /// The version, in the form that the backend returns with a value.
    pub read_version: String,
    /// When it became the current one.
    pub at: Option<Timestamp>,
}

impl VersionHint {
    /// Returns the approximate size in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        let keys: usize = self.keys.iter().map(|key| size_of::<String>() + key.len()).sum();
        size_of::<Self>() + keys + self.version.len() + self.read_version.len()
    }

    /// Whether the change is recent, so the source may still return the previous value. Messages of
    /// a service have a time.
    pub fn is_recent(&self, now: Timestamp) -> bool {
        self.at
            .is_some_and(|at| now.duration_since(at).unsigned_abs() <= LAGGING)
    }

    /// Whether the value that was read as the current one may be older than this version.
    pub fn doubts(&self, answer: &Result<RemoteSecret, ProviderError>) -> bool {
        let read = match answer {
            Ok(read) => read,
            Err(error) => return error.kind == ErrorKind::NotFound,
        };
        if read.version.as_ref() == Some(&self.read_version) {
            return false;
        }
        let numbers = number(read.version.as_deref()).zip(number(Some(&self.read_version)));
        if let Some((read, hinted)) = numbers {
            return read < hinted;
        }
        let later = |created: Timestamp, at: Timestamp| created > at.saturating_add(CLOCKS).unwrap_or(at);
        !read
            .created
            .zip(self.at)
            .is_some_and(|(created, at)| later(created, at))
    }

    /// Whether the version that the message names is newer than what was read as the current one.
    pub fn prefers(read: &Result<RemoteSecret, ProviderError>, named: &RemoteSecret) -> bool {
        let Ok(read) = read else { return true };
        if let (Some(read), Some(named)) = (number(read.version.as_deref()), number(named.version.as_deref()))
        {
            return named > read;
        }
        read.created
            .zip(named.created)
            .is_some_and(|(read, named)| named > read)
    }
}

/// Returns a version that is a number.
fn number(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{Operation, SecretValue};

    fn read(version: &str, created: &str) -> Result<RemoteSecret, ProviderError> {
        Ok(RemoteSecret {
            fresh_for: None,
            value: SecretValue::from("value"),
            version: Some(version.to_owned()),
            created: Some(created.parse().unwrap()),
        })
    }

    fn failed(kind: ErrorKind) -> Result<RemoteSecret, ProviderError> {
        Err(ProviderError::new(kind, Operation::Read, "no"))
    }

    #[test]
    fn value_is_doubted_while_it_may_be_older_than_the_hint() {
        let hint = |version: &str| VersionHint {
            keys: vec!["a".to_owned()],
            version: version.to_owned(),
            read_version: version.to_owned(),
            at: Some("2026-01-01T00:01:00Z".parse().unwrap()),
        };
        let (before, after) = ("2026-01-01T00:00:00Z", "2026-01-01T00:02:00Z");
        assert!(!hint("uuid/b").doubts(&read("uuid/b", before)), "it is the same");
        assert!(hint("uuid/b").doubts(&read("uuid/a", before)));
        assert!(!hint("uuid/b").doubts(&read("uuid/c", after)), "something newer");
        assert!(
            hint("uuid/b").doubts(&read("uuid/c", "2026-01-01T00:01:00.9Z")),
            "within the second of the message"
        );
        assert!(hint("9").doubts(&read("8", after)) && !hint("9").doubts(&read("10", before)));
        assert!(hint("9").doubts(&failed(ErrorKind::NotFound)));
        assert!(!hint("9").doubts(&failed(ErrorKind::Unavailable)));
        let newer = |of: Result<_, _>, than| VersionHint::prefers(&than, &of.unwrap());
        assert!(newer(read("uuid/b", after), read("uuid/a", before)));
        assert!(!newer(read("uuid/a", before), read("uuid/b", after)));
        assert!(newer(read("10", before), read("9", after)));
        assert!(newer(read("1", before), failed(ErrorKind::NotFound)));
    }

    #[test]
    fn hint_is_recent_within_ten_minutes_of_its_time() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        for (at, wanted) in [
            (Some("2026-01-01T12:00:00Z"), true),
            (Some("2026-01-01T11:50:00Z"), true),
            (Some("2026-01-01T11:49:59Z"), false),
            (Some("2026-01-01T12:10:00Z"), true),
            (Some("2026-01-01T12:10:01Z"), false),
            (Some("9999-01-01T00:00:00Z"), false),
            (None, false),
        ] {
            let hint = VersionHint {
                keys: vec!["a".to_owned()],
                version: "1".to_owned(),
                read_version: "1".to_owned(),
                at: at.map(|at| at.parse().unwrap()),
            };
            assert_eq!(hint.is_recent(now), wanted, "{at:?}");
        }
    }
}
