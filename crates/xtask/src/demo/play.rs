//! Runs the steps of the demo in order.

use std::{path::Path, time::Duration};

use anyhow::{Result, anyhow, bail, ensure};
use lockstep_testkit::{
    operator::{NAMESPACE, SERVICE_ACCOUNT},
    tools::Tool,
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    arguments::{Arguments, Provider},
    aws::Aws,
    cluster::Cluster,
    ending,
    files::Files,
    follow::{Follower, after},
    gcp::Gcp,
    install,
    operator::Operator,
    rollout,
    show::Show,
    source::Source,
    vault::Vault,
};

/// Timeout of a step. A server that does not start fails earlier.
const LIMIT: Duration = Duration::from_secs(120);
/// Oldest supported minor version of Kubernetes 1.
const OLDEST_MINOR: u32 = 33;

/// Runs the demo until its end or a signal, and stops what it started.
pub(super) async fn demo(arguments: &Arguments, binary: &Path) -> Result<()> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let show = Show::new();
    let mut applied = Vec::new();
    let cluster = tokio::select! {
        cluster = open(arguments, &show) => cluster?,
        _ = interrupted.recv() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
    };
    let outcome = tokio::select! {
        outcome = play(arguments, &show, &cluster, binary, &mut applied) => outcome,
        _ = interrupted.recv() => Err(anyhow!("interrupted before the last step")),
        _ = terminated.recv() => Err(anyhow!("terminated before the last step")),
    };
    // everything that was started lives until here, and stops in the order in which it is dropped
    let outcome = match outcome {
        Ok((source, mut operator)) if !arguments.once => {
            let ended = tokio::select! {
                ended = ending::stay(&show, &cluster, &source, &mut operator) => ended,
                _ = interrupted.recv() => Ok(()),
                _ = terminated.recv() => Ok(()),
            };
            drop((operator, source));
            ended
        }
        Ok(_) => {
            show.line(format_args!("  Every step succeeded."));
            Ok(())
        }
        Err(error) => Err(error),
    };
    show.line(format_args!("  Stopping everything that was started."));
    if !cluster.is_own() && !applied.is_empty() {
        show.step("cleaning up", LIMIT, async {
            install::remove(&cluster, &applied).await?;
            Ok((
                (),
                "removed everything that was installed on the cluster".to_owned(),
            ))
        })
        .await?;
    }
    outcome
}

async fn open(arguments: &Arguments, show: &Show) -> Result<Cluster> {
    if let Some(context) = &arguments.context {
        return show
            .step("cluster", LIMIT, async {
                let cluster = Cluster::of_context(context).await?;
                let version = cluster.client.apiserver_version().await?;
                ensure!(
                    minor(&version.minor) >= OLDEST_MINOR,
                    "the cluster is Kubernetes {}; lockstep needs 1.{OLDEST_MINOR} or later",
                    version.git_version
                );
                let seen = format!("context {context}, {}, {}", cluster.url(), version.git_version);
                Ok((cluster, seen))
            })
            .await;
    }
    show.step("control plane", LIMIT, async {
        let cluster = Cluster::own().await?;
        let seen = format!(
            "etcd {}, kube-apiserver {} at {}",
            Tool::Etcd.version(),
            Tool::ApiServer.version(),
            cluster.url()
        );
        Ok((cluster, seen))
    })
    .await
}

/// Returns the number of a minor version. Some clusters add a sign: `33+`.
fn minor(text: &str) -> u32 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}

async fn play(
    arguments: &Arguments,
    show: &Show,
    cluster: &Cluster,
    binary: &Path,
    applied: &mut Vec<String>,
) -> Result<(Source, Operator)> {
    let source = start_source(arguments, show, cluster).await?;
    let manifests = install::manifests(cluster, source.installation()).await?;
    if !cluster.is_own() {
        install::ensure_nothing_is_there(cluster, source.namespaces()).await?;
        ending::ask(show, arguments, &source)?;
    }
    applied.push(manifests.clone());
    show.step("installed", LIMIT, async {
        install::install(cluster, &manifests).await?;
        let seen = format!(
            "definitions, rights and admission policies of {}",
            source.installation()
        );
        Ok(((), seen))
    })
    .await?;
    let operator = start_operator(show, cluster, binary, &source).await?;
    let told = tell(show, cluster, &source, &operator, applied).await;
    told.map_err(|error| operator.explain(&error))?;
    // on a cluster with nodes, the demo cannot break pods
    if let (Source::Vault(vault), true) = (&source, cluster.is_own()) {
        let told = rollout::play(show, cluster, vault, binary, applied).await;
        told.map_err(|error| operator.explain(&error))?;
    }
    Ok((source, operator))
}

