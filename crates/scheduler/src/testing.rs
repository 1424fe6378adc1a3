//! Pods, nodes and volumes for table tests, spelled in one line.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, Container, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodAffinity, PodAffinityTerm,
    PodAntiAffinity, ResourceRequirements, Taint,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::matching::NamespaceLabels;
use crate::volumes::Volumes;

pub fn container(cpu: &str, memory: &str) -> Container {
    let requests = [("cpu", cpu), ("memory", memory)].map(|(n, q)| (n.to_owned(), Quantity(q.to_owned())));
    let resources = ResourceRequirements { requests: Some(requests.into()), ..Default::default() };
    Container { resources: Some(resources), ..Default::default() }
}

pub struct PodBuilder(pub Pod);

pub fn pod(name: &str) -> PodBuilder {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.into());
    pod.metadata.namespace = Some("ns".into());
    pod.metadata.uid = Some(format!("uid-{name}"));
    pod.spec.get_or_insert_default().containers = vec![Container::default()];
    PodBuilder(pod)
}

impl PodBuilder {
    pub fn cpu(mut self, cpu: &str) -> Self {
        self.0.spec.get_or_insert_default().containers = vec![container(cpu, "0")];
        self
    }

    pub fn priority(mut self, priority: i32) -> Self {
        self.0.spec.get_or_insert_default().priority = Some(priority);
        self
    }

    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.labels.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Pod)) -> Self {
        change(&mut self.0);
        self
    }

    pub fn near(self, key: &str, value: &str, topology: &str) -> Self {
        let terms = Some(vec![pod_term(key, value, topology)]);
        let near =
            PodAffinity { required_during_scheduling_ignored_during_execution: terms, ..Default::default() };
        self.with(|pod| affinity(pod).pod_affinity = Some(near))
    }

    pub fn apart(self, key: &str, value: &str, topology: &str) -> Self {
        let terms = Some(vec![pod_term(key, value, topology)]);
        let apart = PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: terms,
            ..Default::default()
        };
        self.with(|pod| affinity(pod).pod_anti_affinity = Some(apart))
    }

    pub fn arc(self) -> Arc<Pod> {
        Arc::new(self.0)
    }
}

fn affinity(pod: &mut Pod) -> &mut Affinity {
    pod.spec.get_or_insert_default().affinity.get_or_insert_default()
}

pub fn label_selector(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(key.to_owned(), value.to_owned())].into()), ..Default::default() }
}

fn pod_term(key: &str, value: &str, topology: &str) -> PodAffinityTerm {
    PodAffinityTerm {
        label_selector: Some(label_selector(key, value)),
        topology_key: topology.into(),
        ..Default::default()
    }
}

pub struct NodeBuilder(pub Node);

/// One core, ten pods, labelled with its name.
pub fn node(name: &str) -> NodeBuilder {
    let mut node = Node::default();
    node.metadata.name = Some(name.into());
    let list = [("cpu", "1"), ("memory", "1Gi"), ("pods", "10")]
        .map(|(n, q)| (n.to_owned(), Quantity(q.to_owned())));
    node.status.get_or_insert_default().allocatable = Some(list.into());
    NodeBuilder(node).labelled("kubernetes.io/hostname", name)
}

impl NodeBuilder {
    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.labels.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    pub fn tainted(mut self, key: &str, value: &str, effect: &str) -> Self {
        let taint =
            Taint { key: key.into(), value: Some(value.into()), effect: effect.into(), time_added: None };
        self.0.spec.get_or_insert_default().taints.get_or_insert_default().push(taint);
        self
    }

    pub fn cordoned(mut self) -> Self {
        self.0.spec.get_or_insert_default().unschedulable = Some(true);
        self
    }

    pub fn arc(self) -> Arc<Node> {
        Arc::new(self.0)
    }
}

/// What filters look up beside nodes and pods.
#[derive(Default)]
pub struct World {
    pub claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    pub classes: BTreeMap<String, Arc<StorageClass>>,
}

impl NamespaceLabels for World {
    fn namespace_labels(&self, _name: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

impl Volumes for World {
    fn claim(&self, _namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(name).cloned()
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get(name).cloned()
    }

    fn all_volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.values().cloned().collect()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get(name).cloned()
    }
}
