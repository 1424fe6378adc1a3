//! The scheduler: gives each new pod a node. A snapshot of nodes and pods follows the shared caches change by change;
//! deciding is a pure function of it; binding runs beside, with the pod counted where it will be.

mod bind;
mod filters;
mod matching;
mod preempt;
mod queue;
mod resources;
mod schedule;
mod scores;
mod snapshot;
#[cfg(test)]
mod testing;
mod view;
mod volumes;

use std::sync::Arc;
use std::time::Instant;

use client::{Caches, Recorder};
use k8s_openapi::api::core::v1::Pod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use bind::Binder;
use schedule::Decision;
use snapshot::PodInfo;
use view::View;

/// The name pods ask for when they want this scheduler, and the one they get when they ask for none.
pub const NAME: &str = "default-scheduler";

/// Schedules until stopped.
pub async fn run(caches: Caches, stop: CancellationToken) {
    let view = View::follow(&caches);
    let binder = Binder {
        client: caches.client(),
        recorder: Recorder::new(caches.client(), NAME, None),
        claims: caches.of(),
        claims_changed: view.claims_changed.clone(),
    };
    tokio::select! {
        () = view.ready() => {}
        () = stop.cancelled() => return,
    }
    let mut work = JoinSet::new();
    loop {
        let (next, gated) = view.next(Instant::now());
        for pod in gated {
            let binder = binder.clone();
            work.spawn(async move { report_gated(&binder, &pod).await });
        }
        match next {
            Some(pod) => {
                schedule_one(&view, &binder, pod, &mut work);
                tokio::task::yield_now().await;
            }
            None => tokio::select! {
                () = view.something_to_do() => {}
                Some(ended) = work.join_next(), if !work.is_empty() => log_panic(ended),
                () = stop.cancelled() => return,
            },
        }
        while let Some(ended) = work.try_join_next() {
            log_panic(ended);
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "binding ended badly");
    }
}

fn schedule_one(view: &Arc<View>, binder: &Binder, pod: Arc<Pod>, work: &mut JoinSet<()>) {
    let info = Arc::new(PodInfo::new(pod));
    let decision = view.decide(&info);
    let (view, binder) = (Arc::clone(view), binder.clone());
    work.spawn(async move { carry_out(&view, &binder, &info, decision).await });
}

async fn carry_out(view: &View, binder: &Binder, info: &PodInfo, decision: Decision) {
    let pod = &info.pod;
    match decision {
        Decision::Place { node, needs } => match binder.bind(pod, &node, &needs).await {
            Ok(()) => tracing::debug!(pod = %client::Key::of(&**pod), node, "bound"),
            Err(error) => {
                tracing::debug!(pod = %client::Key::of(&**pod), node, %error, "binding failed");
                view.binding_failed(info.uid());
                // Whoever was faster, the pod is tried again or is gone: nothing a user should read.
                let lost_race = matches!(&error, bind::BindError::Bind(e) | bind::BindError::Volumes(e)
                    if client::is_not_found(e) || client::is_conflict(e));
                if !lost_race {
                    binder.tell_failed(pod, &error.to_string());
                }
            }
        },
        Decision::Wait { message, victims, .. } => {
            binder.tell_failed(pod, &message);
            let node = victims.as_ref().map(|v| v.node.as_str());
            let mut result = binder.report(pod, "Unschedulable", &message, node).await;
            if let (Ok(()), Some(victims)) = (&result, &victims) {
                result = binder.preempt(pod, victims).await;
            }
            if let Err(error) = result {
                tracing::warn!(pod = %client::Key::of(&**pod), %error, "an unschedulable pod could not be told");
                view.try_again(info.uid());
            }
        }
    }
}

async fn report_gated(binder: &Binder, pod: &Pod) {
    let message = "Scheduling is blocked due to non-empty scheduling gates";
    if let Err(error) = binder.report(pod, "SchedulingGated", message, None).await {
        tracing::debug!(%error, "a gated pod could not be told");
    }
}