async fn start_source(arguments: &Arguments, show: &Show, cluster: &Cluster) -> Result<Source> {
    match arguments.provider {
        Provider::Vault => {
            let name = format!("OpenBao {}", Tool::OpenBao.version());
            show.step(&name, LIMIT, async {
                let vault = Vault::start().await?;
                let seen = vault.address().to_owned();
                Ok((Source::Vault(Box::new(vault)), seen))
            })
            .await
        }
        Provider::Aws => {
            let name = format!("moto {}", Tool::Moto.version());
            show.step(&name, LIMIT, async {
                let aws = Aws::start().await?;
                let seen = aws.address().to_owned();
                Ok((Source::Aws(aws), seen))
            })
            .await
        }
        Provider::Gcp => {
            show.step("the stand-in for Google Cloud", LIMIT, async {
                let gcp = Gcp::start().await?;
                let seen = gcp.address();
                Ok((Source::Gcp(gcp), seen))
            })
            .await
        }
        Provider::File => Ok(Source::Files(Files::below(cluster.folder())?)),
    }
}

async fn start_operator(show: &Show, cluster: &Cluster, binary: &Path, source: &Source) -> Result<Operator> {
    let operator = show
        .step("lockstep", LIMIT, async {
            let operator = Operator::start(cluster, binary, source).await?;
            operator.ensure_cannot_read("default", "any").await?;
            operator.ensure_cannot_list_secrets().await?;
            operator.ensure_cannot_watch_secrets().await?;
            operator.ensure_cannot_patch_secrets().await?;
            let seen = format!("running as system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}");
            Ok((operator, seen))
        })
        .await?;
    show.detail("can create, update and delete Secrets, but not get, list, watch or patch them");
    Ok(operator)
}

/// Runs the main part: a value, a Secret, a new value, an updated Secret.
async fn tell(
    show: &Show,
    cluster: &Cluster,
    source: &Source,
    operator: &Operator,
    applied: &mut Vec<String>,
) -> Result<()> {
    let story = source.story();
    source.prepare(cluster, show, applied).await?;
    let (manifests, typed) = source.manifests()?;
    let secret = format!("Secret/{}", story.secret);
    let follower = Follower::new(cluster, story);

    show.does(&typed);
    applied.push(manifests.clone());
    show.step(&secret, LIMIT, async {
        let apply = async {
            cluster
                .kubectl(&["apply", "-f", "-"], Some(&manifests))
                .await
                .map(drop)
        };
        let ((), took) = tokio::try_join!(apply, follower.appears())?;
        operator.ensure_cannot_read(story.namespace, story.secret).await?;
        Ok(((), format!("appeared {} its SyncedSecret", after(took))))
    })
    .await?;
    show.detail("lockstep wrote the Secret but cannot read it: the API server returns 403");
    let (first, writes) = show
        .step("status", LIMIT, async {
            let revision = follower.is_ready(None).await?;
            let (_, writes) = follower.is_measured(operator, 0.0).await?;
            let seen = format!("Ready, revision {revision}");
            Ok(((revision, writes), seen))
        })
        .await?;

    source.change(show).await?;
    if source.must_be_asked() {
        let (_, options) = cluster.for_people();
        show.does(&format!(
            "kubectl{options} annotate syncedsecret {} -n {} --overwrite lockstep.dev/refresh=\"$(date +%s%N)\"   (refreshInterval is an hour)",
            story.synced_secret, story.namespace
        ));
        let annotate = [
            "annotate",
            "syncedsecret",
            story.synced_secret,
            "--namespace",
            story.namespace,
            "--overwrite",
            "lockstep.dev/refresh=demo",
        ];
        cluster.kubectl(&annotate, None).await?;
    }
    show.step(&secret, LIMIT, async {
        follower.has_value(story.second).await?;
        Ok(((), "follows: it has the new value".to_owned()))
    })
    .await?;
    show.step("status", LIMIT, async {
        let second = follower.is_ready(Some(&first)).await?;
        Ok(((), format!("Ready, revision {first} → {second}")))
    })
    .await?;
    let lines = show
        .step("metrics", LIMIT, async {
            let (lines, _) = follower.is_measured(operator, writes).await?;
            Ok((lines, format!("{}/metrics", operator.address())))
        })
        .await?;
    for line in lines {
        show.detail(&line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_version_can_have_a_sign() {
        assert_eq!(minor("33"), 33);
        assert_eq!(minor("36+"), 36);
        assert_eq!(minor(""), 0);
    }
}
