//! `lockstep completions`: prints shell completion scripts.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, output};

/// Prints the completion script of a shell.
pub(crate) fn print(shell: Shell) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lockstep", &mut script);
    output::print_document(&String::from_utf8_lossy(&script))
}
