//! Asks before the demo starts, and keeps it running at the end.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use lockstep_testkit::{
    operator::NAMESPACE,
    tools::{self, Tool},
};

use super::{arguments::Arguments, cluster::Cluster, operator::Operator, show::Show, source::Source};

/// Describes what will be done to the user's cluster and asks for confirmation.
///
/// # Errors
/// Fails if the answer is no or there is no terminal.
pub(super) fn ask(show: &Show, arguments: &Arguments, source: &Source) -> Result<()> {
    let context = arguments.context.as_deref().unwrap_or_default();
    show.line(format_args!(
        "  The demo creates these objects on the cluster of context \"{context}\" and removes them at the end:"
    ));
    show.line(format_args!(
        "    - three CustomResourceDefinitions, cluster roles and admission policies named lockstep…"
    ));
    show.line(format_args!(
        "    - the namespaces {NAMESPACE}, {}",
        source.namespaces().join(", ")
    ));
    show.line(format_args!("    - {}", source.story().example));
    show.line(format_args!(
        "  lockstep itself runs on this machine, with a token for its ServiceAccount."
    ));
    if arguments.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        bail!("no terminal to ask for confirmation. Use --yes to continue");
    }
    let mut out = io::stdout().lock();
    let _ = write!(out, "  Continue? [y/N] ").and_then(|()| out.flush());
    drop(out);
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("read the answer")?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was done");
    }
    Ok(())
}

/// Prints commands to try and waits until the operator ends, which is not expected.
///
/// # Errors
/// Fails if the operator ends by itself.
pub(super) async fn stay(
    show: &Show,
    cluster: &Cluster,
    source: &Source,
    operator: &mut Operator,
) -> Result<()> {
    let story = source.story();
    let kubectl = tools::ensure_async(Tool::Kubectl).await?;
    let (export, options) = cluster.for_people();
    let kubectl = format!("{}{options}", kubectl.display());
    show.line(format_args!("\n  Try it:"));
    if let Some(export) = export {
        show.line(format_args!("    {export}"));
    }
    show.line(format_args!("    {kubectl} get syncedsecrets -A"));
    show.line(format_args!(
        "    {kubectl} describe syncedsecret {} -n {}",
        story.synced_secret, story.namespace
    ));
    show.line(format_args!(
        "    {kubectl} get secret {} -n {} -o yaml",
        story.secret, story.namespace
    ));
    for command in source.commands()? {
        show.line(format_args!("    {command}"));
    }
    if source.must_be_asked() {
        show.line(format_args!(
            "    {kubectl} annotate syncedsecret {} -n {} --overwrite lockstep.dev/refresh=\"$(date +%s%N)\"",
            story.synced_secret, story.namespace
        ));
    }
    show.line(format_args!(
        "    curl {}/metrics    curl {}/readyz",
        operator.address(),
        operator.address()
    ));
    show.line(format_args!("    tail -f {}", operator.log().display()));
    show.line(format_args!(
        "  Press Ctrl-C to stop everything that was started."
    ));
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        operator.ensure_running()?;
    }
}
