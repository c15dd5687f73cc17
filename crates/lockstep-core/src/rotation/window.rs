//! Determines whether a rotation window is open, and when the next one opens.

use std::time::Duration;

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, Zoned, tz::TimeZone};
use lockstep_api::RotationWindow;

use crate::time::later;

/// Minimum duration of a window. A shorter one could pass between two reconciles.
const SHORTEST: Duration = Duration::from_secs(60);

/// Whether a window is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// At least one window is open.
    Open,
    /// No window is open.
    Closed {
        /// When the next window opens, if ever.
        next: Option<Timestamp>,
    },
}

/// The error of a window in the spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The schedule is not a valid cron expression.
    #[error(
        "rotation.windows[{index}].schedule: \"{schedule}\" is not a valid schedule. Use five cron fields (minute hour day-of-month month day-of-week), or @hourly, @daily, @weekly, @monthly or @yearly"
    )]
    Schedule {
        /// The index of the window.
        index: usize,
        /// The invalid value.
        schedule: String,
    },
    /// The schedule never matches.
    #[error("rotation.windows[{index}].schedule: \"{schedule}\" never matches a date")]
    Never {
        /// The index of the window.
        index: usize,
        /// The invalid value.
        schedule: String,
    },
    /// The time zone is unknown.
    #[error(
        "rotation.windows[{index}].timeZone: \"{zone}\" is not a time zone of the IANA database. Use a name such as Europe/Berlin or UTC"
    )]
    TimeZone {
        /// The index of the window.
        index: usize,
        /// The invalid value.
        zone: String,
    },
    /// The duration is too short.
    #[error("rotation.windows[{index}].duration: must be at least 1m")]
    Short {
        /// The index of the window.
        index: usize,
    },
}

/// The windows of a SyncedSecret. Without windows, changes are written at once.
///
/// ```
/// use lockstep_core::rotation::{Opening, Windows};
/// let nightly = serde_json::json!([{ "schedule": "0 2 * * *", "duration": "3h", "timeZone": "Europe/Berlin" }]);
/// let windows = Windows::new(&serde_json::from_value::<Vec<_>>(nightly)?)?;
/// // in summer, Berlin is two hours ahead of UTC
/// assert_eq!(windows.at("2026-07-01T00:30:00Z".parse()?), Opening::Open);
/// let next = Some("2026-07-02T00:00:00Z".parse()?);
/// assert_eq!(windows.at("2026-07-01T03:00:00Z".parse()?), Opening::Closed { next });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Windows(Vec<Window>);

#[derive(Debug, Clone)]
struct Window {
    cron: Cron,
    duration: Duration,
    zone: TimeZone,
}

impl Windows {
    /// Parses the windows of a spec.
    ///
    /// # Errors
    /// When a window is invalid.
    pub fn new(windows: &[RotationWindow]) -> Result<Self, WindowError> {
        windows
            .iter()
            .enumerate()
            .map(|(index, window)| Window::new(index, window))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Returns whether a window is open, or when the next one opens.
    pub fn at(&self, now: Timestamp) -> Opening {
        if self.0.is_empty() || self.0.iter().any(|window| window.is_open(now)) {
            return Opening::Open;
        }
        let next = self.0.iter().filter_map(|window| window.next(now)).min();
        Opening::Closed { next }
    }

    /// Whether there are no windows, so changes are written at once.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns when the last open window closes, in its time zone; `None` if none is open. Another
    /// window may open before.
    pub fn open_until(&self, now: Timestamp) -> Option<Zoned> {
        let open = self.0.iter().filter(|window| window.is_open(now));
        open.filter_map(|window| window.closes(now))
            .max_by_key(Zoned::timestamp)
    }
}

impl Window {
    fn new(index: usize, window: &RotationWindow) -> Result<Self, WindowError> {
        let schedule = || window.schedule.clone();
        let cron = parse(&window.schedule).ok_or_else(|| WindowError::Schedule {
            index,
            schedule: schedule(),
        })?;
        let name = window.time_zone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(name).map_err(|_| WindowError::TimeZone {
            index,
            zone: name.to_owned(),
        })?;
        let duration = window.duration.to_std();
        if duration < SHORTEST {
            return Err(WindowError::Short { index });
        }
        if !has_occurrence(&cron) {
            return Err(WindowError::Never {
                index,
                schedule: schedule(),
            });
        }
        Ok(Self { cron, duration, zone })
    }

    /// Whether the window last opened less than its duration ago.
    fn is_open(&self, now: Timestamp) -> bool {
        self.closes(now).is_some_and(|closes| now < closes.timestamp())
    }

    /// Returns the end of the current or last open time.
    fn closes(&self, now: Timestamp) -> Option<Zoned> {
        let here = now.to_zoned(self.zone.clone());
        let opened = self.cron.find_previous_occurrence(&here, true).ok()?;
        Some(later(opened.timestamp(), self.duration).to_zoned(self.zone.clone()))
    }

    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let here = now.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&here, false).ok()?;
        Some(next.timestamp())
    }
}

fn parse(schedule: &str) -> Option<Cron> {
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    parser.parse(schedule).ok()
}

/// Whether a schedule ever matches a date. Without this check, the search for the next date would
/// be long.
fn has_occurrence(cron: &Cron) -> bool {
    let start = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    cron.find_next_occurrence(&start, true).is_ok()
}
