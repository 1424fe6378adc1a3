//! The task that keeps asking while its container runs.

use std::net::IpAddr;
use std::sync::Arc;

use container::runtime::Runtime;
use k8s_openapi::api::core::v1::{Container, Probe};
use net::namespace::Namespace;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::ask::{Answer, Place, ask};
use super::state::{ProbeKind, ProbeState, Timing, Verdict};

/// What a probe tells its pod's worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    pub container_id: String,
    pub kind: ProbeKind,
    pub news: ProbeNews,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeNews {
    /// The verdict changed.
    Verdict(Verdict),
    /// One failed answer, for an event; it may not have changed the verdict.
    Failed(String),
    /// The question could not be put.
    Errored(String),
}

pub struct ProbeTarget {
    pub runtime: Arc<dyn Runtime>,
    pub node: Namespace,
    pub container_id: String,
    pub container: Container,
    pub pod_ip: IpAddr,
}

/// Asks until the handle is aborted or the worker is gone. A startup probe ends with its first success.
pub fn spawn(
    target: ProbeTarget,
    kind: ProbeKind,
    probe: Probe,
    reports: mpsc::Sender<ProbeReport>,
) -> JoinHandle<()> {
    let ProbeTarget { runtime, node, container_id, container, pod_ip } = target;
    let place = Place { runtime, node, container_id, container, pod_ip };
    tokio::spawn(async move {
        let timing = Timing::from(&probe);
        let mut state = ProbeState::new(kind, timing);
        let mut ticks = tokio::time::interval_at(Instant::now() + timing.initial_delay, timing.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut news = Vec::new();
            let mut done = false;
            match ask(&place, &probe, timing.timeout).await {
                Ok(answer) => {
                    let success = answer == Answer::Success;
                    if let Answer::Failure(message) = answer {
                        news.push(ProbeNews::Failed(message));
                    }
                    if let Some(verdict) = state.observe(success) {
                        news.push(ProbeNews::Verdict(verdict));
                        done = kind == ProbeKind::Startup && success;
                    }
                }
                Err(error) => news.push(ProbeNews::Errored(error.to_string())),
            }
            for news in news {
                let report = ProbeReport { container_id: place.container_id.clone(), kind, news };
                if reports.send(report).await.is_err() {
                    return;
                }
            }
            if done {
                return;
            }
        }
    })
}
