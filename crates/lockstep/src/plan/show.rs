//! Output of `lockstep plan`: a table or JSON.

use std::fmt::Write as _;

use lockstep_core::{
    forecast::{Calls, Forecast},
    text::escape,
};
use lockstep_provider::costs::{Call, MicroUsd};
use serde_json::{Value, json};

use super::{
    count::Counted,
    report::{Report, Row},
};
use crate::{manifests::Objects, table::table};

const HEAD: [&str; 10] = [
    "STORE",
    "SERVICE",
    "OBJECTS",
    "REFERENCES",
    "KEYS",
    "CALLS/CYCLE",
    "CALLS/DAY",
    "USD/MONTH",
    "FIRST SYNC",
    "PEAK",
];
/// Index of the first column with numbers.
const NUMBERS: usize = 2;

/// Returns the table and the assumptions behind it.
pub(super) fn text(report: &Report<'_>) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(report.rows.iter().map(row));
    if report.rows.len() > 1 {
        let sum = |of: fn(&Forecast) -> u64| report.sum(|row| of(&row.forecast)).to_string();
        rows.push([
            "total".to_owned(),
            String::new(),
            report.objects.to_string(),
            sum(|forecast| forecast.references),
            sum(|forecast| u64::try_from(forecast.keys).unwrap_or_default()),
            sum(|forecast| forecast.round.all()),
            sum(|forecast| forecast.month.a_day().all()),
            amount(report.usd(|row| row.usd)),
            sum(|forecast| forecast.first_sync.all()),
            String::new(),
        ]);
    }
    let mut text = table(&rows, NUMBERS);
    if report.rows.is_empty() {
        return text;
    }
    // writing to a String cannot fail
    let by_entry = report.sum(|row| row.forecast.month_by_entry.a_day().all());
    let _ = write!(text, "\nOne call per reference would be {by_entry} calls per day");
    if let Some(usd) = report.usd(|row| row.usd_by_entry) {
        let _ = write!(text, " and {} USD per month", rounded(usd));
    }
    text.push_str(".\n");
    if let Some(usd) = report.usd(|row| row.usd_kept) {
        let _ = writeln!(text, "Storage costs another {} USD per month.", rounded(usd));
    }
    let published = published(report);
    if let (Some(as_of), false) = (report.as_of(), published.is_empty()) {
        let _ = write!(
            text,
            "\nPublished prices and quotas as of {as_of}. They change over time and differ between regions:\n{published}"
        );
    }
    text.push_str("\nAssumptions:\n");
    for note in &report.notes {
        let _ = writeln!(text, "- {}", escape(note));
    }
    text
}

fn row(row: &Row<'_>) -> [String; 10] {
    let forecast = &row.forecast;
    [
        format!("{} {}", row.key.kind, row.key.label()),
        row.known.costs.service.to_owned(),
        forecast.objects.to_string(),
        forecast.references.to_string(),
        forecast.keys.to_string(),
        forecast.round.all().to_string(),
        forecast.month.a_day().all().to_string(),
        amount(row.usd),
        forecast.first_sync.all().to_string(),
        row.peak.map_or_else(|| "-".to_owned(), percent),
    ]
}

/// Lists each published figure that was used, once.
fn published(report: &Report<'_>) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut push = |line: String| {
        if !lines.contains(&line) {
            lines.push(line);
        }
    };
    for row in &report.rows {
        let service = row.known.costs.service;
        for call in row.kinds() {
            for figure in figures(call) {
                push(format!("- {service}, {figure}\n"));
            }
        }
        if let Some(kept) = row.known.costs.kept {
            let (usd, unit, source) = (kept.price.value, kept.unit, kept.price.source);
            push(format!(
                "- {service}: {usd} USD per {unit} and month ({source})\n"
            ));
        }
    }
    lines.concat()
}

fn figures(call: &Call) -> Vec<String> {
    let operation = call.operation;
    let price = call.price.map(|price| {
        let usd = price.value.times(10_000);
        let costs = if price.value == MicroUsd::default() {
            "free".to_owned()
        } else {
            format!("{usd} USD per 10,000 calls")
        };
        format!("{operation}: {costs} ({})", price.source)
    });
    let quota = call.quota.map(|quota| {
        let (calls, operations, of) = (quota.value.calls, quota.value.operations, quota.value.of_each);
        let time = match quota.value.seconds {
            1 => "per second".to_owned(),
            60 => "per minute".to_owned(),
            seconds => format!("per {seconds} seconds"),
        };
        format!(
            "{operations}: {calls} calls {time} for each {of} ({})",
            quota.source
        )
    });
    price.into_iter().chain(quota).collect()
}

