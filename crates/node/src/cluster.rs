//! The API as the node uses it: watched caches, the stream of our pods, objects by name, statuses. Everything that
//! depends on the client library's watchers is in this file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodStatus, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::objects::{ObjectKind, ObjectName, Objects};

/// What `look` finds in an object, once it finds something.
pub async fn found<K, T>(api: Api<K>, name: &str, look: impl Fn(&K) -> Option<T>) -> Option<T>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut stream = watcher::watch_object(api, name).default_backoff().boxed();
    while let Some(event) = stream.next().await {
        match event {
            Ok(object) => {
                if let Some(found) = object.as_ref().and_then(&look) {
                    return Some(found);
                }
            }
            Err(error) => tracing::debug!(%error, name, "a watch was interrupted"),
        }
    }
    None
}

/// Events of our pods a busy manager may be behind by; then the watch itself waits.
const POD_EVENTS_MAX: usize = 256;

/// Objects by namespace and name.
type ByName<K> = BTreeMap<(String, String), Arc<K>>;

/// A kind's objects, kept up to date by one watch. Clones share it.
pub struct Cache<K> {
    objects: Arc<RwLock<ByName<K>>>,
    changes: watch::Sender<u64>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { objects: self.objects.clone(), changes: self.changes.clone() }
    }
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl<K> Cache<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    pub fn list(&self) -> Vec<Arc<K>> {
        self.objects.read().values().cloned().collect()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.objects.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Fires when anything changed; zero means that the first list is not complete yet.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Keeps the cache up to date for as long as it is polled.
    pub async fn follow(self, api: Api<K>) {
        let mut stream = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut listed: ByName<K> = BTreeMap::new();
        while let Some(event) = stream.next().await {
            let changed = match event {
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    false
                }
                Ok(watcher::Event::InitApply(object)) => {
                    listed.insert(key_of(&object), Arc::new(slim(object)));
                    false
                }
                Ok(watcher::Event::InitDone) => {
                    *self.objects.write() = std::mem::take(&mut listed);
                    true
                }
                Ok(watcher::Event::Apply(object)) => {
                    self.objects.write().insert(key_of(&object), Arc::new(slim(object)));
                    true
                }
                Ok(watcher::Event::Delete(object)) => self.objects.write().remove(&key_of(&object)).is_some(),
                Err(error) => {
                    tracing::debug!(%error, kind = %K::kind(&K::DynamicType::default()), "watch");
                    false
                }
            };
            if changed {
                self.changes.send_modify(|changes| *changes += 1);
            }
        }
    }
}

fn key_of<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Nothing here looks at who set which field.
fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

#[derive(Clone, Debug)]
pub enum PodStreamEvent {
    /// A complete list begins …
    Begin,
    Listed(Arc<Pod>),
    /// … and ends: pods that were not in it are gone.
    End,
    Applied(Arc<Pod>),
    Deleted(Arc<Pod>),
}

/// The pods of one node.
pub struct PodStream {
    events: mpsc::Receiver<PodStreamEvent>,
    task: JoinHandle<()>,
}

