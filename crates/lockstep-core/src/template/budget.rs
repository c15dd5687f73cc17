//! Limits the total time of the templates of one Secret.

use std::time::{Duration, Instant};

use super::TemplateError;

/// Maximum total time of the templates of one Secret. Each template also has its own limit, so the
/// last one may start just before the end.
pub const TOGETHER: Duration = Duration::from_secs(2);

/// The remaining part of [`TOGETHER`].
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    began: Instant,
}

impl Budget {
    /// Starts a full budget.
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    #[cfg(test)]
    pub(crate) fn spent() -> Self {
        Self {
            began: Instant::now().checked_sub(TOGETHER * 2).unwrap(),
        }
    }

    /// Whether the budget is used up.
    pub fn is_spent(self) -> bool {
        self.began.elapsed() > TOGETHER
    }

    /// Checks that another template may start.
    ///
    /// # Errors
    ///
    /// When the budget is used up.
    pub fn check(self) -> Result<(), TemplateError> {
        if !self.is_spent() {
            return Ok(());
        }
        Err(TemplateError::whole(format!(
            "the templates of this Secret took longer than {} s in total.",
            TOGETHER.as_secs()
        )))
    }
}
