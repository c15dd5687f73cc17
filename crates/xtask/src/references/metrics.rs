//! The reference of the metrics.

use std::fmt::Write as _;

use lockstep_provider::metrics::{MetricInfo, MetricKind};

const INTRODUCTION: &str = "\
# Metrics

[Documentation index](../index.md)

`GET /metrics` at `--listen` returns metrics in Prometheus' text format. Durations are in seconds, times in Unix seconds.
Labels are bounded: names of objects and stores, and words from fixed lists. A label never holds a key, a value or text of a
backend. The series of an object are removed with the object.

The label `store` is `namespace/name` of a SecretStore, or the name of a ClusterSecretStore; `outcome` is `ok` or the kind of
the error where nothing else is said.

Metrics of the process itself (`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds`, …) are there
too, on Linux.
";

/// Returns the page `docs/reference/metrics.md`.
pub(super) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    section(&mut page, "The operator", lockstep_controller::metrics::METRICS);
    section(&mut page, "Stores", lockstep_provider::metrics::METRICS);
    page
}

fn section(page: &mut String, title: &str, metrics: &[MetricInfo]) {
    // writing to a String cannot fail
    let _ = write!(
        page,
        "\n## {title}\n\n| metric | type | labels | unit | meaning | series end |\n|---|---|---|---|---|---|\n"
    );
    let mut metrics = metrics.to_vec();
    metrics.sort_by_key(|metric| metric.name);
    for metric in metrics {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} |",
            metric.name,
            kind(metric.kind),
            labels.join(", "),
            unit(metric.name),
            metric.help.replace('|', "\\|"),
            end(metric.labels)
        );
    }
}

const fn kind(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    }
}

/// Returns the unit, which is the suffix of the name.
fn unit(name: &str) -> &'static str {
    let base = name.strip_suffix("_total").unwrap_or(name);
    if base.ends_with("_timestamp_seconds") {
        "Unix time, s"
    } else if base.ends_with("_seconds") {
        "s"
    } else if base.ends_with("_bytes") {
        "bytes"
    } else {
        ""
    }
}

/// Returns when a series is removed, which depends on its labels.
fn end(labels: &[&str]) -> &'static str {
    if labels.contains(&"name") {
        "with the SyncedSecret"
    } else if labels.contains(&"store") {
        "with the store"
    } else {
        "with the process"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_listed_once_with_its_unit() {
        let page = page();
        for metric in lockstep_controller::metrics::METRICS
            .iter()
            .chain(lockstep_provider::metrics::METRICS)
        {
            let begin = format!("| `{}` |", metric.name);
            assert_eq!(page.matches(&begin).count(), 1, "{}", metric.name);
        }
        let line = page
            .lines()
            .find(|line| line.contains("`lockstep_store_throttled_seconds_total`"));
        let line = line.unwrap();
        assert!(line.contains("| counter | `provider`, `store` | s |"), "{line}");
        assert!(line.ends_with("| with the store |"), "{line}");
    }
}