fn amount(usd: Option<MicroUsd>) -> String {
    usd.map_or_else(|| "-".to_owned(), rounded)
}

/// Rounds up to a cent, so that no cost looks like zero.
fn rounded(usd: MicroUsd) -> String {
    MicroUsd(usd.0.div_ceil(10_000).saturating_mul(10_000)).to_string()
}

fn percent(tenths: u64) -> String {
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Returns one JSON document. Amounts are strings, because they are exact.
pub(super) fn json(objects: &Objects, counted: &Counted<'_>, report: &Report<'_>) -> Result<String, String> {
    let failed: Vec<_> = counted
        .failed
        .iter()
        .map(|(placed, failure)| {
            let mut one = placed.json();
            one["reason"] = failure.reason.to_string().into();
            one["message"] = failure.message.clone().into();
            one
        })
        .collect();
    let total = json!({
        "objects": report.objects,
        "references": report.sum(|row| row.forecast.references),
        "callsARound": report.sum(|row| row.forecast.round.all()),
        "callsADay": report.sum(|row| row.forecast.month.a_day().all()),
        "callsAMonth": report.sum(|row| row.forecast.month.all()),
        "usdAMonth": exact(report.usd(|row| row.usd)),
        "keptUsdAMonth": exact(report.usd(|row| row.usd_kept)),
        "firstSync": report.sum(|row| row.forecast.first_sync.all()),
        "oneCallForEachReference": {
            "callsADay": report.sum(|row| row.forecast.month_by_entry.a_day().all()),
            "callsAMonth": report.sum(|row| row.forecast.month_by_entry.all()),
            "usdAMonth": exact(report.usd(|row| row.usd_by_entry)),
        },
    });
    let document = json!({
        "stores": report.rows.iter().map(store).collect::<Vec<_>>(),
        "total": total,
        "asOf": report.as_of(),
        "notes": report.notes,
        "failed": failed,
        "problems": objects.problems,
    });
    serde_json::to_string_pretty(&document)
        .map(|text| text + "\n")
        .map_err(|error| error.to_string())
}

fn store(row: &Row<'_>) -> Value {
    let forecast = &row.forecast;
    json!({
        "kind": row.key.kind.as_str(),
        "namespace": row.key.namespace,
        "name": row.key.name,
        "provider": row.known.provider,
        "service": row.known.costs.service,
        "objects": forecast.objects,
        "references": forecast.references,
        "keys": forecast.keys,
        "callsARound": calls(forecast.round),
        "callsADay": calls(forecast.month.a_day()),
        "callsAMonth": calls(forecast.month),
        "usdAMonth": exact(row.usd),
        "keptUsdAMonth": exact(row.usd_kept),
        "firstSync": calls(forecast.first_sync),
        "peakPercentOfQuota": row.peak.map(percent).map(|text| text.trim_end_matches(" %").to_owned()),
        "oneCallForEachReference": {
            "callsADay": calls(forecast.month_by_entry.a_day()),
            "callsAMonth": calls(forecast.month_by_entry),
            "usdAMonth": exact(row.usd_by_entry),
        },
        "figures": row.kinds().map(figure).collect::<Vec<_>>(),
        "kept": row.known.costs.kept.map(|kept| json!({
            "unit": kept.unit,
            "usdAMonth": exact(Some(kept.price.value)),
            "source": kept.price.source,
        })),
        "asOf": row.known.costs.as_of,
    })
}

fn calls(calls: Calls) -> Value {
    json!({
        "all": calls.all(),
        "reads": calls.reads,
        "metadata": calls.metadata,
        "finds": calls.finds,
        "decryptions": calls.decryptions,
    })
}

fn figure(call: &Call) -> Value {
    json!({
        "operation": call.operation,
        "usdForEach": exact(call.price.map(|price| price.value)),
        "priceSource": call.price.map(|price| price.source),
        "quota": call.quota.map(|quota| json!({
            "operations": quota.value.operations,
            "calls": quota.value.calls,
            "seconds": quota.value.seconds,
            "ofEach": quota.value.of_each,
            "source": quota.source,
        })),
    })
}

fn exact(usd: Option<MicroUsd>) -> Value {
    usd.map_or(Value::Null, |usd| Value::String(usd.to_string()))
}
