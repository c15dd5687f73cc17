//! Exit codes: 0 is success, 1 means that something failed or would not sync, 2 is a usage error or
//! unreadable input.

use std::{io, process::ExitCode};

use crate::output;

/// Something failed or would not sync.
pub(crate) const FAILED: u8 = 1;
/// Usage error or unreadable input.
pub(crate) const USAGE: u8 = 2;

/// Prints an error to standard error and returns exit code 1.
pub(crate) fn failed(message: &str) -> ExitCode {
    output::print_error(&format!("error: {message}"));
    ExitCode::from(FAILED)
}

/// Prints an error to standard error and returns exit code 2.
pub(crate) fn usage_error(message: &str) -> ExitCode {
    output::print_error(&format!("error: {message}"));
    ExitCode::from(USAGE)
}

/// Prints the message of clap and returns its exit code. `--help` and `--version` succeed.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    match error.print() {
        Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE)),
        Err(error) => printed(Err(error)),
    }
}

/// Returns the exit code of a command that prints. A closed pipe (`lockstep crds | head`) is not a
/// failure.
pub(crate) fn printed(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failed(&format!("cannot write the output: {error}")),
    }
}
