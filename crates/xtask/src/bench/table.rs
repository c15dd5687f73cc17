//! Prints the figures as a table and as JSON, and checks their goals.

use std::{fmt::Write as _, io::Write as _};

use anyhow::{Result, bail};

use super::{
    arguments::Output,
    first_sync::{Figures, Quiet},
    rounds,
};

/// A figure and its goal.
struct Row {
    what: &'static str,
    found: String,
    goal: Option<(String, bool)>,
}

fn row(what: &'static str, found: String) -> Row {
    Row {
        what,
        found,
        goal: None,
    }
}

fn at_most(what: &'static str, unit: &str, found: f64, limit: f64) -> Row {
    Row {
        what,
        found: format!("{found:.2}{unit}"),
        goal: Some((format!("≤ {limit}{unit}"), found <= limit)),
    }
}

fn exactly(what: &'static str, found: u64, wanted: u64) -> Row {
    Row {
        what,
        found: found.to_string(),
        goal: Some((format!("= {wanted}"), found == wanted)),
    }
}

fn rows(figures: &Figures) -> Vec<Row> {
    let count = u64::from(figures.objects);
    let mut rows = vec![
        row(
            "raw loop with the same writes",
            format!("{:.2} s", figures.raw_seconds),
        ),
        row(
            "process start until ready",
            format!("{:.2} s", figures.start_seconds),
        ),
        row(
            "process start until the last Ready",
            format!("{:.2} s", figures.ready_seconds),
        ),
        // a throttling store determines the speed, so there is no goal
        match figures.throttle {
            Some(_) => row("ratio", format!("{:.2}", figures.ratio)),
            None => at_most("ratio", "", figures.ratio, 1.5),
        },
        exactly("Secret writes for SyncedSecrets", figures.secret_writes, count),
        exactly("status writes of SyncedSecrets", figures.status_writes, count),
        exactly("events", figures.event_writes, 0),
        exactly("Ready SyncedSecrets", figures.ready as u64, count),
        row(
            "reads, lists and watches of Secrets",
            figures.secret_reads.to_string(),
        ),
    ];
    rows.push(match (figures.throttled, figures.batch) {
        // throttled calls must be repeated
        (true, _) => row("store calls per key", format!("{:.3}", figures.reads_per_key)),
        (false, 1) => at_most("store calls per key", "", figures.reads_per_key, 1.0),
        (false, batch) => at_most(
            "store calls per batch of keys",
            "",
            figures.reads_per_key * f64::from(batch),
            1.2,
        ),
    });
    if let Some(throttle) = &figures.throttle {
        rows.push(row("throttled calls", throttle.refused_calls.to_string()));
        rows.push(row(
            "time requests were held back",
            format!("{:.1} s", throttle.throttled_seconds),
        ));
        rows.push(row("failed reconciles", throttle.failed_reconciles.to_string()));
    }
    let peak = figures
        .quiet
        .as_ref()
        .map_or(figures.peak_mebibytes, |quiet| quiet.peak_mebibytes);
    rows.push(match figures.most_mebibytes {
        Some(limit) => at_most("peak memory", " MiB", peak, limit),
        None => row("peak memory", format!("{peak:.1} MiB")),
    });
    rows.push(row(
        "processor time",
        format!("{:.2} s", figures.processor_seconds),
    ));
    if let Some(quiet) = &figures.quiet {
        rows.push(row(
            "then refreshes without changes for",
            format!("{:.0} s", quiet.seconds),
        ));
        rows.push(row("store calls", quiet.provider_reads.to_string()));
        if !figures.throttled {
            #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
            let calls = quiet.provider_reads as f64 / (figures.distinct_keys as f64 * quiet.rounds);
            rows.push(match figures.batch {
                1 => at_most("calls per key and cycle", "", calls, 1.0),
                batch => at_most(
                    "calls per batch of keys and cycle",
                    "",
                    calls * f64::from(batch),
                    1.2,
                ),
            });
        }
        rows.extend(round_rows(figures, quiet));
        rows.push(exactly(
            "SyncedSecrets that are not Ready",
            quiet.not_ready as u64,
            0,
        ));
        rows.push(exactly("status writes", quiet.status_writes, 0));
        rows.push(exactly("changed objects", quiet.changed_objects as u64, 0));
        rows.push(row(
            "Secret patches (drift probes)",
            quiet.secret_writes.to_string(),
        ));
        rows.push(exactly("events", quiet.event_writes, 0));
        rows.push(row("memory", format!("{:.1} MiB", quiet.mebibytes)));
        rows.push(row("processor time", format!("{:.2} s", quiet.processor_seconds)));
    }
    rows
}

/// Returns the rows about the distribution of calls over refresh cycles.
fn round_rows(figures: &Figures, quiet: &Quiet) -> Vec<Row> {
    let Some(share) = rounds::largest_share(&quiet.each_round) else {
        return Vec::new();
    };
    let calls: Vec<_> = quiet
        .each_round
        .iter()
        .map(|round| round.calls.to_string())
        .collect();
    let what = "largest share of a cycle's calls in a tenth of it";
    // with fewer keys there are no ten slots with full batches
    let in_turns = figures.batch > 1 && figures.distinct_keys >= figures.batch as usize * 50;
    vec![
        row("calls in each cycle", calls.join(", ")),
        row(
            "full batches needed for all keys",
            figures.distinct_keys.div_ceil(figures.batch as usize).to_string(),
        ),
        if in_turns && !figures.throttled {
            at_most(what, "", share, rounds::SHARE_MAX)
        } else {
            row(what, format!("{share:.2}"))
        },
    ]
}

/// Prints the figures to standard output.
pub(super) fn print(figures: &Figures, output: Output) -> Result<()> {
    let mut text = String::new();
    if output != Output::Json {
        let build = if figures.release_build { "release" } else { "debug" };
        let _ = write!(
            text,
            "\nfirst sync of {} SyncedSecrets ({build} build)\n\n",
            figures.objects
        );
        text += "| figure | measured | goal | |\n|---|---:|---:|---|\n";
        for row in rows(figures) {
            let (goal, mark) = match row.goal {
                Some((goal, true)) => (goal, "✓"),
                Some((goal, false)) => (goal, "✗"),
                None => (String::new(), ""),
            };
            let _ = writeln!(text, "| {} | {} | {goal} | {mark} |", row.what, row.found);
        }
        text.push('\n');
    }
    if output != Output::Table {
        text += &serde_json::to_string_pretty(figures)?;
        text.push('\n');
    }
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// Checks the goals.
///
/// # Errors
/// Names every goal that was missed.
pub(super) fn check(figures: &Figures) -> Result<()> {
    let missed: Vec<_> = rows(figures)
        .into_iter()
        .filter_map(|row| match row.goal {
            Some((goal, false)) => Some(format!("{}: {} ({goal})", row.what, row.found)),
            _ => None,
        })
        .collect();
    if missed.is_empty() {
        return Ok(());
    }
    bail!("goals were missed: {}", missed.join("; "))
}
