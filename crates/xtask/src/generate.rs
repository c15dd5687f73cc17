//! `cargo xtask generate`: generates every committed file that is derived from the code.

use anyhow::Result;

use crate::{
    crds, expected_schema,
    generator::{self, Generator},
    references,
};

// A new generator is one line here.
const GENERATORS: &[&Generator] = &[
    &crds::GENERATOR,
    &references::GENERATOR,
    &expected_schema::GENERATOR,
];

/// Generate all committed files that are derived from the code: CustomResourceDefinitions,
/// references and the schema of `expected.yaml`
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing, and fail if a committed file is not up to date
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
