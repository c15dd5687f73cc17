//! `lockstep plan`: estimates API calls per day and their cost, without a cluster or a store.
//!
//! [`manifests`](crate::manifests) reads the input, [`count`] builds the input of the forecast in
//! the core, [`report`] adds prices and quotas, and [`show`] prints the result.

mod count;
mod report;
mod show;

use std::process::ExitCode;

use crate::{
    cli::{PlanArguments, PlanFormat},
    exit,
    manifests::{self, Objects, input, summary},
    output, providers,
};

use self::report::Report;

/// Reads, validates, counts and prints the manifests.
pub(crate) fn plan(arguments: &PlanArguments) -> ExitCode {
    let input = match input::read(
        &arguments.manifests.files,
        arguments.manifests.root.as_deref(),
        input::Folders::Applied,
        "plan",
    ) {
        Ok(input) => input,
        Err(message) => return exit::usage_error(&message),
    };
    for note in &input.notes {
        output::print_error(&format!("note: {note}"));
    }
    let mut objects = Objects::of(&input.sources, &arguments.namespace);
    let index = manifests::index(&mut objects);
    let counted = count::count(&objects, &index, &providers::registry(None));
    let report = Report::new(&counted, arguments.found);
    let text = match arguments.output {
        PlanFormat::Text => Ok(show::text(&report)),
        PlanFormat::Json => show::json(&objects, &counted, &report),
    };
    let printed = match text {
        Ok(text) => exit::printed(match arguments.output {
            PlanFormat::Text => output::print(&text),
            PlanFormat::Json => output::print_json(&text),
        }),
        Err(message) => return exit::failed(&format!("cannot format the output: {message}")),
    };
    for problem in &objects.problems {
        output::print_error(&problem.line());
    }
    for (placed, failure) in &counted.failed {
        output::print_error(&placed.failed(failure));
    }
    if !counted.failed.is_empty() || !objects.problems.is_empty() {
        let all = objects.synced_secrets.len();
        return exit::failed(&summary(all, counted.failed.len(), objects.problems.len()));
    }
    if objects.synced_secrets.is_empty() {
        output::print_error("note: the input contains no SyncedSecret");
    }
    printed
}
