//! Request counts of the API server, and resource usage of the operator from the kernel.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result};
use kube::Client;

/// Clock ticks per second in `/proc/PID/stat`, fixed by the kernel ABI.
const TICKS: f64 = 100.0;

/// Requests that the API server served, by kind: `APPLY secrets`, `PATCH syncedsecrets/status`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(BTreeMap<String, u64>);

impl Requests {
    /// Returns all requests since the API server started, without dry runs.
    pub(crate) async fn so_far(client: &Client) -> Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = client
            .request_text(request)
            .await
            .context("read the API server's metrics")?;
        let mut requests = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| line.starts_with("apiserver_request_total{"))
        {
            let label = |name: &str| {
                let from = line.find(&format!("{name}=\""))? + name.len() + 2;
                line[from..].split('"').next()
            };
            if label("dry_run").is_some_and(|dry| !dry.is_empty()) {
                continue;
            }
            let count = line
                .rsplit(' ')
                .next()
                .and_then(|count| count.parse::<f64>().ok());
            let (Some(verb), Some(resource), Some(count)) = (label("verb"), label("resource"), count) else {
                continue;
            };
            let slash = label("subresource")
                .filter(|sub| !sub.is_empty())
                .map(|sub| format!("/{sub}"));
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a counter of requests"
            )]
            let count = count as u64;
            *requests
                .entry(format!("{verb} {resource}{}", slash.unwrap_or_default()))
                .or_default() += count;
        }
        Ok(Self(requests))
    }

    /// Returns the requests since an earlier count.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let gained = |(what, count): (&String, &u64)| {
            let gained = count - earlier.0.get(what).copied().unwrap_or(0);
            (gained > 0).then(|| (what.clone(), gained))
        };
        Self(self.0.iter().filter_map(gained).collect())
    }

    /// Returns the number of writes of a resource.
    pub(crate) fn writes(&self, resource: &str) -> u64 {
        let wanted = |what: &str| {
            what.split_once(' ').is_some_and(|(verb, of)| {
                of == resource
                    && matches!(
                        verb,
                        "APPLY" | "PATCH" | "POST" | "PUT" | "DELETE" | "DELETECOLLECTION"
                    )
            })
        };
        self.0
            .iter()
            .filter(|(what, _)| wanted(what))
            .map(|(_, count)| count)
            .sum()
    }

    /// Returns the number of reads, lists and watches of a resource.
    pub(crate) fn reads(&self, resource: &str) -> u64 {
        let wanted = |what: &str| {
            what.split_once(' ')
                .is_some_and(|(verb, of)| of == resource && matches!(verb, "GET" | "LIST" | "WATCH"))
        };
        self.0
            .iter()
            .filter(|(what, _)| wanted(what))
            .map(|(_, count)| count)
            .sum()
    }
}

/// Resource usage of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Peak resident memory in MiB.
    pub(crate) peak_mebibytes: f64,
    /// Current resident memory in MiB.
    pub(crate) mebibytes: f64,
    /// Processor time in user and system mode.
    pub(crate) processor: Duration,
}

impl Usage {
    /// Returns the usage of a running process from `/proc` (proc_pid_status(5), proc_pid_stat(5)).
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read /proc")?;
        let kibibytes = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read /proc")?;
        // the program name, in parentheses, can contain spaces
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        Ok(Self {
            peak_mebibytes: kibibytes("VmHWM:").context("no VmHWM in /proc")? / 1024.0,
            mebibytes: kibibytes("VmRSS:").context("no VmRSS in /proc")? / 1024.0,
            processor: Duration::from_secs_f64(
                (ticks(11).context("no utime in /proc")? + ticks(12).context("no stime in /proc")?) / TICKS,
            ),
        })
    }
}
