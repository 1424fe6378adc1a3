//! Which node has to do with which object: kept up to date one object at a time, asked in constant time. Pure.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};

use super::references::{self, Kind, Name};

/// What a pod gave to its node.
struct Held {
    node: String,
    of: Vec<(Kind, String)>,
}

struct Bound {
    claim: Option<Name>,
    secrets: Vec<Name>,
}

#[derive(Default)]
pub struct Graph {
    pods: HashMap<Name, Held>,
    /// How many pods of each node refer to an object.
    uses: HashMap<(Kind, String, String), HashMap<String, usize>>,
    volumes: HashMap<String, Bound>,
    /// The volumes that need a secret.
    by_secret: HashMap<Name, HashSet<String>>,
    /// What belongs to a node by itself: attachments and slices, by resource and name.
    own: HashMap<(&'static str, String), String>,
}

impl Graph {
    pub fn set_pod(&mut self, pod: &Pod) {
        let meta = &pod.metadata;
        let name = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        self.remove_pod(&name.0, &name.1);
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
        let Some(node) = node else { return };
        // Nodes make mirror pods themselves: what those name is no reason to show it to them.
        let is_mirror =
            meta.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"));
        let of: Vec<(Kind, String)> = match is_mirror {
            true => Vec::new(),
            false => references::of(pod).into_iter().map(|r| (r.kind, r.name)).collect(),
        };
        for (kind, object) in &of {
            let nodes = self.uses.entry((*kind, name.0.clone(), object.clone())).or_default();
            *nodes.entry(node.clone()).or_default() += 1;
        }
        self.pods.insert(name, Held { node, of });
    }

    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let Some(held) = self.pods.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        for (kind, object) in held.of {
            let key = (kind, namespace.to_owned(), object);
            let Some(nodes) = self.uses.get_mut(&key) else { continue };
            if let Some(count) = nodes.get_mut(&held.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&held.node);
                }
            }
            if nodes.is_empty() {
                self.uses.remove(&key);
            }
        }
    }

    pub fn set_volume(&mut self, volume: &PersistentVolume) {
        let name = volume.metadata.name.clone().unwrap_or_default();
        self.remove_volume(&name);
        let (claim, secrets) = references::of_volume(volume);
        for secret in &secrets {
            self.by_secret.entry(secret.clone()).or_default().insert(name.clone());
        }
        self.volumes.insert(name, Bound { claim, secrets });
    }

    pub fn remove_volume(&mut self, name: &str) {
        for secret in self.volumes.remove(name).into_iter().flat_map(|v| v.secrets) {
            if let Some(volumes) = self.by_secret.get_mut(&secret) {
                volumes.remove(name);
                if volumes.is_empty() {
                    self.by_secret.remove(&secret);
                }
            }
        }
    }

    pub fn set_own(&mut self, resource: &'static str, name: &str, node: Option<&str>) {
        let key = (resource, name.to_owned());
        match node.filter(|n| !n.is_empty()) {
            Some(node) => drop(self.own.insert(key, node.to_owned())),
            None => drop(self.own.remove(&key)),
        }
    }

    pub fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        let held = self.pods.get(&(namespace.to_owned(), name.to_owned()));
        held.is_some_and(|held| held.node == node)
    }

    pub fn has_own(&self, node: &str, resource: &'static str, name: &str) -> bool {
        self.own.get(&(resource, name.to_owned())).is_some_and(|held| held == node)
    }

    /// Whether a pod of the node refers to an object, or to the claim of a volume that needs it.
    pub fn uses(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let direct = self.uses.get(&(kind, namespace.to_owned(), name.to_owned()));
        if direct.is_some_and(|nodes| nodes.contains_key(node)) {
            return true;
        }
        let volumes = match kind {
            Kind::Secret => self.by_secret.get(&(namespace.to_owned(), name.to_owned())),
            _ => None,
        };
        volumes.into_iter().flatten().any(|volume| self.uses_volume(node, volume))
    }

    pub fn uses_volume(&self, node: &str, volume: &str) -> bool {
        let claim = self.volumes.get(volume).and_then(|v| v.claim.as_ref());
        claim.is_some_and(|(namespace, name)| self.uses(node, Kind::Claim, namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, node: &str, spec: Value) -> Pod {
        let mut pod = json!({"metadata": {"namespace": "a", "name": name}, "spec": {"containers": []}});
        for (field, value) in spec.as_object().expect("fields") {
            pod["spec"][field] = value.clone();
        }
        pod["spec"]["nodeName"] = node.into();
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_node_has_to_do_with_what_its_pods_name_for_as_long_as_they_are_there() {
        let mut graph = Graph::default();
        let secret =
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}], "serviceAccountName": "sa"});
        graph.set_pod(&pod("p", "n1", secret.clone()));
        graph.set_pod(&pod("q", "n1", secret.clone()));
        let sees = |graph: &Graph, node: &str| graph.uses(node, Kind::Secret, "a", "s");
        assert!(sees(&graph, "n1") && graph.uses("n1", Kind::ServiceAccount, "a", "sa"));
        assert!(!sees(&graph, "n2"), "another node");
        assert!(!graph.uses("n1", Kind::Secret, "b", "s"), "another namespace");
        assert!(!graph.uses("n1", Kind::ConfigMap, "a", "s"), "another kind");
        graph.remove_pod("a", "p");
        assert!(sees(&graph, "n1"), "the other pod is still there");
        graph.set_pod(&pod("q", "n1", json!({})));
        assert!(!sees(&graph, "n1"), "it names it no longer");
        graph.set_pod(&pod("r", "", secret));
        assert!(graph.uses.is_empty(), "it is on no node");
    }

    #[test]
    fn a_volume_and_its_secrets_are_seen_through_the_claim() {
        let mut graph = Graph::default();
        let volume = json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "a", "name": "c"},
            "csi": {"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": {"namespace": "x", "name": "key"}}}});
        graph.set_volume(&serde_json::from_value(volume).expect("a volume"));
        assert!(!graph.uses_volume("n1", "pv"));
        graph.set_pod(&pod(
            "p",
            "n1",
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
        ));
        assert!(graph.uses_volume("n1", "pv") && graph.uses("n1", Kind::Secret, "x", "key"));
        graph.remove_volume("pv");
        assert!(!graph.uses_volume("n1", "pv") && !graph.uses("n1", Kind::Secret, "x", "key"));
    }

    #[test]
    fn mirror_pods_show_their_node_nothing() {
        let mut graph = Graph::default();
        let mut mirror = pod("p", "n1", json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}));
        mirror.metadata.annotations =
            Some([("kubernetes.io/config.mirror".to_owned(), "x".to_owned())].into());
        graph.set_pod(&mirror);
        assert!(graph.has_pod("n1", "a", "p") && !graph.uses("n1", Kind::Secret, "a", "s"));
    }
}
