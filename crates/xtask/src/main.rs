//! Development tasks of lockstep: `cargo xtask <task>`.

mod bench;
mod ci;
mod command;
mod crds;
mod demo;
#[cfg(test)]
mod documents;
mod expected_schema;
mod generate;
mod generator;
mod references;
mod report;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lockstep_testkit::progress;

/// Development tasks of lockstep
///
/// Requires only Rust, Go 1.26 and Python 3. The servers that the tests run (etcd, the Kubernetes
/// control plane, OpenBao) are built or downloaded once and cached in lockstep/tools in the user's
/// cache folder.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    arg_required_else_help = true,
    after_help = "Examples:
  cargo xtask demo                see lockstep work; takes seconds after the first run
  cargo xtask test                run all tests; `cargo xtask test drift` runs those with \"drift\" in their names
  cargo xtask generate            run after a change to the API, the command line, metrics or reasons
  cargo xtask ci                  run every check that a change must pass before it is merged"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

// A new task is one line here and one in `run`.
#[derive(Debug, Subcommand)]
enum Task {
    Demo(demo::Arguments),
    Setup(setup::Arguments),
    Test(test::Arguments),
    Crds(crds::Arguments),
    Generate(generate::Arguments),
    Ci(ci::Arguments),
    Bench(bench::Arguments),
}

fn run(task: &Task) -> anyhow::Result<()> {
    match task {
        Task::Demo(arguments) => demo::run(arguments),
        Task::Setup(arguments) => setup::run(arguments),
        Task::Test(arguments) => test::run(arguments),
        Task::Crds(arguments) => crds::run(arguments),
        Task::Generate(arguments) => generate::run(arguments),
        Task::Ci(arguments) => ci::run(arguments),
        Task::Bench(arguments) => bench::run(arguments),
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::line(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_task_and_option_has_help() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        for task in command.get_subcommands().filter(|task| task.get_name() != "help") {
            assert!(task.get_about().is_some(), "{} has no help", task.get_name());
            for argument in task.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} of {} has no help",
                    argument.get_id(),
                    task.get_name()
                );
            }
        }
    }

    #[test]
    fn test_arguments_are_passed_on() {
        let arguments =
            Arguments::try_parse_from(["xtask", "test", "--", "--package", "lockstep-api"]).unwrap();
        let Task::Test(test) = arguments.task else {
            panic!("not the test task")
        };
        assert_eq!(test.arguments, ["--package", "lockstep-api"]);
    }
}