impl PodStream {
    pub fn start(client: Client, node_name: &str) -> Self {
        let (sender, events) = mpsc::channel(POD_EVENTS_MAX);
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
        let task = tokio::spawn(async move {
            let mut stream = watcher(Api::<Pod>::all(client), config).default_backoff().boxed();
            while let Some(event) = stream.next().await {
                let event = match event {
                    Ok(watcher::Event::Init) => PodStreamEvent::Begin,
                    Ok(watcher::Event::InitApply(pod)) => PodStreamEvent::Listed(Arc::new(slim(pod))),
                    Ok(watcher::Event::InitDone) => PodStreamEvent::End,
                    Ok(watcher::Event::Apply(pod)) => PodStreamEvent::Applied(Arc::new(slim(pod))),
                    Ok(watcher::Event::Delete(pod)) => PodStreamEvent::Deleted(Arc::new(slim(pod))),
                    Err(error) => {
                        tracing::debug!(%error, "watch our pods");
                        continue;
                    }
                };
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        Self { events, task }
    }

    pub async fn next(&mut self) -> Option<PodStreamEvent> {
        self.events.recv().await
    }
}

impl Drop for PodStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks for every object named. What is not there is simply not among the found.
pub async fn fetch_objects(
    client: &Client,
    namespace: &str,
    names: &BTreeSet<ObjectName>,
) -> Result<Objects, kube::Error> {
    let mut objects = Objects::new(namespace);
    let asked = names.iter().map(|object| async move {
        let found = match object.kind {
            ObjectKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
                (api.get_opt(&object.name).await?, None)
            }
            ObjectKind::Secret => {
                let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
                (None, api.get_opt(&object.name).await?)
            }
        };
        Ok::<_, kube::Error>((object, found))
    });
    for found in futures::future::join_all(asked).await {
        let (object, (config_map, secret)) = found?;
        match object.kind {
            ObjectKind::ConfigMap => objects.add_config_map(&object.name, config_map),
            ObjectKind::Secret => objects.add_secret(&object.name, secret),
        }
    }
    Ok(objects)
}

type WatchKey = (String, ObjectName);

/// One watch per named object, shared by all pods that name it.
#[derive(Clone)]
pub struct ObjectWatches {
    client: Client,
    watched: Arc<Mutex<BTreeMap<WatchKey, Watched>>>,
}

struct Watched {
    changes: watch::Sender<u64>,
    users: usize,
    task: JoinHandle<()>,
}

/// Hears of changes of the objects one pod names, until it is dropped.
pub struct ObjectWatch {
    watches: ObjectWatches,
    keys: Vec<WatchKey>,
    changes: Vec<watch::Receiver<u64>>,
}

impl ObjectWatches {
    pub fn new(client: Client) -> Self {
        Self { client, watched: Arc::default() }
    }

    pub fn watch(&self, namespace: &str, names: BTreeSet<ObjectName>) -> ObjectWatch {
        let mut watched = self.watched.lock();
        let keys: Vec<WatchKey> = names.into_iter().map(|name| (namespace.to_owned(), name)).collect();
        let changes = keys
            .iter()
            .map(|key| {
                let entry = watched.entry(key.clone()).or_insert_with(|| self.start(key));
                entry.users += 1;
                entry.changes.subscribe()
            })
            .collect();
        ObjectWatch { watches: self.clone(), keys, changes }
    }

    fn start(&self, (namespace, object): &WatchKey) -> Watched {
        let changes = watch::Sender::new(0);
        let (client, name, told) = (self.client.clone(), object.name.clone(), changes.clone());
        let task = match object.kind {
            ObjectKind::ConfigMap => {
                tokio::spawn(follow::<ConfigMap>(Api::namespaced(client, namespace), name, told))
            }
            ObjectKind::Secret => {
                tokio::spawn(follow::<Secret>(Api::namespaced(client, namespace), name, told))
            }
        };
        Watched { changes, users: 0, task }
    }
}

/// Counts the changes of one object; the first look at it is not a change.
async fn follow<K>(api: Api<K>, name: String, changes: watch::Sender<u64>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = watcher(api, config).default_backoff().boxed();
    let mut seen: Option<Option<String>> = None;
    let mut listed = None;
    while let Some(event) = stream.next().await {
        let version = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed = object.resource_version();
                continue;
            }
            Ok(watcher::Event::InitDone) => listed.take(),
            Ok(watcher::Event::Apply(object)) => object.resource_version(),
            Ok(watcher::Event::Delete(_)) => None,
            Err(error) => {
                tracing::debug!(%error, %name, "watch an object");
                continue;
            }
        };
        if seen.as_ref().is_some_and(|seen| *seen != version) {
            changes.send_modify(|changes| *changes += 1);
        }
        seen = Some(version);
    }
}

