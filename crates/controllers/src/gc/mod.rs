//! The garbage collector: what lost its owners goes, in the background, before its owner (foreground), or not at all
//! (orphan). It follows the metadata of every kind the API serves, and learns of new kinds from their definitions.

mod graph;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Controller, Key, Next, Outcome, Reconciler};
use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, PartialObjectMeta, Patch};
use kube::core::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::context::{self, Context};
use crate::deletions::Deletions;
use crate::discovery;
use graph::{Action, Graph, Node, Policy};

type Metadata = PartialObjectMeta<DynamicObject>;

/// Until every kind has been listed the graph has holes; past this it is used nevertheless.
const COMPLETE_WITHIN: Duration = Duration::from_secs(10);
const REDISCOVER_AFTER: Duration = Duration::from_secs(2);
/// Events have no owners and are many.
const IGNORED: [&str; 1] = ["events"];

pub fn start(context: &Context) -> Vec<Controller> {
    let definitions = context.caches.of::<CustomResourceDefinition>();
    let state = Arc::new(State { deletions: context.deletions.clone(), ..State::default() });
    let (look, woken) = client::waker();
    let reconciler = Collector { context: context.clone(), state: Arc::clone(&state) };
    let collector = Controller::new("garbagecollector", reconciler).workers(8).woken_by(woken);
    let (discover, discovery) = client::waker();
    discover(everything());
    let kinds = Kinds { context: context.clone(), state, look: Arc::new(look) };
    let discoverer = Controller::new("garbagecollector-kinds", kinds)
        .workers(1)
        .woken_by(discovery)
        // Every definition leads to the same question: what is served now?
        .watches(&definitions, |_| vec![everything()]);
    vec![collector, discoverer]
}

type Look = Arc<dyn Fn(Key) + Send + Sync>;

fn everything() -> Key {
    Key::new("", "everything")
}

#[derive(Default)]
struct State {
    graph: Mutex<Graph>,
    kinds: Mutex<Vec<Kind>>,
    incomplete: watch::Sender<usize>,
    deletions: Deletions,
}

/// A followed resource. Its number in the list stays, also when it is no longer served.
struct Kind {
    resource: ApiResource,
    namespaced: bool,
    /// Stops following when dropped.
    following: Option<DropGuard>,
}

impl State {
    fn resource(&self, number: usize) -> Option<(ApiResource, bool)> {
        self.kinds.lock().get(number).map(|kind| (kind.resource.clone(), kind.namespaced))
    }

    fn find(&self, owner: &OwnerReference) -> Option<(ApiResource, bool)> {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let kinds = self.kinds.lock();
        let found = kinds
            .iter()
            .find(|k| k.following.is_some() && k.resource.kind == owner.kind && k.resource.group == group);
        found.map(|kind| (kind.resource.clone(), kind.namespaced))
    }
}

/// Keeps the list of followed kinds equal to what is served.
struct Kinds {
    context: Context,
    state: Arc<State>,
    look: Look,
}

impl Reconciler for Kinds {
    fn reconcile(&self, _key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let served = discovery::served(self.context.client()).await?;
            let wanted: Vec<_> = served
                .into_iter()
                .filter(|s| {
                    s.listable && s.watchable && s.deletable && !IGNORED.contains(&s.resource.plural.as_str())
                })
                .collect();
            self.stop_unserved(&wanted);
            let mut all_there = true;
            for kind in wanted {
                self.follow(kind);
            }
            let definitions = self.context.caches.of::<CustomResourceDefinition>();
            for definition in definitions.all() {
                // A definition may be established a moment before its resource is served.
                let (group, plural) = (&definition.spec.group, &definition.spec.names.plural);
                let kinds = self.state.kinds.lock();
                let served = kinds.iter().any(|k| {
                    k.following.is_some() && k.resource.group == *group && k.resource.plural == *plural
                });
                all_there &= served || definition.metadata.deletion_timestamp.is_some();
            }
            Ok(if all_there { Next::OnChange } else { Next::After(REDISCOVER_AFTER) })
        })
    }
}

