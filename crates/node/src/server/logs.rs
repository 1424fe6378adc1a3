//! `/containerLogs/{namespace}/{pod}/{container}`

use bytes::Bytes;
use container::runtime::{ContainerEventKind, Runtime};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{broadcast, mpsc};

use super::query::Query;
use super::{Refusal, Reply, streamed};
use crate::logs::Stream;
use crate::logs::read::{LogOptions, stream_log};
use crate::pods::{Context, log_path};

/// Chunks that may wait for a slow reader; then reading waits.
const CHUNKS_MAX: usize = 8;

pub async fn serve(
    context: &std::sync::Arc<Context>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Result<Reply, Refusal> {
    let entry = context
        .directory
        .get(namespace, pod)
        .ok_or_else(|| Refusal::not_found(format!("pod \"{pod}\" does not exist")))?;
    let found = entry.containers.iter().find(|c| c.name == container);
    let found = found
        .ok_or_else(|| Refusal::not_found(format!("container \"{container}\" not found in pod \"{pod}\"")))?;
    let waiting = || {
        let state = found.waiting.as_deref().unwrap_or("ContainerCreating");
        let what = format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {state}");
        Refusal::bad_request(what)
    };
    let id = found.id.clone().ok_or_else(waiting)?;
    let previous = query.flag("previous");
    let attempt = if previous {
        let missing = || {
            Refusal::bad_request(format!(
                "previous terminated container \"{container}\" in pod \"{pod}\" not found"
            ))
        };
        found.previous.ok_or_else(missing)?
    } else {
        found.attempt
    };
    let path = entry.log_dir.join(log_path(container, attempt));
    let mut options = options(query)?;
    options.follow &= found.running && !previous;
    let (sender, receiver) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let context = context.clone();
    let events = context.runtime.events();
    tokio::spawn(async move {
        let ended = container_end(context.runtime.as_ref(), events, &id);
        if let Err(error) = stream_log(path.clone(), options, ended, sender).await {
            tracing::debug!(%error, path = %path.display(), "read a log");
        }
    });
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|bytes| (Ok(bytes), receiver))
    });
    Ok(streamed(stream.boxed()))
}

fn options(query: &Query) -> Result<LogOptions, Refusal> {
    let since_time = match query.get("sinceTime").filter(|text| !text.is_empty()) {
        Some(text) => {
            let time: Timestamp = text.parse().map_err(|_| Refusal::bad_request("invalid sinceTime"))?;
            Some(time)
        }
        None => None,
    };
    let since_seconds = query.number("sinceSeconds").and_then(|seconds| i64::try_from(seconds).ok());
    let since_seconds = since_seconds
        .and_then(|seconds| Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok());
    Ok(LogOptions {
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        tail_lines: query.number("tailLines"),
        since: since_time.or(since_seconds),
        limit_bytes: query.number("limitBytes"),
        stream: match query.get("stream") {
            Some("Stdout") => Some(Stream::Stdout),
            Some("Stderr") => Some(Stream::Stderr),
            _ => None,
        },
    })
}

/// Resolves when the container has ended.
async fn container_end(
    runtime: &dyn Runtime,
    mut events: broadcast::Receiver<container::runtime::ContainerEvent>,
    id: &str,
) {
    loop {
        // Looked at after subscribing, so that an end in between is not missed.
        let running = runtime.container_status(id).await;
        if !running.is_ok_and(|status| status.state == container::runtime::ContainerState::Running) {
            return;
        }
        loop {
            match events.recv().await {
                Ok(event) if event.container_id == id => match event.kind {
                    ContainerEventKind::Exited { .. } | ContainerEventKind::Removed => return,
                    _ => {}
                },
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => break,
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}
