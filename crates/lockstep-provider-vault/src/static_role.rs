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

/// What a static role answers.
pub(crate) struct StaticRole<'a> {
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
    seconds: u64,
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
        Some(Self {
            fields,
            // what is overdue has a negative one
            seconds: u64::try_from(seconds).unwrap_or(0),
            rotated: rotated.parse().ok()?,
        })
    }

    /// The value without its countdown, and how long it stays.
    pub(crate) fn secret(&self) -> Option<RemoteSecret> {
        let text = Zeroizing::new(serde_json::to_string(&self.fields).ok()?);
        let mut bytes = json::compact(&text)?;
        Some(RemoteSecret {
            value: SecretValue::new(std::mem::take(&mut *bytes)),
            version: None,
            created: Some(self.rotated),
            fresh_for: Some(Duration::from_secs(self.seconds).saturating_add(AFTER)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ttl: &str) -> String {
        format!(
            r#"{{"last_vault_rotation":"2026-05-01T10:00:00.25Z","password":"c\u003cx","rotation_period":3600,"ttl":{ttl},"username":"shop"}}"#
        )
    }

    #[test]
    fn the_countdown_is_no_part_of_the_value_and_says_when_to_read_again() {
        let text = answer("120");
        let secret = StaticRole::of(&text).unwrap().secret().unwrap();
        assert_eq!(
            secret.value.expose_str().unwrap(),
            r#"{"last_vault_rotation":"2026-05-01T10:00:00.25Z","password":"c<x","rotation_period":3600,"username":"shop"}"#
        );
        assert_eq!(secret.fresh_for, Some(Duration::from_secs(122)));
        assert_eq!(secret.created, Some("2026-05-01T10:00:00.25Z".parse().unwrap()));
        let later = answer("7");
        let later = StaticRole::of(&later).unwrap().secret().unwrap();
        assert_eq!(later.value, secret.value, "the same password is the same value");
        let overdue = answer("-3");
        assert_eq!(
            StaticRole::of(&overdue).unwrap().secret().unwrap().fresh_for,
            Some(Duration::from_secs(2))
        );
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
