//! `lockstep render`: renders the Secrets of manifests without a cluster.
//!
//! [`manifests`](crate::manifests) reads the input. [`pipeline`] runs the operator's own pipeline,
//! with [`values`] as every store. [`show`] prints the result, masked by [`written`].

mod pipeline;
mod show;
mod values;
mod written;

use std::{process::ExitCode, sync::Arc};

use crate::{
    cli::{RenderArguments, RenderFormat},
    exit,
    manifests::{Objects, input, summary},
    output,
};

use self::{
    pipeline::{Rendered, Sealed},
    values::{Everywhere, Folder},
};

/// Reads, validates, renders and prints the manifests.
pub(crate) fn render(arguments: &RenderArguments) -> ExitCode {
    let input = match input::read(
        &arguments.manifests.files,
        arguments.manifests.root.as_deref(),
        input::Folders::Applied,
        "render",
    ) {
        Ok(input) => input,
        Err(message) => return exit::usage_error(&message),
    };
    let values = match arguments.values.as_deref().map(Folder::open).transpose() {
        Ok(values) => values.map(|folder| Everywhere(Arc::new(folder))),
        Err(message) => return exit::usage_error(&message),
    };
    let sealed = match arguments.sealed_values.as_deref().map(Folder::open).transpose() {
        Ok(sealed) => sealed,
        Err(message) => return exit::usage_error(&message),
    };
    let sealed = Sealed {
        values: sealed.as_ref(),
        shown: arguments.show_values,
    };
    for note in &input.notes {
        output::print_error(&format!("note: {note}"));
    }
    let mut objects = Objects::of(&input.sources, &arguments.namespace);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::failed(&format!("cannot start the async runtime: {error}")),
    };
    let all = runtime.block_on(pipeline::run(&mut objects, values.as_ref(), sealed));
    let text = match arguments.output {
        RenderFormat::Yaml => show::yaml(&objects, &all, arguments.show_values),
        RenderFormat::Json => show::json(&objects, &all, arguments.show_values),
    };
    let printed = match text {
        Ok(text) => exit::printed(match arguments.output {
            RenderFormat::Yaml => output::print_document(&text),
            RenderFormat::Json => output::print_json(&text),
        }),
        Err(message) => return exit::failed(&format!("cannot format the output: {message}")),
    };
    for line in show::errors_and_notes(&objects, &all) {
        output::print_error(&line);
    }
    let failed = all
        .iter()
        .filter(|rendered| matches!(rendered, Rendered::Failed(_)))
        .count();
    if failed > 0 || !objects.problems.is_empty() {
        return exit::failed(&summary(all.len(), failed, objects.problems.len()));
    }
    if all.is_empty() {
        output::print_error("note: the input contains no SyncedSecret");
    }
    printed
}
