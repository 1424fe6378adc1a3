//! What the node's server may know of the pods: where their containers, logs and networks are.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use net::namespace::Namespace;
use parking_lot::RwLock;
use tokio::sync::watch;

#[derive(Clone)]
pub struct PodEntry {
    pub pod: Arc<Pod>,
    pub log_dir: PathBuf,
    pub pod_ip: Option<Ipv4Addr>,
    /// The pod's own, or the node's for a pod on the host's network. `None` until it is set up.
    pub network: Option<Namespace>,
    pub containers: Vec<ContainerEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEntry {
    pub name: String,
    /// The newest run's id.
    pub id: Option<String>,
    pub attempt: u32,
    pub running: bool,
    /// The run whose end the status shows as the last one.
    pub previous: Option<u32>,
    /// Why there is no run yet, for whoever asks for its log.
    pub waiting: Option<String>,
}

/// Pods by namespace and name. Clones share it.
#[derive(Clone)]
pub struct Directory {
    entries: Arc<RwLock<BTreeMap<(String, String), PodEntry>>>,
    changes: watch::Sender<u64>,
}

impl Default for Directory {
    fn default() -> Self {
        Self { entries: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl Directory {
    pub fn get(&self, namespace: &str, name: &str) -> Option<PodEntry> {
        self.entries.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn list(&self) -> Vec<PodEntry> {
        self.entries.read().values().cloned().collect()
    }

    /// Fires when a pod came, went, or got another address.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn put(&self, namespace: &str, name: &str, entry: PodEntry) {
        let ip = entry.pod_ip;
        let old = self.entries.write().insert((namespace.to_owned(), name.to_owned()), entry);
        if old.is_none_or(|old| old.pod_ip != ip) {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Removes the entry unless another pod of the same name has taken its place.
    pub(super) fn remove(&self, namespace: &str, name: &str, uid: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries.write();
        if entries.get(&key).is_some_and(|entry| entry.pod.metadata.uid.as_deref() == Some(uid)) {
            entries.remove(&key);
            self.changes.send_modify(|changes| *changes += 1);
        }
    }
}
