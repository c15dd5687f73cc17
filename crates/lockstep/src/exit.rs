//! What an exit code means: 0, everything is well; 1, something failed or would not sync; 2, the command cannot be
//! understood or what it names cannot be read.

use std::{io, process::ExitCode};

use crate::output;

/// Something failed, or would not sync.
pub(crate) const FAILED: u8 = 1;
/// The command cannot be understood, or what it names cannot be read.
pub(crate) const USAGE: u8 = 2;

/// Says on standard error why the command failed.
pub(crate) fn failed(message: &str) -> ExitCode {
    output::complain(&format!("error: {message}"));
    ExitCode::from(FAILED)
}

/// Says on standard error what cannot be understood or read.
pub(crate) fn misused(message: &str) -> ExitCode {
    output::complain(&format!("error: {message}"));
    ExitCode::from(USAGE)
}

/// The end of a command line that clap did not take; also of `--help` and `--version`, which end well.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    match error.print() {
        Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE)),
        Err(error) => printed(Err(error)),
    }
}

/// The end of a command that prints. A reader that went away (`lockstep crds | head`) is no failure.
pub(crate) fn printed(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failed(&format!("the output cannot be written: {error}")),
    }
}
