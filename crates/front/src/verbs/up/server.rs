//! The server's part of `up`: one that runs is reused, else one is started and waited for.

use std::future::Future;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::signal::unix::{SignalKind, signal};

use super::Up;
use crate::output::Paint;
use crate::process::{self, Process, RunFile, State};
use crate::progress::{Progress, Step};
use crate::requests;
use crate::session::{Cluster, Session};
use crate::verbs::down;

/// Between two tries at a server that is about to answer.
const RETRY: Duration = Duration::from_millis(50);

pub async fn ensure(
    session: &Session,
    asked: &Up,
    progress: Progress,
    deadline: Instant,
) -> anyhow::Result<Cluster> {
    let mut step = progress.step("Start the cluster");
    let begun = loop {
        match begin(session, asked, &mut step, deadline).await {
            // It was about to end when it was found.
            Ok(None) => {}
            Ok(Some(begun)) => break Ok(begun),
            Err(error) => break Err(error),
        }
    };
    match begun {
        Ok((cluster, detail)) => {
            step.done(&detail);
            Ok(cluster)
        }
        Err(error) => {
            step.failed();
            Err(error)
        }
    }
}

/// Nothing when a server that was found has ended meanwhile: then there is another look.
async fn begin(
    session: &Session,
    asked: &Up,
    step: &mut Step,
    deadline: Instant,
) -> anyhow::Result<Option<(Cluster, String)>> {
    let layout = &session.layout;
    let mut state = process::look(layout)?;
    if matches!(state, State::Between { .. }) {
        step.say("another server starts or ends on this directory");
        state = process::wait_other(layout, deadline).await?;
    }
    let (file, detail) = match state {
        State::Serving(file) => (file, "runs already"),
        State::Between { .. } => bail!(
            "a server holds {} but does not serve\n{}",
            layout.data_dir().display(),
            process::last_words(layout)
        ),
        State::Down => {
            if let Some(why) = process::lost(layout) {
                bail!("{why}");
            }
            step.hint("the server starts");
            let mut child = process::start(layout, asked.api_port, asked.node_name.as_deref())?;
            match process::wait_serving(layout, &mut child, deadline).await {
                Ok(file) => (file, ""),
                // Somebody else's was faster: it is as good.
                Err(_) if !matches!(process::look(layout)?, State::Down) && Instant::now() < deadline => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    };
    let cluster = session.own_cluster().await?;
    let ended = async {
        match Process::open(file.pid) {
            Ok(Some(process)) => process.ended().await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        }
    };
    tokio::select! {
        result = ready(&cluster.client, step) => result?,
        result = ended => {
            result?;
            if !detail.is_empty() {
                return Ok(None);
            }
            bail!("the server ended while it started\n{}", process::last_words(layout));
        }
        () = tokio::time::sleep_until(deadline.into()) => {
            bail!("the cluster was not ready in time\n{}", process::last_words(layout));
        }
    }
    Ok(Some((cluster, describe(&file, detail))))
}

fn describe(file: &RunFile, detail: &str) -> String {
    if detail.is_empty() { file.server.clone() } else { format!("{}  {detail}", file.server) }
}

/// Until the API is ready and so is a node.
async fn ready(client: &Client, step: &mut Step) -> anyhow::Result<()> {
    step.hint("the API gets ready");
    while requests::get_as(client, "/version", "application/json").await.is_err() || !is_ready(client).await {
        tokio::time::sleep(RETRY).await;
    }
    step.hint("the node gets ready");
    let nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default());
    let nodes = nodes.default_backoff().applied_objects();
    let mut nodes = std::pin::pin!(nodes);
    while let Some(node) = nodes.next().await {
        // A watch that breaks is taken up again by itself.
        let Ok(node) = node else { continue };
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
            return Ok(());
        }
    }
    bail!("the watch of the nodes ended")
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok()
}

/// Ends with the first SIGINT or SIGTERM, or when the terminal is closed.
pub fn interrupted() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Stays until told to end, or until the server ends by itself.
pub async fn hold(session: &Session, interrupted: impl Future<Output = ()>) -> anyhow::Result<ExitCode> {
    let State::Serving(file) = process::look(&session.layout)? else {
        bail!("the server has ended\n{}", process::last_words(&session.layout));
    };
    let Some(process) = Process::open(file.pid)? else { bail!("the server has ended") };
    eprintln!("{}", Paint::stderr().soft("Ctrl-C stops everything."));
    tokio::select! {
        () = interrupted => end(session).await,
        result = process.ended() => {
            result?;
            bail!("the server has ended\n{}", process::last_words(&session.layout))
        }
    }
}

/// Stops what runs; the data stays.
pub async fn end(session: &Session) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let _stopped = down::stop_server(&session.layout, progress).await?;
    down::stop_containers(session, progress, Some(down::GRACE)).await?;
    Ok(ExitCode::SUCCESS)
}
