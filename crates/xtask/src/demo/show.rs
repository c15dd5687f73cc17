//! Prints one line for each step of the demo, with its result and duration.

use std::{
    fmt,
    future::Future,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lockstep_testkit::progress::human;

/// Interval of progress updates: in place on a terminal, otherwise on a line of their own.
const ON_TERMINAL: Duration = Duration::from_millis(500);
const ELSEWHERE: Duration = Duration::from_secs(10);
/// Clears the current line of a terminal.
const CLEAR: &str = "\r\u{1b}[K";

/// Standard output of the demo.
#[derive(Debug)]
pub(crate) struct Show {
    terminal: bool,
}

impl Show {
    pub(crate) fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
        }
    }

    /// Runs one step. `work` returns the result and a description of it.
    ///
    /// # Errors
    /// Returns the error of the work, or an error after `limit`.
    pub(crate) async fn step<T>(
        &self,
        name: &str,
        limit: Duration,
        work: impl Future<Output = Result<(T, String)>>,
    ) -> Result<T> {
        let began = Instant::now();
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(if self.terminal { ON_TERMINAL } else { ELSEWHERE });
        tick.tick().await;
        self.going_on(name, began, true);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome.with_context(|| name.to_owned()),
                _ = tick.tick() => {
                    if began.elapsed() > limit {
                        break Err(anyhow::anyhow!("{name}: timed out after {}", human(limit)));
                    }
                    self.going_on(name, began, false);
                }
            }
        };
        if self.terminal {
            write(format_args!("{CLEAR}"));
        }
        let took = human(began.elapsed());
        match outcome {
            Ok((made, seen)) => {
                self.line(format_args!("{}", row('✓', name, &seen, &took)));
                Ok(made)
            }
            Err(error) => {
                self.line(format_args!("{}", row('✗', name, "", &took)));
                Err(error)
            }
        }
    }

    /// Prints an action of the demo as a command.
    pub(crate) fn does(&self, command: &str) {
        self.line(format_args!("  → {command}"));
    }

    /// Prints a detail of the previous step.
    pub(crate) fn detail(&self, text: &str) {
        self.line(format_args!("    {:16}  {text}", ""));
    }

    /// Prints one line.
    #[expect(clippy::unused_self, reason = "everything that is printed goes through here")]
    pub(crate) fn line(&self, text: fmt::Arguments<'_>) {
        write(format_args!("{text}\n"));
    }

    fn going_on(&self, name: &str, began: Instant, first: bool) {
        if self.terminal {
            let so_far = if first {
                String::new()
            } else {
                human(began.elapsed())
            };
            write(format_args!("{CLEAR}  … {name}  {so_far}"));
        } else if !first {
            self.line(format_args!("  … {name}: {} so far", human(began.elapsed())));
        }
    }
}

fn row(mark: char, name: &str, seen: &str, took: &str) -> String {
    format!("  {mark} {name:16}  {seen:70} {took:>9}")
}

/// Writes to standard output. Errors are ignored, because everything that was started must still be
/// stopped.
fn write(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let _ = out.write_fmt(text);
    let _ = out.flush();
}

/// Retries until it succeeds or `limit` has passed.
///
/// # Errors
/// Returns the last error of the attempt after `limit`.
pub(crate) async fn wait_for<T>(limit: Duration, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if began.elapsed() > limit => {
                bail!("timed out after {}; last result: {error:#}", human(limit))
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn row_shows_result_and_duration() {
        let row = row('✓', "lockstep", "running", "340 ms");
        assert!(row.starts_with("  ✓ lockstep          running "), "{row}");
        assert!(row.ends_with("   340 ms"), "{row}");
    }

    #[test]
    fn timeout_reports_the_last_error() {
        let mut tries = 0;
        let error = runtime()
            .block_on(wait_for(Duration::from_millis(30), async || -> Result<()> {
                tries += 1;
                bail!("no Secret at try {tries}")
            }))
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.starts_with("timed out after 30 ms; last result: no Secret at try "),
            "{text}"
        );
    }

    #[test]
    fn failed_step_is_named_in_the_error() {
        let show = Show { terminal: false };
        let error = runtime()
            .block_on(show.step("OpenBao", Duration::from_secs(1), async {
                bail!("it does not start");
                #[expect(unreachable_code, reason = "tells the type")]
                Ok(((), String::new()))
            }))
            .unwrap_err();
        assert_eq!(format!("{error:#}"), "OpenBao: it does not start");
    }
}
