//! The time that the templates of one Secret have together.

use std::time::{Duration, Instant};

use super::TemplateError;

/// How long the templates of one Secret may take together. Each has a limit of its own besides, so the last one may
/// begin just before the end.
pub const TOGETHER: Duration = Duration::from_secs(2);

/// What is left of [`TOGETHER`].
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    began: Instant,
}

impl Budget {
    /// All of it.
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    /// Whether nothing is left.
    pub fn is_spent(self) -> bool {
        self.began.elapsed() > TOGETHER
    }

    /// Asks whether another template may begin.
    ///
    /// # Errors
    ///
    /// Nothing is left.
    pub fn ask(self) -> Result<(), TemplateError> {
        if !self.is_spent() {
            return Ok(());
        }
        Err(TemplateError::whole(format!(
            "the templates of this Secret did not finish within {} s together.",
            TOGETHER.as_secs()
        )))
    }
}
