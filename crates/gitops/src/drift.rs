//! Notices that a managed object was changed by somebody else: one watch of metadata for each kind that any
//! Kustomization manages, which wakes the Kustomization that an object's labels name.

use std::collections::HashMap;
use std::sync::Arc;

use base::constants::labels::{KUSTOMIZATION_NAME, KUSTOMIZATION_NAMESPACE};
use client::Key;
use futures::StreamExt;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::discovery::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::inventory::Id;

pub struct Drift {
    client: Client,
    cluster: Cluster,
    wake: Arc<dyn Fn(Key) + Send + Sync>,
    stop: CancellationToken,
    kinds: Mutex<HashMap<(String, String), CancellationToken>>,
}

impl Drift {
    pub fn new(
        client: Client,
        cluster: Cluster,
        wake: Arc<dyn Fn(Key) + Send + Sync>,
        stop: CancellationToken,
    ) -> Self {
        Self { client, cluster, wake, stop, kinds: Mutex::default() }
    }

    /// Sees to it that the kinds of these objects are watched.
    pub async fn follow(&self, ids: &[Id]) {
        for id in ids {
            let kind = (id.group.clone(), id.kind.clone());
            if self.kinds.lock().contains_key(&kind) {
                continue;
            }
            let Ok(resource) = self.cluster.resource(id).await else { continue };
            let stop = self.stop.child_token();
            if self.kinds.lock().insert(kind, stop.clone()).is_none() {
                tokio::spawn(watch(self.client.clone(), resource, Arc::clone(&self.wake), stop));
            }
        }
    }
}

async fn watch(
    client: Client,
    resource: ApiResource,
    wake: Arc<dyn Fn(Key) + Send + Sync>,
    stop: CancellationToken,
) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource);
    let config = watcher::Config::default().labels(KUSTOMIZATION_NAME);
    let mut events = watcher::watcher(api, config).default_backoff().boxed();
    // What was last seen of each object: its generation, or for kinds without one its version.
    let mut seen: HashMap<String, String> = HashMap::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        match event {
            Some(Ok(watcher::Event::InitApply(object))) => drop(seen.insert(uid(&object), mark(&object))),
            Some(Ok(watcher::Event::Apply(object))) => {
                let mark = mark(&object);
                // A new object was made by us; one that only reports its status has not drifted.
                let before = seen.insert(uid(&object), mark.clone());
                if before.is_some_and(|before| before != mark) {
                    owner(&object).into_iter().for_each(|key| wake(key));
                }
            }
            Some(Ok(watcher::Event::Delete(object))) => {
                seen.remove(&uid(&object));
                owner(&object).into_iter().for_each(|key| wake(key));
            }
            Some(Ok(watcher::Event::Init | watcher::Event::InitDone)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, kind = resource.kind, "the watch for drift was interrupted")
            }
            None => return,
        }
    }
}

fn uid(object: &PartialObjectMeta<DynamicObject>) -> String {
    object.metadata.uid.clone().unwrap_or_default()
}

fn mark(object: &PartialObjectMeta<DynamicObject>) -> String {
    let meta = &object.metadata;
    match meta.generation {
        Some(generation) => format!("{generation} {:?} {:?}", meta.labels, meta.annotations),
        None => meta.resource_version.clone().unwrap_or_default(),
    }
}

fn owner(object: &PartialObjectMeta<DynamicObject>) -> Option<Key> {
    let labels = object.metadata.labels.as_ref()?;
    Some(Key::new(labels.get(KUSTOMIZATION_NAMESPACE)?, labels.get(KUSTOMIZATION_NAME)?))
}
