//! `cargo xtask generate`: every file that is made from the code and committed.

use anyhow::Result;

use crate::{
    crds,
    generator::{self, Generator},
    references,
};

// A new generator is one line here.
const GENERATORS: &[&Generator] = &[&crds::GENERATOR, &references::GENERATOR];

/// Write every file that is made from the code: CustomResourceDefinitions and references
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when a committed file differs from what the code makes
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    run_all(arguments.check)
}

/// Runs every generator.
pub(crate) fn run_all(check: bool) -> Result<()> {
    GENERATORS
        .iter()
        .try_for_each(|generator| generator::run(generator, check))
}
