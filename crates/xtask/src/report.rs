//! The steps of a task, and how long each took.

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
}

impl Report {
    /// Runs one step and notes how long it took, also when it fails.
    ///
    /// # Errors
    /// The step's own, with its name.
    pub(crate) fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        line(format_args!("── {name}"));
        let began = Instant::now();
        let outcome = step();
        self.steps
            .push((name.to_owned(), began.elapsed(), outcome.is_ok()));
        outcome.with_context(|| name.to_owned())
    }

    /// The summary: one line for each step, and the sum.
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
        text + &format!("\n    {:width$}  {}", "total", human(total))
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        line(format_args!("{}", self.summary()));
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failed_step_is_in_the_summary_and_names_itself_in_the_error() {
        let mut report = Report::default();
        report.step("formatting", || Ok(())).unwrap();
        let error = report.step("tests", || bail!("two failed")).unwrap_err();
        assert_eq!(format!("{error:#}"), "tests: two failed");
        let summary = report.summary();
        assert!(summary.contains("✓ formatting"), "{summary}");
        assert!(summary.contains("✗ tests"), "{summary}");
        assert!(summary.contains("total"), "{summary}");
    }
}
