//! Static roles of the database and LDAP engines: accounts whose password Vault changes by itself,
//! at an announced time.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use lockstep_provider::{RemoteSecret, SecretValue};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::{answer::is_parsable, json};

/// The field that counts down to the next rotation. It differs on each read and is not part of the
/// value: otherwise the Secret would change, and restart its pods, on each refresh.
const COUNTDOWN: &str = "ttl";
/// The time when Vault last changed the password.
const ROTATED: &str = "last_vault_rotation";
/// How long after the announced rotation the password is read. Vault counts in whole seconds and
/// rotates slightly later.
const AFTER: Duration = Duration::from_secs(2);
/// The first delay before reading the password of a role whose rotation is overdue. The reason may
/// last: a database that is down, or a rotation that fails. After that, the delay equals the time
/// that the rotation is overdue, up to the refresh interval.
const OVERDUE: Duration = Duration::from_secs(30);
/// The time between two rotations, in seconds. A role with a schedule does not have this field.
const PERIOD: &str = "rotation_period";

/// The response of a static role.
pub(crate) struct StaticRole<'a> {
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
    seconds: i64,
    period: Option<i64>,
    rotated: Timestamp,
}

impl<'a> StaticRole<'a> {
    /// Parses the response of a static role. Returns `None` for any other response.
    pub(crate) fn of(data: &'a str) -> Option<Self> {
        if !data.contains(ROTATED) || !is_parsable(data) {
            return None;
        }
        let mut fields: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(data).ok()?;
        let rotated: String = serde_json::from_str(fields.get(ROTATED)?.get()).ok()?;
        let seconds: i64 = serde_json::from_str(fields.remove(COUNTDOWN)?.get()).ok()?;
        let period = fields
            .get(PERIOD)
            .and_then(|text| serde_json::from_str(text.get()).ok());
        Some(Self {
            fields,
            seconds,
            period,
            rotated: rotated.parse().ok()?,
        })
    }

    /// Returns how long the password remains valid, as far as known.
    fn fresh_for(&self, now: Timestamp) -> Duration {
        if let Some(left) = u64::try_from(self.seconds).ok().filter(|left| *left > 0) {
            return Duration::from_secs(left).saturating_add(AFTER);
        }
        // some servers count on below zero, others stop there
        let since = self.period.map_or(0, |period| {
            let age = now.duration_since(self.rotated).as_secs();
            age.saturating_sub(period)
        });
        let overdue = since.max(self.seconds.saturating_neg());
        Duration::from_secs(u64::try_from(overdue).unwrap_or(0)).max(OVERDUE)
    }

    /// Returns the value without its countdown, and how long it remains valid.
    pub(crate) fn secret(&self, now: Timestamp) -> Option<RemoteSecret> {
        let text = Zeroizing::new(serde_json::to_string(&self.fields).ok()?);
        let mut bytes = json::compact(&text)?;
        Some(RemoteSecret {
            value: SecretValue::new(std::mem::take(&mut *bytes)),
            version: None,
            created: Some(self.rotated),
            fresh_for: Some(self.fresh_for(now)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-05-01T10:58:00Z".parse().unwrap()
    }

    fn answer(ttl: &str) -> String {
        format!(
            r#"{{"last_vault_rotation":"2026-05-01T10:00:00.25Z","password":"c\u003cx","rotation_period":3600,"ttl":{ttl},"username":"shop"}}"#
        )
    }

    #[test]
    fn countdown_sets_the_next_read_and_is_not_in_the_value() {
        let text = answer("120");
        let secret = StaticRole::of(&text).unwrap().secret(now()).unwrap();
        assert_eq!(
            secret.value.expose_str().unwrap(),
            r#"{"last_vault_rotation":"2026-05-01T10:00:00.25Z","password":"c<x","rotation_period":3600,"username":"shop"}"#
        );
        assert_eq!(secret.fresh_for, Some(Duration::from_secs(122)));
        assert_eq!(secret.created, Some("2026-05-01T10:00:00.25Z".parse().unwrap()));
        let later = answer("7");
        let later = StaticRole::of(&later).unwrap().secret(now()).unwrap();
        assert_eq!(later.value, secret.value, "the same password is the same value");
    }

    #[test]
    fn overdue_role_is_read_less_and_less_often() {
        let after = |text: &str, now: &str| {
            let role = StaticRole::of(text).unwrap();
            role.secret(now.parse().unwrap())
                .unwrap()
                .fresh_for
                .unwrap()
                .as_secs()
        };
        // due at 11:00:00.25
        assert_eq!(after(&answer("0"), "2026-05-01T11:00:01Z"), 30);
        assert_eq!(after(&answer("-3"), "2026-05-01T11:00:03Z"), 30);
        assert_eq!(after(&answer("0"), "2026-05-01T11:10:01Z"), 600);
        assert_eq!(
            after(&answer("-600"), "2026-05-01T10:00:00Z"),
            600,
            "a clock that is behind"
        );
        let scheduled = answer("0").replace("rotation_period", "rotation_window");
        assert_eq!(after(&scheduled, "2026-05-01T11:10:01Z"), 30);
        assert_eq!(after(&answer("1"), "2026-05-01T11:10:01Z"), 3);
    }

    #[test]
    fn similar_ordinary_value_stays_unchanged() {
        for text in [
            r#"{"ttl":60,"password":"x"}"#,
            r#"{"last_vault_rotation":"yesterday","ttl":60}"#,
            r#"{"last_vault_rotation":"2026-05-01T10:00:00Z"}"#,
            r#"{"last_vault_rotation":"2026-05-01T10:00:00Z","ttl":"60"}"#,
            r#"{"note":"last_vault_rotation"}"#,
        ] {
            assert!(StaticRole::of(text).is_none(), "{text}");
        }
    }
}
