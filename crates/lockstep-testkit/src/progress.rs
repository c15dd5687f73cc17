//! Shows the progress of slow steps: a spinner on a terminal, plain lines otherwise. Everything
//! goes to standard error.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line reports that a step is still running.
const REMINDER: Duration = Duration::from_secs(30);

/// A slow step.
#[derive(Debug)]
pub struct Step {
    what: String,
    began: Instant,
    reminded: Instant,
    spinner: Option<ProgressBar>,
}

impl Step {
    /// Starts a step and prints it.
    pub fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        let spinner = io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_message(what.clone());
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        if spinner.is_none() {
            line(format_args!("  … {what}"));
        }
        let began = Instant::now();
        Self {
            what,
            began,
            reminded: began,
            spinner,
        }
    }

    /// Reports periodically that the step is running. Call it while waiting.
    pub fn tick(&mut self) {
        if self.spinner.is_none() && self.reminded.elapsed() >= REMINDER {
            self.reminded = Instant::now();
            line(format_args!(
                "  … {}: {} so far",
                self.what,
                human(self.began.elapsed())
            ));
        }
    }

    /// Ends the step, prints its duration and returns it.
    pub fn done(self) -> Duration {
        let took = self.began.elapsed();
        self.finish(format_args!("  ✓ {}: {}", self.what, human(took)));
        took
    }

    /// Ends a step that failed. The caller reports the error.
    pub fn failed(self) {
        self.finish(format_args!(
            "  ✗ {}: failed after {}",
            self.what,
            human(self.began.elapsed())
        ));
    }

    fn finish(&self, last: fmt::Arguments<'_>) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        line(last);
    }
}

/// Writes one line to standard error. A closed standard error is ignored.
pub fn line(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Formats a duration for people: `340 ms`, `2.8 s`, `4 min 10 s`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_for_people() {
        for (millis, text) in [
            (340, "340 ms"),
            (2_800, "2.8 s"),
            (59_900, "59.9 s"),
            (250_000, "4 min 10 s"),
        ] {
            assert_eq!(human(Duration::from_millis(millis)), text);
        }
    }
}
