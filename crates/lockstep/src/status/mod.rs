//! `lockstep status`: shows the status of SyncedSecrets. This module reads the cluster, [`show`]
//! formats the result.

mod show;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use futures::TryStreamExt as _;
use kube::{
    Api, Client,
    api::ListParams,
    runtime::{WatchStreamExt as _, watcher},
};
use lockstep_api::SyncedSecret;
use lockstep_core::{
    text,
    time::{Clock as _, SystemClock},
};
use tokio::runtime;

use crate::{
    cli::{StatusArguments, StatusFormat},
    client::{self, Cluster},
    exit, output,
    shutdown::StopSignals,
};

/// Timeout of a request to the API server.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Interval at which ages are updated while nothing changes.
const TICK: Duration = Duration::from_secs(5);
/// SyncedSecrets by namespace and name.
type Objects = BTreeMap<(String, String), SyncedSecret>;

/// Reads the SyncedSecrets and prints their status.
pub(crate) fn status(arguments: &StatusArguments) -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(format!("cannot start the async runtime: {error}")),
    };
    match result {
        Ok(code) => code,
        Err(message) => exit::failed(&message),
    }
}

async fn run(arguments: &StatusArguments) -> Result<ExitCode, String> {
    let (client, namespace) = in_namespace(&arguments.cluster, arguments.namespace.as_deref()).await?;
    let api: Api<SyncedSecret> = if arguments.all_namespaces {
        Api::all(client)
    } else {
        Api::namespaced(client.clone(), &namespace)
    };
    let of = arguments
        .name
        .as_ref()
        .map(|name| format!("metadata.name={name}"));
    if arguments.watch {
        let config = watcher::Config {
            field_selector: of,
            ..watcher::Config::default()
        };
        return watch(arguments, api, config).await;
    }
    let parameters = ListParams {
        field_selector: of,
        ..ListParams::default()
    };
    let listed = answer(api.list(&parameters)).await?;
    let mut objects = Objects::new();
    for object in listed.items {
        objects.insert(key(&object), object);
    }
    if let (Some(name), true) = (&arguments.name, objects.is_empty()) {
        return Err(missing(name, &namespace));
    }
    let text = text(arguments, &objects)?;
    let printed = exit::printed(print(arguments.output, &text));
    if printed != ExitCode::SUCCESS || objects.values().all(show::is_ready) {
        return Ok(printed);
    }
    Ok(ExitCode::from(exit::FAILED))
}

/// Returns a client and the namespace to use, which defaults to that of the context.
pub(crate) async fn in_namespace(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<(Client, String), String> {
    let client = client::connect_to_read(cluster).await?;
    let namespace = namespace.unwrap_or(client.default_namespace()).to_owned();
    if !text::is_label(&namespace) {
        return Err(format!(
            "namespace \"{namespace}\" is not a DNS label. Check the kubeconfig context or set --namespace"
        ));
    }
    Ok((client, namespace))
}

/// Waits for a response of the API server, up to a timeout.
pub(crate) async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    tokio::time::timeout(TIMEOUT, request)
        .await
        .map_err(|_| format!("the API server did not respond within {} s", TIMEOUT.as_secs()))?
        .map_err(|error| refused(&error))
}

/// Returns the error for a SyncedSecret that does not exist.
pub(crate) fn missing(name: &str, namespace: &str) -> String {
    format!(
        "SyncedSecret \"{name}\" not found in namespace \"{namespace}\". Select another one with --namespace"
    )
}

fn key(object: &SyncedSecret) -> (String, String) {
    let metadata = &object.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// Returns the message of the API server. It responds to a request of this user, so it contains no
/// secret.
fn refused(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            "the cluster has no SyncedSecret resource. Install lockstep, or only its CRDs: lockstep crds | kubectl apply --server-side -f -".to_owned()
        }
        kube::Error::Api(status) => format!("the API server rejected the request: {}", status.message),
        error => format!("the request to the API server failed: {error}"),
    }
}

/// Prints the output of a command that reads the cluster.
pub(crate) fn print(format: StatusFormat, text: &str) -> io::Result<()> {
    match format {
        StatusFormat::Text => output::print(text),
        StatusFormat::Json => output::print_json(text),
    }
}

fn text(arguments: &StatusArguments, objects: &Objects) -> Result<String, String> {
    let now = SystemClock.now();
    let objects: Vec<&SyncedSecret> = objects.values().collect();
    match (arguments.output, arguments.name.is_some()) {
        (StatusFormat::Json, _) => {
            show::json(&objects).map_err(|error| format!("cannot format the output: {error}"))
        }
        (StatusFormat::Text, true) => Ok(objects.iter().map(|object| show::one(object, now)).collect()),
        (StatusFormat::Text, false) => Ok(show::all(&objects, now)),
    }
}

/// Prints at each change. On a terminal, updates in place and keeps ages current.
async fn watch(
    arguments: &StatusArguments,
    api: Api<SyncedSecret>,
    config: watcher::Config,
) -> Result<ExitCode, String> {
    let mut signals = StopSignals::catch().map_err(|error| format!("cannot catch signals: {error}"))?;
    let in_place = io::stdout().is_terminal() && arguments.output == StatusFormat::Text;
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let (mut objects, mut listed) = (Objects::new(), None);
    let mut complete = false;
    let mut last = String::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            event = events.try_next() => match event {
                Ok(Some(event)) => take(event, &mut objects, &mut listed, &mut complete),
                Ok(None) => return Ok(ExitCode::SUCCESS),
                // the watch restarts itself
                Err(error) => output::print_error(&format!("warning: {}", watch_failed(&error))),
            },
            _ = tick.tick(), if in_place => {}
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
        }
        if !complete {
            continue;
        }
        let text = text(arguments, &objects)?;
        if text == last {
            continue;
        }
        let printed = if in_place {
            output::print_in_place(&text)
        } else {
            print(arguments.output, &text)
        };
        if let Err(error) = printed {
            return Ok(exit::printed(Err(error)));
        }
        last = text;
    }
}

fn watch_failed(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => refused(error),
        watcher::Error::WatchError(status) => format!("the API server ended the watch: {}", status.message),
        watcher::Error::NoResourceVersion => {
            "the API server returned a list without a resourceVersion".to_owned()
        }
    }
}

fn take(
    event: watcher::Event<SyncedSecret>,
    objects: &mut Objects,
    listed: &mut Option<Objects>,
    complete: &mut bool,
) {
    match event {
        watcher::Event::Init => *listed = Some(Objects::new()),
        watcher::Event::InitApply(object) => {
            if let Some(listed) = listed {
                listed.insert(key(&object), object);
            }
        }
        watcher::Event::InitDone => {
            *objects = listed.take().unwrap_or_default();
            *complete = true;
        }
        watcher::Event::Apply(object) => {
            objects.insert(key(&object), object);
        }
        watcher::Event::Delete(object) => {
            objects.remove(&key(&object));
        }
    }
}