impl Kinds {
    fn stop_unserved(&self, wanted: &[discovery::Served]) {
        let mut gone = Vec::new();
        for (number, kind) in self.state.kinds.lock().iter_mut().enumerate() {
            if kind.following.is_some() && !wanted.iter().any(|w| w.resource == kind.resource) {
                kind.following = None;
                gone.push(number);
            }
        }
        for number in gone {
            let mut graph = self.state.graph.lock();
            let uids = graph.of_resource(number);
            let look: Vec<String> = uids.iter().flat_map(|uid| graph.remove(uid)).collect();
            drop(graph);
            look.into_iter().for_each(|uid| (self.look)(Key::new("", uid)));
        }
    }

    fn follow(&self, served: discovery::Served) {
        let mut kinds = self.state.kinds.lock();
        if kinds.iter().any(|k| k.following.is_some() && k.resource == served.resource) {
            return;
        }
        let stop = self.context.stop.child_token();
        let number = kinds.len();
        let resource = served.resource.clone();
        let following = Some(stop.clone().drop_guard());
        kinds.push(Kind { resource: served.resource, namespaced: served.namespaced, following });
        drop(kinds);
        self.state.incomplete.send_modify(|n| *n += 1);
        let follower = Follower {
            state: Arc::clone(&self.state),
            look: Arc::clone(&self.look),
            number,
            listed: None,
            by_name: HashMap::new(),
            counted: true,
        };
        tokio::spawn(follower.run(Api::all_with(self.context.caches.reader(), &resource), stop));
    }
}

/// Follows one kind into the graph.
struct Follower {
    state: Arc<State>,
    look: Look,
    number: usize,
    listed: Option<HashSet<Key>>,
    by_name: HashMap<Key, String>,
    /// Whether it still counts as one whose first list is awaited.
    counted: bool,
}

impl Follower {
    async fn run(mut self, api: Api<Metadata>, stop: CancellationToken) {
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = stop.cancelled() => break,
            };
            match event {
                Some(Ok(event)) => self.take(event),
                Some(Err(error)) => {
                    tracing::debug!(%error, number = self.number, "a metadata watch was interrupted")
                }
                None => break,
            }
        }
        self.complete();
    }

    fn complete(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.state.incomplete.send_modify(|n| *n = n.saturating_sub(1));
        }
    }

    fn take(&mut self, event: Event<Metadata>) {
        match event {
            Event::Init => self.listed = Some(HashSet::new()),
            Event::InitApply(object) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(Key::new(
                        object.metadata.namespace.clone().unwrap_or_default(),
                        object.metadata.name.clone().unwrap_or_default(),
                    ));
                }
                self.set(object);
            }
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<Key> = self.by_name.keys().filter(|k| !listed.contains(k)).cloned().collect();
                gone.iter().for_each(|key| self.remove(key));
                self.complete();
            }
            Event::Apply(object) => self.set(object),
            Event::Delete(object) => {
                let key = Key::new(
                    object.metadata.namespace.unwrap_or_default(),
                    object.metadata.name.unwrap_or_default(),
                );
                self.remove(&key);
                self.state.deletions.tell(&key.namespace);
            }
        }
    }

    fn set(&mut self, object: Metadata) {
        let Some(uid) = object.metadata.uid.clone() else { return };
        let node = Node::new(self.number, &object.metadata);
        let key = Key::new(node.namespace.clone(), node.name.clone());
        if let Some(former) = self.by_name.insert(key, uid.clone()).filter(|former| *former != uid) {
            let look = self.state.graph.lock().remove(&former);
            self.wake(look);
        }
        let look = self.state.graph.lock().set(&uid, node);
        self.wake(look);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(uid) = self.by_name.remove(key) {
            let look = self.state.graph.lock().remove(&uid);
            self.wake(look);
        }
    }

    fn wake(&self, uids: Vec<String>) {
        uids.into_iter().for_each(|uid| (self.look)(Key::new("", uid)));
    }
}

/// Looks at one object (its key is a uid) and does what the graph says.
struct Collector {
    context: Context,
    state: Arc<State>,
}

