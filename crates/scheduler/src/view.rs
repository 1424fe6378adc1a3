//! The scheduler's view of the cluster: follows the shared caches into the snapshot and the queue, and takes the
//! decisions under one lock, so that each sees all the ones before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use api::selector::Selector;
use client::{Cache, Caches, Change, Key};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::matching::NamespaceLabels;
use crate::queue::{Happening, Queue};
use crate::schedule::{Decision, decide};
use crate::snapshot::{PodInfo, Snapshot};
use crate::volumes::Volumes;

pub struct View {
    state: Mutex<State>,
    wake: Notify,
    lookup: CacheLookup,
    pods: Arc<Cache<Pod>>,
    nodes: Arc<Cache<Node>>,
    budgets: Arc<Cache<PodDisruptionBudget>>,
    pub claims_changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    queue: Queue,
    /// Pods behind gates that have not been told so.
    gated: Vec<Arc<Pod>>,
}

impl View {
    pub fn follow(caches: &Caches) -> Arc<Self> {
        let view = Arc::new(Self {
            state: Mutex::default(),
            wake: Notify::new(),
            lookup: CacheLookup {
                claims: caches.of(),
                volumes: caches.of(),
                classes: caches.of(),
                namespaces: caches.of(),
            },
            pods: caches.of(),
            nodes: caches.of(),
            budgets: caches.of(),
            claims_changed: watch::Sender::new(()),
        });
        let this = Arc::clone(&view);
        view.nodes.listen(move |change| this.update(|state| state.node_changed(change)));
        let this = Arc::clone(&view);
        view.pods.listen(move |change| this.update(|state| state.pod_changed(change)));
        let this = Arc::clone(&view);
        view.lookup.claims.listen(move |_| {
            this.claims_changed.send_replace(());
            this.update(|state| state.happened(Happening::VolumeChanged));
        });
        let this = Arc::clone(&view);
        view.lookup.volumes.listen(move |_| this.update(|state| state.happened(Happening::VolumeChanged)));
        let this = Arc::clone(&view);
        view.lookup.classes.listen(move |_| this.update(|state| state.happened(Happening::VolumeChanged)));
        view
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.wake.notify_one();
    }

    /// Returns once every cache is complete: a decision on half a cluster would be a wrong one.
    pub async fn ready(&self) {
        self.nodes.ready().await;
        self.pods.ready().await;
        self.budgets.ready().await;
        self.lookup.claims.ready().await;
        self.lookup.volumes.ready().await;
        self.lookup.classes.ready().await;
        self.lookup.namespaces.ready().await;
    }

    /// The pod to try now, and those that should be told that they are gated.
    pub fn next(&self, now: Instant) -> (Option<Arc<Pod>>, Vec<Arc<Pod>>) {
        let mut state = self.state.lock();
        (state.queue.pop(now), std::mem::take(&mut state.gated))
    }

    pub async fn something_to_do(&self) {
        let at = self.state.lock().queue.next_wake();
        match at {
            Some(at) => tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {}
                () = self.wake.notified() => {}
            },
            None => self.wake.notified().await,
        }
    }

    /// Decides, and counts on the decision from then on.
    pub fn decide(&self, pod: &Arc<PodInfo>) -> Decision {
        let mut state = self.state.lock();
        let decision = decide(pod, &state.snapshot, &self.lookup, &|other| self.is_protected(other));
        match &decision {
            Decision::Place { node, .. } => state.snapshot.assume(Arc::clone(pod), node),
            Decision::Wait { plugins, victims, .. } => {
                if let Some(victims) = victims {
                    state.snapshot.nominate(Arc::clone(pod), &victims.node);
                }
                state.queue.unschedulable(pod.uid(), plugins.clone(), Instant::now());
            }
        }
        decision
    }

    pub fn binding_failed(&self, uid: &str) {
        self.update(|state| {
            state.snapshot.forget(uid);
            state.queue.failed(uid, Instant::now());
            state.happened(Happening::PodRemoved);
        });
    }

    pub fn try_again(&self, uid: &str) {
        self.update(|state| state.queue.failed(uid, Instant::now()));
    }

    fn is_protected(&self, pod: &PodInfo) -> bool {
        let budgets = self.budgets.in_namespace(pod.namespace());
        budgets.iter().any(|budget| {
            let allowed = budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0);
            let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
            allowed <= 0 && Selector::from_optional(selector).is_ok_and(|s| s.matches(pod.labels()))
        })
    }
}