impl ObjectWatch {
    /// Waits for the next change of any of them.
    pub async fn changed(&mut self) {
        let waits = self.changes.iter_mut().map(|changes| Box::pin(changes.changed()));
        let (first, _, _) = futures::future::select_all(waits).await;
        if first.is_err() {
            // The sender lives as long as the watch; without it nothing can change any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for ObjectWatch {
    fn drop(&mut self) {
        let mut watched = self.watches.watched.lock();
        for key in &self.keys {
            if let Some(entry) = watched.get_mut(key) {
                entry.users -= 1;
                if entry.users == 0 {
                    entry.task.abort();
                    watched.remove(key);
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The pod is no longer, or another one has its name.
    #[error("the pod is gone")]
    Gone,
    #[error(transparent)]
    Api(kube::Error),
}

fn status_error(error: kube::Error) -> StatusError {
    match &error {
        kube::Error::Api(status) if status.code == 404 || status.code == 409 => StatusError::Gone,
        _ => StatusError::Api(error),
    }
}

/// Writes a pod's status by a strategic patch, so that conditions of others stay.
pub async fn write_status(client: &Client, pod: &Pod, status: &PodStatus) -> Result<(), StatusError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let patch =
        status_patch(pod, status).map_err(|error| StatusError::Api(kube::Error::SerdeError(error)))?;
    let params = PatchParams::default();
    api.patch_status(&pod.name_any(), &params, &Patch::Strategic(patch)).await.map(drop).map_err(status_error)
}

fn status_patch(pod: &Pod, status: &PodStatus) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(status)?;
    // A patch merges: what is no longer said has to be taken back.
    for condition in value["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
    }
    // Addresses are merged by what they are: those of an earlier sandbox would stay.
    for field in ["podIPs", "hostIPs"] {
        let mut addresses = value[field].as_array().cloned().unwrap_or_default();
        addresses.insert(0, json!({"$patch": "replace"}));
        value[field] = addresses.into();
    }
    for field in ["podIP", "reason", "message"] {
        if value.get(field).is_none() {
            value[field] = Value::Null;
        }
    }
    Ok(json!({"metadata": {"uid": pod.metadata.uid}, "status": value}))
}

/// Writes the last status and lets the API forget the pod.
pub async fn finish_pod(client: &Client, pod: &Pod, last: Option<&PodStatus>) -> Result<(), StatusError> {
    if let Some(status) = last {
        match write_status(client, pod, status).await {
            Ok(()) => {}
            Err(StatusError::Gone) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    match api.delete(&pod.name_any(), &params).await.map(drop).map_err(status_error) {
        Err(StatusError::Gone) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_an_earlier_sandbox_do_not_stay() {
        let held = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "uid": "u"}, "spec": {"containers": []},
            "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "hostIPs": [{"ip": "10.9.0.1"}]}});
        let schema = api::schema::of_kind("", "v1", "Pod").expect("built in");
        let pod = Pod::default();
        let after = |ip: Option<&str>| {
            let ip = ip.map(str::to_owned);
            let status = PodStatus {
                pod_ips: ip.clone().map(|ip| vec![k8s_openapi::api::core::v1::PodIP { ip }]),
                pod_ip: ip,
                ..PodStatus::default()
            };
            let mut patch = status_patch(&pod, &status).expect("a patch");
            patch["metadata"] = json!({});
            let patched = api::patch::strategic::apply(&held, &patch, &schema).expect("applies");
            patched["status"].clone()
        };
        let moved = after(Some("10.0.0.2"));
        assert_eq!((&moved["podIP"], &moved["podIPs"]), (&json!("10.0.0.2"), &json!([{"ip": "10.0.0.2"}])));
        let gone = after(None);
        assert!(gone["podIP"].is_null() && gone["podIPs"].as_array().is_none_or(Vec::is_empty), "{gone}");
    }
}
