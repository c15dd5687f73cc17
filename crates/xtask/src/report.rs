//! The steps of a task and their durations.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lockstep_testkit::progress::{human, line};

/// The steps of one task.
#[derive(Debug, Default)]
pub(crate) struct Report {
    steps: Vec<(String, Duration, bool)>,
    programs: Vec<(String, Duration)>,
}

/// Number of the slowest test programs in the summary.
const SLOWEST: usize = 8;

impl Report {
    /// Runs one step and records its duration, also if it fails.
    ///
    /// # Errors
    /// Returns the error of the step, with its name.
    pub(crate) fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        line(format_args!("── {name}"));
        let began = Instant::now();
        let outcome = step();
        self.steps
            .push((name.to_owned(), began.elapsed(), outcome.is_ok()));
        outcome.with_context(|| name.to_owned())
    }

    /// Records the duration of each test program.
    pub(crate) fn note_programs(&mut self, programs: impl IntoIterator<Item = (String, Duration)>) {
        self.programs.extend(programs);
    }

    /// Returns the summary: one line for each step, and the total.
    pub(crate) fn summary(&self) -> String {
        let width = self
            .steps
            .iter()
            .map(|(name, ..)| name.chars().count())
            .max()
            .unwrap_or_default()
            .max(5);
        let total: Duration = self.steps.iter().map(|(_, took, _)| *took).sum();
        let mut text = String::from("── summary");
        for (name, took, held) in &self.steps {
            let mark = if *held { '✓' } else { '✗' };
            let _ = write!(text, "\n  {mark} {name:width$}  {}", human(*took));
        }
        let _ = write!(text, "\n    {:width$}  {}", "total", human(total));
        let mut slowest: Vec<_> = self.programs.iter().collect();
        slowest.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        if !slowest.is_empty() {
            text += "\n── slowest test programs";
        }
        for (name, took) in slowest.into_iter().take(SLOWEST) {
            let _ = write!(text, "\n    {:>12}  {name}", human(*took));
        }
        text
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // Reports of this file's own tests would look like the summary of the test run.
        if cfg!(test) {
            return;
        }
        line(format_args!("{}", self.summary()));
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn failed_step_is_in_summary_and_error() {
        let mut report = Report::default();
        report.step("formatting", || Ok(())).unwrap();
        let error = report.step("tests", || bail!("two failed")).unwrap_err();
        assert_eq!(format!("{error:#}"), "tests: two failed");
        let summary = report.summary();
        assert!(summary.contains("✓ formatting"), "{summary}");
        assert!(summary.contains("✗ tests"), "{summary}");
        assert!(summary.contains("total"), "{summary}");
        assert!(!summary.contains("slowest"), "{summary}");
    }

    #[test]
    fn slowest_test_programs_come_first() {
        let mut report = Report::default();
        report.note_programs([
            ("quick".to_owned(), Duration::from_millis(5)),
            ("slow".to_owned(), Duration::from_secs(65)),
        ]);
        let summary = report.summary();
        assert!(
            summary.ends_with("── slowest test programs\n       1 min 5 s  slow\n            5 ms  quick"),
            "{summary}"
        );
    }
}
