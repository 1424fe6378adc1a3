//! The cluster as the scheduler sees it, kept up to date change by change: each node with its pods and what they
//! take. Pods that were just given a node count there before the API shows it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use crate::resources::{Resources, allocatable, pod_requests, pod_weight};

/// A pod with what is asked of it again and again.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub requests: Resources,
    pub weight: (i64, i64),
    pub ports: Vec<HostPort>,
    pub has_anti_affinity: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    pub fn collides(&self, other: &Self) -> bool {
        let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.as_ref();
        let affinity = spec.and_then(|s| s.affinity.as_ref()).and_then(|a| a.pod_anti_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            requests: pod_requests(&pod),
            weight: pod_weight(&pod),
            ports: host_ports(&pod),
            has_anti_affinity: required.is_some_and(|terms| !terms.is_empty()),
            pod,
        }
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub fn priority(&self) -> i32 {
        self.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
    }

    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.pod.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    pub fn is_deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let on_host = spec.host_network == Some(true);
    let wanted = ports.filter_map(|p| {
        let port = p.host_port.filter(|port| *port > 0).or(on_host.then_some(p.container_port))?;
        Some(HostPort {
            ip: p.host_ip.clone().unwrap_or_default(),
            protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()),
            port,
        })
    });
    wanted.collect()
}

/// A node and what is on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub allocatable: Resources,
    pub max_pods: i64,
    pub requested: Resources,
    pub weight: (i64, i64),
    pub pods: Vec<Arc<PodInfo>>,
}

impl NodeInfo {
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    pub fn taints(&self) -> impl Iterator<Item = &Taint> {
        self.node.spec.iter().flat_map(|s| s.taints.iter().flatten())
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.weight = (self.weight.0 + pod.weight.0, self.weight.1 + pod.weight.1);
        self.pods.push(pod);
    }

    pub fn remove(&mut self, uid: &str) {
        if let Some(at) = self.pods.iter().position(|p| p.uid() == uid) {
            let pod = self.pods.swap_remove(at);
            self.requested.subtract(&pod.requests);
            self.weight = (self.weight.0 - pod.weight.0, self.weight.1 - pod.weight.1);
        }
    }

    fn set_node(&mut self, node: Arc<Node>) {
        (self.allocatable, self.max_pods) = allocatable(&node);
        self.node = node;
    }
}

#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Pods on nodes that are not (or no longer) known.
    strays: HashMap<String, Vec<Arc<PodInfo>>>,
    /// Uid → node, for every pod that has one.
    placed: HashMap<String, String>,
    /// Uids of those whose node only we know yet.
    assumed: HashMap<String, String>,
    /// Pods that victims made room for, by node.
    nominated: HashMap<String, Vec<Arc<PodInfo>>>,
}

impl Snapshot {
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> + Clone {
        self.nodes.values()
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = self.nodes.entry(name.clone()).or_default();
        info.set_node(node);
        for pod in self.strays.remove(&name).into_iter().flatten() {
            info.add(pod);
        }
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.remove(name)
            && !info.pods.is_empty()
        {
            self.strays.insert(name.to_owned(), info.pods);
        }
    }

    /// A pod as the API shows it, with a node and not ended.
    pub fn set_pod(&mut self, pod: Arc<Pod>, node: &str) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.remove_pod(&uid);
        self.place(Arc::new(PodInfo::new(pod)), node);
    }

    /// Counts a pod on a node until the API shows it there, or it is forgotten.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        let uid = pod.uid().to_owned();
        self.remove_pod(&uid);
        self.assumed.insert(uid, node.to_owned());
        self.place(pod, node);
    }

    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains_key(uid)
    }

    /// Takes back an assumption that did not come true.
    pub fn forget(&mut self, uid: &str) {
        if self.assumed.contains_key(uid) {
            self.remove_pod(uid);
        }
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.placed.insert(pod.uid().to_owned(), node.to_owned());
        match self.nodes.get_mut(node) {
            Some(info) => info.add(pod),
            None => self.strays.entry(node.to_owned()).or_default().push(pod),
        }
    }

    /// True if it had a place.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        self.assumed.remove(uid);
        self.clear_nomination(uid);
        let Some(node) = self.placed.remove(uid) else { return false };
        if let Some(info) = self.nodes.get_mut(&node) {
            info.remove(uid);
        }
        if let Some(strays) = self.strays.get_mut(&node) {
            strays.retain(|p| p.uid() != uid);
            if strays.is_empty() {
                self.strays.remove(&node);
            }
        }
        true
    }

    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.clear_nomination(pod.uid());
        self.nominated.entry(node.to_owned()).or_default().push(pod);
    }

    pub fn clear_nomination(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|p| p.uid() != uid);
            !pods.is_empty()
        });
    }

    /// Pods at least as important as `pod` that wait for room on a node.
    pub fn nominated_before(&self, node: &str, pod: &PodInfo) -> Vec<Arc<PodInfo>> {
        let there = self.nominated.get(node).into_iter().flatten();
        there.filter(|p| p.uid() != pod.uid() && p.priority() >= pod.priority()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn sums_follow_pods_nodes_and_assumptions() {
        let mut snapshot = Snapshot::default();
        let a = pod("a").cpu("300m").arc();
        snapshot.set_pod(Arc::clone(&a), "n1");
        snapshot.set_node(node("n1").arc());
        let cpu = |s: &Snapshot| s.node("n1").map(|n| n.requested.milli_cpu);
        assert_eq!(cpu(&snapshot), Some(300));
        let b = pod("b").cpu("200m").arc();
        snapshot.assume(Arc::new(PodInfo::new(Arc::clone(&b))), "n1");
        assert_eq!(cpu(&snapshot), Some(500));
        snapshot.set_pod(b, "n1");
        snapshot.forget("uid-b");
        assert_eq!(cpu(&snapshot), Some(500), "it is no longer an assumption");
        snapshot.remove_node("n1");
        snapshot.remove_pod("uid-a");
        snapshot.set_node(node("n1").arc());
        assert_eq!(cpu(&snapshot), Some(200));
    }
}
