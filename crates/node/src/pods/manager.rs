//! Which pods are ours, and a worker for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use container::runtime::{ContainerEvent, RuntimeError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use super::adopt::{Leftover, adopt, leftovers, remove_orphans, sweep};
use super::context::{Context, PodKey};
use super::record::SandboxPhase;
use super::setup::uid_of_sandbox;
use super::worker::{PodSource, Worker};
use crate::cluster::{PodStream, PodStreamEvent};

struct Handle {
    source: watch::Sender<PodSource>,
    runtime_changes: watch::Sender<u64>,
}

pub struct PodManager {
    context: Arc<Context>,
    workers: BTreeMap<String, Handle>,
    tasks: JoinSet<String>,
    leftovers: BTreeMap<String, Leftover>,
    /// Orphans are removed once, after the first complete list.
    swept: bool,
    /// The pods of the list that is being received.
    listed: BTreeSet<String>,
}

impl PodManager {
    /// Looks at what the runtime has; the addresses of those pods are taken.
    pub async fn new(context: Arc<Context>) -> Result<Self, RuntimeError> {
        let leftovers = leftovers(context.runtime.as_ref()).await?;
        {
            let mut addresses = context.addresses.lock();
            for ip in leftovers.values().filter_map(Leftover::held_ip) {
                // False for the address of the node itself, which pods on its network share.
                addresses.take(ip);
            }
        }
        Ok(Self {
            context,
            workers: BTreeMap::new(),
            tasks: JoinSet::new(),
            leftovers,
            swept: false,
            listed: BTreeSet::new(),
        })
    }

    /// Runs until the stream ends, which it does only with the agent.
    pub async fn run(mut self, mut pods: PodStream) {
        let mut events = self.context.runtime.events();
        loop {
            tokio::select! {
                event = pods.next() => match event {
                    Some(event) => self.take_pod_event(event).await,
                    None => return,
                },
                event = events.recv() => match event {
                    Ok(event) => self.take_runtime_event(&event),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.workers.values().for_each(Handle::poke),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                    Ok(uid) => {
                        self.workers.remove(&uid);
                    }
                    Err(error) => tracing::error!(%error, "a pod's worker broke"),
                },
            }
        }
    }

    async fn take_pod_event(&mut self, event: PodStreamEvent) {
        match event {
            PodStreamEvent::Begin => self.listed.clear(),
            PodStreamEvent::Listed(pod) => {
                self.listed.insert(PodKey::of(&pod).uid);
                self.apply(pod);
            }
            PodStreamEvent::End => self.end_list().await,
            PodStreamEvent::Applied(pod) => self.apply(pod),
            PodStreamEvent::Deleted(pod) => {
                if let Some(handle) = self.workers.get(&PodKey::of(&pod).uid) {
                    handle.source.send_replace(PodSource { pod, gone: true });
                }
            }
        }
    }

    fn apply(&mut self, pod: Arc<Pod>) {
        let key = PodKey::of(&pod);
        if let Some(handle) = self.workers.get(&key.uid) {
            handle.source.send_replace(PodSource { pod, gone: false });
            return;
        }
        let leftover = self.leftovers.remove(&key.uid);
        let record = adopt(&pod, leftover.as_ref(), Timestamp::now());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let over = matches!(phase, Some("Succeeded" | "Failed"));
        let settled = over
            && matches!(record.sandbox, SandboxPhase::Absent | SandboxPhase::Stopped | SandboxPhase::Lost);
        let (source, source_out) = watch::channel(PodSource { pod, gone: false });
        let (runtime_changes, changes_out) = watch::channel(0);
        let worker = Worker::new(self.context.clone(), source_out, changes_out, record, settled);
        let uid = key.uid.clone();
        self.tasks.spawn(async move {
            worker.run().await;
            uid
        });
        self.workers.insert(key.uid, Handle { source, runtime_changes });
    }

    /// Pods that are not in a complete list were deleted while we did not listen.
    async fn end_list(&mut self) {
        for (uid, handle) in &self.workers {
            if !self.listed.contains(uid) {
                handle.source.send_modify(|source| source.gone = true);
            }
        }
        if std::mem::replace(&mut self.swept, true) {
            return;
        }
        let (context, orphans) = (self.context.clone(), std::mem::take(&mut self.leftovers));
        // Orphans are still on their way out, so their directories are not strays yet.
        let keep: BTreeSet<String> = self.workers.keys().chain(orphans.keys()).cloned().collect();
        match sweep(&context, &keep).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed what belonged to no pod"),
            Err(error) => tracing::warn!(%error, "remove what belongs to no pod"),
        }
        tokio::spawn(async move {
            if let Err(error) = remove_orphans(&context, &orphans).await {
                tracing::warn!(%error, "take down pods that are no longer ours");
            }
        });
    }

    fn take_runtime_event(&self, event: &ContainerEvent) {
        if let Some(handle) = uid_of_sandbox(&event.sandbox_id).and_then(|uid| self.workers.get(uid)) {
            handle.poke();
        }
    }
}

impl Handle {
    fn poke(&self) {
        self.runtime_changes.send_modify(|changes| *changes += 1);
    }
}
