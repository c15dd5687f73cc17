//! Static roles of the database and LDAP engines: an account whose password Vault changes by itself, at a time that it tells.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use lockstep_provider::{RemoteSecret, SecretValue};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::json;

/// The field that counts down to the next rotation. It says another number at each read, and is left out of the value: a Secret that
/// held it would change, and restart its pods, at each refresh.
const COUNTDOWN: &str = "ttl";
/// The field that says when Vault changed the password.
const ROTATED: &str = "last_vault_rotation";
/// How long after the announced rotation the password is read: Vault counts in whole seconds, and does it a moment later.
const AFTER: Duration = Duration::from_secs(2);
/// How soon the password of a role is read again that Vault should have changed by now and did not: a database that is away, or a
/// rotation that fails, may last. From then on after as long as it is overdue; the refresh interval is the longest.
const OVERDUE: Duration = Duration::from_secs(30);
/// The field that says how often Vault changes the password, in seconds; a role with a schedule has none.
const PERIOD: &str = "rotation_period";

/// What a static role answers.
pub(crate) struct StaticRole<'a> {
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
    seconds: i64,
    period: Option<i64>,
    rotated: Timestamp,
}

impl<'a> StaticRole<'a> {
    /// The answer of a static role; `None` when it is that of anything else.
    pub(crate) fn of(data: &'a str) -> Option<Self> {
        if !data.contains(ROTATED) {
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

    /// How long the password stays, as far as it is known.
    fn fresh_for(&self, now: Timestamp) -> Duration {
        if let Some(left) = u64::try_from(self.seconds).ok().filter(|left| *left > 0) {
            return Duration::from_secs(left).saturating_add(AFTER);
        }
        // some count on below zero, and some stop there
        let since = self.period.map_or(0, |period| {
            let age = now.duration_since(self.rotated).as_secs();
            age.saturating_sub(period)
        });
        let overdue = since.max(self.seconds.saturating_neg());
        Duration::from_secs(u64::try_from(overdue).unwrap_or(0)).max(OVERDUE)
    }

    /// The value without its countdown, and how long it stays.
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
    fn the_countdown_is_no_part_of_the_value_and_says_when_to_read_again() {
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
    fn one_that_is_overdue_is_read_ever_more_seldom_and_never_at_once() {
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
    fn an_ordinary_value_that_looks_alike_stays_as_it_is() {
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
