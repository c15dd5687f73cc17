//! `lockstep render`.

use std::process::ExitCode;

use crate::{cli::RenderArguments, exit};

/// Answers that this version cannot do it.
pub(crate) fn render(_: &RenderArguments) -> ExitCode {
    exit::misused("this version of lockstep cannot render")
}
