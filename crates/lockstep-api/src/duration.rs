//! Durations in Go's syntax (`90s`, `1h30m`), with `d` for days.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Duration is a length of time in Go's syntax (`300ms`, `90s`, `1h30m`), with `d` for days of 24
/// hours.
///
/// ```
/// use lockstep_api::Duration;
/// let duration: Duration = "1h30m".parse()?;
/// assert_eq!(duration.to_std().as_secs(), 5400);
/// assert_eq!(duration.to_string(), "1h30m");
/// # Ok::<(), lockstep_api::duration::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

/// ParseError is the reason why a text is not a [`Duration`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text is not a list of numbers with units.
    #[error("not a duration: use a number and a unit, such as 90s, 15m, 1h30m or 7d")]
    Syntax,
    /// The text has a unit other than ns, us, ms, s, m, h and d.
    #[error("unknown unit in a duration: use ns, us, ms, s, m, h or d")]
    Unit,
    /// The duration is longer than 36500 days.
    #[error("duration is longer than 36500d")]
    TooLong,
}

/// The pattern of durations in the CRD schemas. [`Duration::from_str`] accepts the same texts up to
/// 36500 days. A longer duration in a stored object is read as 36500 days, so that every object
/// that the API server accepts can be read.
pub const PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+$";

const MAX_DAYS: u64 = 36_500;
#[expect(clippy::cast_precision_loss, reason = "the number is exact in an f64")]
const MAX_SECONDS: f64 = (MAX_DAYS * 86_400) as f64;

impl Duration {
    /// Creates a duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// Returns the same length of time as the type of the standard library.
    pub const fn to_std(self) -> std::time::Duration {
        self.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(value: std::time::Duration) -> Self {
        Self(value)
    }
}

impl FromStr for Duration {
    type Err = ParseError;

    /// # Errors
    /// The text is empty, has a number without a known unit, or is longer than 36500 days.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text;
        let mut seconds = 0.0_f64;
        if rest.is_empty() {
            return Err(ParseError::Syntax);
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or(ParseError::Syntax)?;
            let (number, tail) = rest.split_at(digits);
            if number.starts_with('.') || number.ends_with('.') {
                return Err(ParseError::Syntax);
            }
            let number: f64 = number.parse().map_err(|_| ParseError::Syntax)?;
            let end = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            seconds += number * unit_seconds(unit).ok_or(ParseError::Unit)?;
            if seconds > MAX_SECONDS {
                return Err(ParseError::TooLong);
            }
            rest = tail;
        }
        Ok(Self(
            std::time::Duration::from_nanos(0) + std::time::Duration::from_secs_f64(seconds),
        ))
    }
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    })
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seconds = self.0.as_secs();
        let nanos = self.0.subsec_nanos();
        if seconds == 0 && nanos == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
            if seconds >= size {
                write!(f, "{}{unit}", seconds / size)?;
                seconds %= size;
            }
        }
        match nanos {
            0 => Ok(()),
            n if n % 1_000_000 == 0 => write!(f, "{}ms", n / 1_000_000),
            n => write!(f, "{n}ns"),
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.parse() {
            Err(ParseError::TooLong) => Ok(Self::from_secs(MAX_DAYS * 86_400)),
            parsed => parsed.map_err(de::Error::custom),
        }
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": 64 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_durations_and_days_are_parsed() {
        for (text, millis) in [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("300ms", 300),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
            ("0s", 0),
        ] {
            assert_eq!(
                text.parse::<Duration>().unwrap().to_std().as_millis(),
                millis,
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_durations_are_rejected() {
        for text in [
            "",
            "5",
            "h",
            "1x",
            "-1s",
            "1.s",
            ".5s",
            "1 h",
            "99999999d",
            "1h 2m",
            "٣s",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_clamped_to_a_hundred_years() {
        let read: Duration = serde_json::from_str("\"99999d\"").unwrap();
        assert_eq!(read, "36500d".parse().unwrap());
        assert!(serde_json::from_str::<Duration>("\"1x\"").is_err());
    }

    proptest! {
        #[test]
        fn displayed_durations_round_trip(seconds in 0_u64..3_000_000_000, millis in 0_u32..1000) {
            let duration = Duration(std::time::Duration::new(seconds, millis * 1_000_000));
            let read: Duration = duration.to_string().parse().unwrap();
            prop_assert!(read.0.abs_diff(duration.0) < std::time::Duration::from_micros(10));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = text.parse::<Duration>();
        }
    }
}
