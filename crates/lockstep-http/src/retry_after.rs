use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// Upper bound for `Retry-After`: a mistyped date must not stop a store for years.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Returns how long the server asks the client to wait, clamped to one hour. The header contains
/// seconds or a date. A date is relative to the server's `Date` header, or to `now` if there is
/// none.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let until = http_date(text)?;
        let from = headers
            .get(DATE)
            .and_then(|date| http_date(date.to_str().ok()?))
            .unwrap_or(now);
        until.duration_since(from).try_into().unwrap_or_default()
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::parse(text).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case<'a> = (&'a [(&'static str, &'static str)], Option<u64>);

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_up_to_an_hour() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let cases: [Case<'_>; 8] = [
            (&[("retry-after", "7")], Some(7)),
            (&[("retry-after", "0")], Some(0)),
            (&[("retry-after", "999999999")], Some(3600)),
            (&[("retry-after", "Thu, 01 Jan 2026 00:00:30 GMT")], Some(30)),
            (
                &[
                    ("retry-after", "Thu, 01 Jan 2026 00:01:00 GMT"),
                    ("date", "Thu, 01 Jan 2026 00:00:50 GMT"),
                ],
                Some(10),
            ),
            (&[("retry-after", "Wed, 31 Dec 2025 00:00:00 GMT")], Some(0)),
            (&[("retry-after", "soon")], None),
            (&[], None),
        ];
        for (pairs, want) in cases {
            assert_eq!(
                retry_after(&headers(pairs), now),
                want.map(Duration::from_secs),
                "{pairs:?}"
            );
        }
    }
}