impl State {
    fn happened(&mut self, happening: Happening) {
        self.queue.happened(happening, Instant::now());
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        match &change.new {
            None => self.snapshot.remove_node(&Key::of(&**change.object()).name),
            Some(node) => {
                self.snapshot.set_node(Arc::clone(node));
                match &change.old {
                    None => self.happened(Happening::NodeAdded),
                    // Heartbeats come every few seconds and change nothing of interest.
                    Some(old) if of_interest(old) != of_interest(node) => {
                        self.happened(Happening::NodeChanged)
                    }
                    Some(_) => {}
                }
            }
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        if let Some(old) = &change.old
            && change.new.as_ref().is_none_or(|new| uid(new) != uid(old))
        {
            self.pod_gone(&uid(old));
        }
        let Some(pod) = &change.new else { return };
        let id = uid(pod);
        let ended =
            matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
        let spec = pod.spec.as_ref();
        let node = spec.and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty());
        match node {
            _ if ended => self.pod_gone(&id),
            Some(node) => {
                self.queue.remove(&id);
                self.snapshot.set_pod(Arc::clone(pod), node);
                let same = change.old.as_ref().is_some_and(|old| {
                    old.metadata.labels == pod.metadata.labels
                        && old.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node)
                });
                if !same {
                    self.happened(Happening::PodPlaced);
                }
            }
            None => self.waiting_changed(change.old.as_deref(), pod, &id),
        }
    }

    fn waiting_changed(&mut self, old: Option<&Pod>, pod: &Arc<Pod>, uid: &str) {
        let spec = pod.spec.as_ref();
        let ours =
            spec.and_then(|s| s.scheduler_name.as_deref()).is_none_or(|n| n.is_empty() || n == crate::NAME);
        let gated = spec.and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
        if !ours || gated || pod.metadata.deletion_timestamp.is_some() {
            self.queue.remove(uid);
            let told = pod
                .status
                .iter()
                .flat_map(|s| s.conditions.iter().flatten())
                .any(|c| c.type_ == "PodScheduled");
            if ours && gated && !told {
                self.gated.push(Arc::clone(pod));
            }
            return;
        }
        let nominated =
            pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).filter(|n| !n.is_empty());
        if !self.snapshot.is_assumed(uid) {
            match nominated {
                Some(node) => self.snapshot.nominate(Arc::new(PodInfo::new(Arc::clone(pod))), node),
                // A nomination of ours may not have been written yet: only one that was taken back counts.
                None if old.and_then(|o| o.status.as_ref()?.nominated_node_name.as_ref()).is_some() => {
                    self.snapshot.clear_nomination(uid);
                }
                None => {}
            }
        }
        let changed =
            old.is_some_and(|old| old.spec != pod.spec || old.metadata.labels != pod.metadata.labels);
        self.queue.set(Arc::clone(pod), changed, Instant::now());
    }

    fn pod_gone(&mut self, uid: &str) {
        self.queue.remove(uid);
        if self.snapshot.remove_pod(uid) {
            self.happened(Happening::PodRemoved);
        }
    }
}

type NodeFacts<'a> = (
    Option<&'a BTreeMap<String, String>>,
    Option<(Option<bool>, Option<&'a Vec<k8s_openapi::api::core::v1::Taint>>)>,
    Option<&'a BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
);

/// What about a node filters ask.
fn of_interest(node: &Node) -> NodeFacts<'_> {
    (
        node.metadata.labels.as_ref(),
        node.spec.as_ref().map(|s| (s.unschedulable, s.taints.as_ref())),
        node.status.as_ref().and_then(|s| s.allocatable.as_ref()),
    )
}

struct CacheLookup {
    claims: Arc<Cache<PersistentVolumeClaim>>,
    volumes: Arc<Cache<PersistentVolume>>,
    classes: Arc<Cache<StorageClass>>,
    namespaces: Arc<Cache<Namespace>>,
}

impl Volumes for CacheLookup {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(&Key::new(namespace, name))
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get(&Key::new("", name))
    }

    fn all_volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.all()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get(&Key::new("", name))
    }
}

impl NamespaceLabels for CacheLookup {
    fn namespace_labels(&self, name: &str) -> BTreeMap<String, String> {
        let namespace = self.namespaces.get(&Key::new("", name));
        namespace.and_then(|n| n.metadata.labels.clone()).unwrap_or_default()
    }
}
