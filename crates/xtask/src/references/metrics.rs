//! The reference of the metrics.

use std::fmt::Write as _;

use lockstep_provider::metric_set::{MetricInfo, MetricKind};

const INTRODUCTION: &str = "\
# Metrics

[Documentation index](../index.md)

`GET /metrics` at `--listen` returns metrics in Prometheus' text format. Durations are in seconds, times in Unix seconds.
The endpoint needs no credentials and shows names of objects of all namespaces: the NetworkPolicy in
`deploy/kustomize/base` allows only the namespace `monitoring`.

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
    section(&mut page, "The operator", lockstep_controller::metrics::metrics());
    section(&mut page, "Stores", lockstep_provider::metrics::metrics());
    page
}

fn section(page: &mut String, title: &str, mut metrics: Vec<MetricInfo>) {
    // writing to a String cannot fail
    let _ = write!(
        page,
        "\n## {title}\n\n| metric | type | labels | unit | meaning | series end |\n|---|---|---|---|---|---|\n"
    );
    metrics.sort_by_key(|metric| metric.name);
    for metric in metrics {
        let labels = [metric.owner, metric.labels].concat();
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} |",
            metric.name,
            kind(metric.kind),
            labels.join(", "),
            unit(metric.name),
            metric.help.replace('|', "\\|"),
            end(metric.owner)
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

/// Returns when a series is removed, which depends on the labels of its owner.
fn end(owner: &[&str]) -> &'static str {
    if owner.contains(&"name") {
        "with the SyncedSecret"
    } else if owner.contains(&"store") {
        "with the store"
    } else {
        "with the process"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Vec<MetricInfo> {
        [
            lockstep_controller::metrics::metrics(),
            lockstep_provider::metrics::metrics(),
        ]
        .concat()
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let part = |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase());
        let snake_case = |name: &str| {
            name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && name.split('_').all(part)
        };
        for metric in metrics() {
            let name = metric.name;
            assert!(name.starts_with("lockstep_") && snake_case(name), "{name}");
            assert_eq!(
                metric.kind == MetricKind::Counter,
                name.ends_with("_total"),
                "{name}"
            );
            // the text format gives these to the series of a histogram
            for suffix in ["_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(suffix), "{name}");
            }
            let other_units = [
                "milliseconds",
                "millis",
                "ms",
                "minutes",
                "hours",
                "days",
                "kilobytes",
                "kb",
                "mb",
                "percent",
            ];
            assert!(!name.split('_').any(|word| other_units.contains(&word)), "{name}");
            for (words, suffix) in [
                ("in seconds", "_seconds"),
                ("Unix time", "_timestamp_seconds"),
                ("in bytes", "_bytes"),
            ] {
                assert!(
                    !metric.help.contains(words) || name.trim_end_matches("_total").ends_with(suffix),
                    "{name}: {}",
                    metric.help
                );
            }
            assert!(metric.help.ends_with('.'), "{name}: {}", metric.help);
            let labels = [metric.owner, metric.labels].concat();
            for label in &labels {
                assert!(
                    snake_case(label) && !["le", "quantile"].contains(label),
                    "{name}: {label}"
                );
            }
        }
    }

    /// A metric that has the labels of an object or a store ends with it.
    #[test]
    fn labels_of_objects_and_stores_are_those_of_an_owner() {
        for metric in metrics() {
            for label in ["namespace", "name", "store", "provider"] {
                assert!(!metric.labels.contains(&label), "{}: {label}", metric.name);
            }
            let end = end(metric.owner);
            assert_eq!(
                metric.owner.is_empty(),
                end == "with the process",
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn every_metric_is_listed_once_with_its_unit() {
        let page = page();
        for metric in metrics() {
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