impl Reconciler for Collector {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let mut incomplete = self.state.incomplete.subscribe();
            let complete = incomplete.wait_for(|n| *n == 0);
            if tokio::time::timeout(COMPLETE_WITHIN, complete).await.is_err() {
                tracing::debug!("some kinds could not be listed yet");
            }
            let mut absent = HashSet::new();
            let mut actions = self.plan(&key.name, &absent);
            if let [Action::Verify(owners)] = &actions[..] {
                for owner in owners {
                    match self.is_absent(&key.name, owner).await? {
                        Some(true) => {
                            absent.insert(owner.uid.clone());
                        }
                        // It exists and will be in the graph soon.
                        Some(false) => return Ok(Next::After(Duration::from_secs(1))),
                        // A kind that is not served: nothing can be said about its objects.
                        None => return Ok(Next::After(Duration::from_secs(30))),
                    }
                }
                actions = self.plan(&key.name, &absent);
            }
            for action in actions {
                self.act(&key.name, action).await?;
            }
            Ok(Next::OnChange)
        })
    }
}

impl Collector {
    fn plan(&self, uid: &str, absent: &HashSet<String>) -> Vec<Action> {
        self.state.graph.lock().plan(uid, absent)
    }

    fn node(&self, uid: &str) -> Option<(Node, Api<Metadata>)> {
        let node = self.state.graph.lock().get(uid).cloned()?;
        let (resource, namespaced) = self.state.resource(node.resource)?;
        let api = self.api(&resource, namespaced, &node.namespace);
        Some((node, api))
    }

    fn api(&self, resource: &ApiResource, namespaced: bool, namespace: &str) -> Api<Metadata> {
        match namespaced {
            true => Api::namespaced_with(self.context.client(), namespace, resource),
            false => Api::all_with(self.context.client(), resource),
        }
    }

    /// Whether the API says that this owner does not exist; nothing if it cannot say.
    async fn is_absent(&self, dependent: &str, owner: &OwnerReference) -> Result<Option<bool>, kube::Error> {
        let Some((node, _)) = self.node(dependent) else { return Ok(None) };
        let Some((resource, namespaced)) = self.state.find(owner) else { return Ok(None) };
        if namespaced && node.namespace.is_empty() {
            // What belongs to no namespace cannot have an owner in one: the reference is a mistake, not garbage.
            return Ok(None);
        }
        let live = self.api(&resource, namespaced, &node.namespace).get_opt(&owner.name).await?;
        Ok(Some(live.is_none_or(|live| live.metadata.uid.as_deref() != Some(&owner.uid))))
    }

    async fn act(&self, uid: &str, action: Action) -> Result<(), kube::Error> {
        match action {
            Action::Disown { dependent, owners } => self.disown(&dependent, &owners).await,
            Action::RemoveFinalizer(finalizer) => {
                let Some((node, api)) = self.node(uid) else { return Ok(()) };
                let left: Vec<_> = node.finalizers.iter().filter(|f| *f != finalizer).collect();
                let patch = json!({ "metadata": { "uid": uid, "resourceVersion": node.resource_version, "finalizers": left } });
                context::ignore_missing(
                    api.patch(&node.name, &context::params_patch(), &Patch::Merge(patch)).await,
                )
            }
            Action::Delete(policy) => {
                let Some((node, api)) = self.node(uid) else { return Ok(()) };
                let how = match policy {
                    Policy::Background => DeleteParams::background(),
                    Policy::Foreground => DeleteParams::foreground(),
                    Policy::Orphan => DeleteParams::orphan(),
                };
                // Bound to this version: an owner may be added at this very moment.
                let how = how.preconditions(kube::api::Preconditions {
                    uid: Some(uid.to_owned()),
                    resource_version: node.resource_version.clone(),
                });
                tracing::debug!(name = node.name, namespace = node.namespace, ?policy, "collecting");
                context::ignore_missing(api.delete(&node.name, &how).await)
            }
            // Only ever planned before the owners were asked for.
            Action::Verify(_) => Ok(()),
        }
    }

    async fn disown(&self, dependent: &str, owners: &[String]) -> Result<(), kube::Error> {
        let Some((node, api)) = self.node(dependent) else { return Ok(()) };
        let left: Vec<_> = node.owners.iter().filter(|o| !owners.contains(&o.uid)).collect();
        let patch = json!({ "metadata": { "uid": dependent, "resourceVersion": node.resource_version, "ownerReferences": left } });
        context::ignore_missing(api.patch(&node.name, &context::params_patch(), &Patch::Merge(patch)).await)
    }
}
