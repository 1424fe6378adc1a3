//! Volumes and places: a bound volume says where its pod can go; a claim that waits for its first consumer is given a
//! place by the pod's.

use std::sync::Arc;

use api::quantity::Quantity as Amount;
use api::selector::Selector;
use base::constants::annotations;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::matching::node_selected;
use crate::snapshot::NodeInfo;

const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Where claims, volumes and classes are looked up.
pub trait Volumes {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>>;
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    fn all_volumes(&self) -> Vec<Arc<PersistentVolume>>;
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
}

/// The claims of a pod, by what they ask of a node.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    bound: Vec<Arc<PersistentVolume>>,
    waiting: Vec<(Arc<PersistentVolumeClaim>, Option<Arc<StorageClass>>)>,
    /// Volumes that a waiting claim could take.
    free: Vec<Arc<PersistentVolume>>,
}

/// What is to be done for a waiting claim before its pod is bound to a node.
#[derive(Clone, Debug)]
pub enum Need {
    /// A volume that exists is to be reserved for the claim.
    Reserve { claim: Arc<PersistentVolumeClaim>, volume: Arc<PersistentVolume> },
    /// The provisioner is to make one on this node.
    Provision(Arc<PersistentVolumeClaim>),
}

pub const CONFLICT: &str = "node(s) had volume node affinity conflict";
pub const NONE_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";

/// The names of the claims of a pod, and whether each is made for this pod alone.
pub fn claim_names(pod: &Pod) -> Vec<(String, bool)> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| {
        if let Some(source) = &volume.persistent_volume_claim {
            return Some((source.claim_name.clone(), false));
        }
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        volume.ephemeral.is_some().then(|| (format!("{pod}-{}", volume.name), true))
    });
    names.collect()
}

pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    let notes = claim.metadata.annotations.as_ref();
    !volume.is_empty() && notes.is_some_and(|a| a.contains_key(annotations::BIND_COMPLETED))
}

pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(annotations::SELECTED_NODE).map(String::as_str)
}

/// Sorts a pod's claims. An error is a reason against every node.
pub fn claims(pod: &Pod, lookup: &dyn Volumes) -> Result<Claims, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut claims = Claims::default();
    for (name, own) in claim_names(pod) {
        let Some(claim) = lookup.claim(namespace, &name) else {
            let text = if own {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                )
            } else {
                format!("persistentvolumeclaim \"{name}\" not found")
            };
            return Err(text);
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let spec = claim.spec.clone().unwrap_or_default();
        if is_bound(&claim) {
            let volume = spec.volume_name.unwrap_or_default();
            match lookup.volume(&volume) {
                Some(volume) => claims.bound.push(volume),
                None => {
                    return Err(format!(
                        "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s): \"{volume}\""
                    ));
                }
            }
            continue;
        }
        let class = spec.storage_class_name.filter(|c| !c.is_empty()).and_then(|name| lookup.class(&name));
        let waits =
            class.as_ref().is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
        if !waits || spec.volume_name.is_some_and(|v| !v.is_empty()) {
            return Err("pod has unbound immediate PersistentVolumeClaims".into());
        }
        claims.waiting.push((claim, class));
    }
    if !claims.waiting.is_empty() {
        claims.free = lookup.all_volumes();
    }
    Ok(claims)
}

impl Claims {
    /// What taking this node would need, or why it cannot be taken.
    pub fn on(&self, node: &NodeInfo) -> Result<Vec<Need>, &'static str> {
        if !self.bound.iter().all(|volume| reachable(volume, node)) {
            return Err(CONFLICT);
        }
        let mut needs = Vec::new();
        let mut taken: Vec<&str> = Vec::new();
        for (claim, class) in &self.waiting {
            if selected_node(claim).is_some_and(|selected| selected != node.name()) {
                return Err(NONE_TO_BIND);
            }
            let mut fitting: Vec<_> =
                self.free.iter().filter(|v| fits(v, claim) && reachable(v, node)).collect();
            fitting.retain(|v| !taken.contains(&v.metadata.name.as_deref().unwrap_or_default()));
            fitting.sort_by_key(|volume| capacity(volume));
            if let Some(volume) = fitting.first() {
                taken.push(volume.metadata.name.as_deref().unwrap_or_default());
                needs.push(Need::Reserve { claim: Arc::clone(claim), volume: Arc::clone(volume) });
                continue;
            }
            let provisionable =
                class.as_ref().is_some_and(|c| c.provisioner != NO_PROVISIONER && allows(c, node));
            if !provisionable {
                return Err(NONE_TO_BIND);
            }
            needs.push(Need::Provision(Arc::clone(claim)));
        }
        Ok(needs)
    }
}

fn reachable(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    affinity.and_then(|a| a.required.as_ref()).is_none_or(|required| node_selected(required, node))
}

fn allows(class: &StorageClass, node: &NodeInfo) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let holds = |term: &k8s_openapi::api::core::v1::TopologySelectorTerm| {
        let mut all = term.match_label_expressions.iter().flatten();
        all.all(|e| node.label(&e.key).is_some_and(|v| e.values.iter().any(|w| w == v)))
    };
    terms.is_empty() || terms.iter().any(holds)
}

fn bytes(quantity: Option<&Quantity>) -> i64 {
    quantity.and_then(|q| Amount::parse(&q.0).ok()).map_or(0, |amount| amount.to_i64())
}

fn capacity(volume: &PersistentVolume) -> i64 {
    bytes(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage")))
}

/// Whether a free volume satisfies a claim.
fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let reserved = has.claim_ref.as_ref();
    let free = reserved.is_none_or(|r| {
        r.name == claim.metadata.name
            && r.namespace == claim.metadata.namespace
            && (r.uid.is_none() || r.uid == claim.metadata.uid)
    });
    let class = |name: &Option<String>| name.clone().unwrap_or_default();
    let mode = |name: &Option<String>| name.clone().unwrap_or_else(|| "Filesystem".into());
    let modes = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let selector =
        wants.selector.as_ref().map(|s| Selector::from_object(s).unwrap_or_else(|_| Selector::nothing()));
    let asked = wants.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
    free && volume.metadata.deletion_timestamp.is_none()
        && class(&has.storage_class_name) == class(&wants.storage_class_name)
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && modes(&wants.access_modes).iter().all(|m| modes(&has.access_modes).contains(m))
        && selector.is_none_or(|s| s.matches(&volume.metadata.labels.clone().unwrap_or_default()))
        && capacity(volume) >= bytes(asked)
}
