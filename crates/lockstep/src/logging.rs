//! Logs to standard error. The level of third-party crates is capped, because some of them log the
//! data they send and receive.

use std::{fmt, str::FromStr};

use clap::ValueEnum;
use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, filter, fmt as format, layer::SubscriberExt, registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Log formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Human-readable text
    Text,
    /// One JSON object per line
    Json,
}

/// Verbose crates. They log only warnings unless `--log-level` names them.
const NOISY: [&str; 10] = [
    "kube",
    "kube_client",
    "kube_runtime",
    "hyper",
    "hyper_util",
    "h2",
    "reqwest",
    "rustify",
    "tower",
    "vaultrs",
];

/// Module that logs the body of a response it cannot parse even as a warning. The body could
/// contain a Secret.
const PRINTS_BODIES: &str = "kube_client::client";

/// Log filter in the syntax of `tracing`, such as `info,lockstep_controller=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directives(String);

/// Error: the text is not a valid filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotDirectives;

impl std::error::Error for NotDirectives {}

impl fmt::Display for NotDirectives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "use error, warn, info, debug, trace or off, alone or by module: info,lockstep_controller=debug",
        )
    }
}

impl FromStr for Directives {
    type Err = NotDirectives;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // a word alone would be parsed as a module name and turn everything else off
        let known = |word: &str| LevelFilter::from_str(word).is_ok();
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let mut words = words.peekable();
        if words.peek().is_none() || words.any(|word| !word.contains('=') && !known(word)) {
            return Err(NotDirectives);
        }
        EnvFilter::builder()
            .parse(text)
            .map(|_| Self(text.to_owned()))
            .map_err(|_| NotDirectives)
    }
}

impl Directives {
    fn filter(&self) -> EnvFilter {
        let has_no_directive = |name: &&str| {
            !self
                .0
                .split(',')
                .any(|directive| directive.trim().split(['=', ':', '[']).next() == Some(name))
        };
        let caps = NOISY
            .iter()
            .copied()
            .filter(has_no_directive)
            .map(|name| format!("{name}=warn"));
        let all = caps.chain([self.0.clone()]).collect::<Vec<_>>().join(",");
        // each part was validated before; otherwise the default remains
        EnvFilter::builder()
            .with_default_directive(LevelFilter::INFO.into())
            .parse_lossy(all)
    }
}

/// Whether a record may be logged regardless of `--log-level`.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    if target == PRINTS_BODIES || target.starts_with("kube_client::client::") {
        return *metadata.level() <= Level::ERROR;
    }
    let is_own = target == "lockstep" || target.starts_with("lockstep_") || target.starts_with("lockstep::");
    is_own || *metadata.level() <= Level::INFO
}

fn subscriber(
    directives: &Directives,
    format: LogFormat,
    writer: impl for<'a> format::MakeWriter<'a> + Send + Sync + 'static,
    colours: bool,
) -> impl tracing::Subscriber + Send + Sync {
    tracing_subscriber::registry()
        .with(directives.filter())
        .with(filter::filter_fn(is_harmless))
        .with(lines(format, writer, colours))
}

fn lines<S>(
    format: LogFormat,
    writer: impl for<'a> format::MakeWriter<'a> + Send + Sync + 'static,
    colours: bool,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    match format {
        LogFormat::Text => format::layer().with_writer(writer).with_ansi(colours).boxed(),
        LogFormat::Json => format::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_writer(writer)
            .boxed(),
    }
}

/// Installs the logger of this process.
pub(crate) fn install(directives: &Directives, format: LogFormat) {
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    subscriber(directives, format, std::io::stderr, colours).init();
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(directives: &str, format: LogFormat, events: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let directives: Directives = directives.parse().unwrap();
        let subscriber = subscriber(&directives, format, move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, events);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_level_logs_received_bodies() {
        for level in [
            "trace",
            "trace,vaultrs=trace,rustify=trace,hyper=trace,kube_client=trace",
            "kube_client::client=trace",
        ] {
            let log = logged(level, LogFormat::Text, || {
                tracing::debug!(target: "rustify::client", "canary");
                tracing::debug!(target: "vaultrs::api", "canary");
                tracing::trace!(target: "hyper::proto", "canary");
                tracing::debug!(target: "kube_runtime::watcher", "canary");
                tracing::warn!(target: "kube_client::client", "canary");
                tracing::error!(target: "kube_client::client", "told");
            });
            assert!(!log.contains("canary"), "{level}: {log}");
            assert!(log.contains("told"), "{level}: {log}");
        }
    }

    #[test]
    fn noisy_crates_log_only_warnings_unless_named() {
        let events = || {
            tracing::info!(target: "kube_runtime::controller", "from kube");
            tracing::info!(target: "lockstep_controller", "from us");
            tracing::warn!(target: "tower::buffer", "from tower");
        };
        let log = logged("info", LogFormat::Text, events);
        assert!(
            !log.contains("from kube") && log.contains("from us") && log.contains("from tower"),
            "{log}"
        );
        let log = logged("info,kube_runtime=info", LogFormat::Text, events);
        assert!(log.contains("from kube"), "{log}");
    }

    #[test]
    fn own_modules_can_log_at_debug() {
        let log = logged("warn,lockstep_core=debug", LogFormat::Json, || {
            tracing::debug!(target: "lockstep_core::plan", reads = 2, "planned");
            tracing::info!(target: "lockstep_controller", "quiet");
        });
        assert!(!log.contains("quiet"), "{log}");
        let line: serde_json::Value = serde_json::from_str(log.trim()).unwrap();
        assert_eq!((&line["message"], &line["reads"]), (&"planned".into(), &2.into()));
    }

    #[test]
    fn invalid_level_is_rejected() {
        for text in ["", " ", "loud", "info,kube", "lockstep=loud", "info,"] {
            let refused = text.parse::<Directives>().is_err();
            assert_eq!(refused, text != "info,", "{text}");
        }
    }
}
