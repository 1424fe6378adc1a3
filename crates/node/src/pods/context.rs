//! What all workers share.

use std::path::PathBuf;
use std::sync::Arc;

use container::runtime::Runtime;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Client;
use net::ipam::Allocator;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::directory::Directory;
use crate::cluster::{Cache, ObjectWatches};
use crate::config::NodeConfig;
use crate::env::FieldContext;
use crate::events::Recorder;
use crate::images::Images;
use crate::machine::Capacity;

/// Pods being set up or torn down at a time: each costs threads and disk, and the rest only waits.
const HEAVY_WORK_MAX: usize = 8;
/// Image pulls at a time.
const PULLS_MAX: usize = 4;

pub struct Context {
    pub config: NodeConfig,
    pub client: Client,
    /// Speaks as the one who makes services reachable.
    pub proxy: Client,
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<dyn Images>,
    pub events: Recorder,
    pub directory: Directory,
    pub services: Cache<Service>,
    pub addresses: Mutex<Allocator>,
    pub watches: ObjectWatches,
    pub capacity: Capacity,
    pub heavy: Semaphore,
    pub pulls: Semaphore,
}

impl Context {
    pub fn limits() -> (Semaphore, Semaphore) {
        (Semaphore::new(HEAVY_WORK_MAX), Semaphore::new(PULLS_MAX))
    }

    pub fn field_context(&self, pod_ip: Option<std::net::Ipv4Addr>) -> FieldContext {
        FieldContext {
            pod_ip: pod_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_ip: self.config.address.to_string(),
            node_name: self.config.name.clone(),
            allocatable_cpu_milli: self.capacity.cpu_milli,
            allocatable_memory_bytes: self.capacity.memory_bytes,
            allocatable_storage_bytes: self.capacity.storage_bytes,
        }
    }

    pub fn seccomp_dir(&self) -> PathBuf {
        self.config.data_dir.join("seccomp")
    }
}

/// The three names of a pod, which everything about it is keyed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodKey {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl PodKey {
    pub fn of(pod: &Pod) -> Self {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let meta = &pod.metadata;
        Self { namespace: text(&meta.namespace), name: text(&meta.name), uid: text(&meta.uid) }
    }
}

pub fn uses_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}
