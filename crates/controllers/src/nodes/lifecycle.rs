//! Nodes that fall silent: after a grace period their state is unknown, and taints keep pods away and drive them off.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::constants::taints;
use client::{Cache, Change, Controller, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::Patch;
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{self, Context, now};
use crate::{meta, pod};

pub const LEASE_NAMESPACE: &str = "kube-node-lease";
const GRACE_SECONDS: i64 = 40;
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
const DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
const PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";

/// Taints that are ours to put and take, and no one else's.
const OURS: [(&str, &str); 9] = [
    (taints::NOT_READY, "NoSchedule"),
    (taints::NOT_READY, "NoExecute"),
    (taints::UNREACHABLE, "NoSchedule"),
    (taints::UNREACHABLE, "NoExecute"),
    (taints::UNSCHEDULABLE, "NoSchedule"),
    (MEMORY_PRESSURE, "NoSchedule"),
    (DISK_PRESSURE, "NoSchedule"),
    (PID_PRESSURE, "NoSchedule"),
    (NETWORK_UNAVAILABLE, "NoSchedule"),
];

pub fn start(context: &Context) -> Vec<Controller> {
    let nodes = context.caches.of::<Node>();
    let leases = context.caches.of::<Lease>();
    let reconciler = Lifecycle {
        recorder: context.recorder("node-controller"),
        nodes: Arc::clone(&nodes),
        leases: Arc::clone(&leases),
        pods: context.caches.of(),
        heard: Mutex::default(),
        context: context.clone(),
    };
    let controller = Controller::new("nodelifecycle", reconciler)
        .owns_kind(&nodes)
        .watches(&leases, |change: &Change<Lease>| {
            let lease = change.object();
            let ours = lease.metadata.namespace.as_deref() == Some(LEASE_NAMESPACE);
            ours.then(|| Key::new("", meta::name(&lease.metadata))).into_iter().collect()
        })
        .watches(&context.caches.of::<Pod>(), |_| Vec::new());
    vec![controller]
}

struct Lifecycle {
    context: Context,
    nodes: Arc<Cache<Node>>,
    leases: Arc<Cache<Lease>>,
    pods: Arc<Cache<Pod>>,
    /// The last sign of life of each node and when it reached us: its clock may differ from ours.
    heard: Mutex<HashMap<String, (Option<Timestamp>, Timestamp)>>,
    recorder: Recorder,
}

/// What should change about a node.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    conditions: Option<Vec<NodeCondition>>,
    taints: Option<Vec<Taint>>,
    look_again: Option<Duration>,
}

fn plan(node: &Node, heard_at: Timestamp, now: Timestamp) -> Plan {
    let left = pod::remaining(heard_at, GRACE_SECONDS, now);
    let old = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut conditions = old.clone();
    if left.is_zero() {
        silence(&mut conditions, node, now);
    }
    let status = |type_: &str| conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.clone());
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match status("Ready").as_deref() {
        Some("True") => {}
        Some("Unknown") => {
            wanted.extend([(taints::UNREACHABLE, "NoSchedule"), (taints::UNREACHABLE, "NoExecute")])
        }
        _ => wanted.extend([(taints::NOT_READY, "NoSchedule"), (taints::NOT_READY, "NoExecute")]),
    }
    let pressures = [
        ("MemoryPressure", MEMORY_PRESSURE),
        ("DiskPressure", DISK_PRESSURE),
        ("PIDPressure", PID_PRESSURE),
        ("NetworkUnavailable", NETWORK_UNAVAILABLE),
    ];
    wanted.extend(
        pressures
            .iter()
            .filter(|(c, _)| status(c).as_deref() == Some("True"))
            .map(|(_, t)| (*t, "NoSchedule")),
    );
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((taints::UNSCHEDULABLE, "NoSchedule"));
    }
    Plan {
        taints: retaint(node, &wanted, now),
        conditions: (conditions != old).then_some(conditions),
        look_again: (!left.is_zero()).then_some(left + Duration::from_millis(10)),
    }
}

fn silence(conditions: &mut Vec<NodeCondition>, node: &Node, now: Timestamp) {
    for type_ in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
            }
            Some(_) => {}
            None => conditions.push(NodeCondition {
                type_: type_.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
}

/// The node's taints with ours as wanted; nothing if they are so already.
fn retaint(node: &Node, wanted: &[(&str, &str)], now: Timestamp) -> Option<Vec<Taint>> {
    let old = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let is = |t: &Taint, (key, effect): &(&str, &str)| t.key == *key && t.effect == *effect;
    let mut new: Vec<Taint> = old
        .iter()
        .filter(|t| !OURS.iter().any(|o| is(t, o)) || wanted.iter().any(|w| is(t, w)))
        .cloned()
        .collect();
    for want in wanted {
        if !new.iter().any(|t| is(t, want)) {
            // Evictions count from when the taint was put.
            let time_added = (want.1 == "NoExecute").then_some(Time(now));
            new.push(Taint { key: want.0.into(), effect: want.1.into(), value: None, time_added });
        }
    }
    (new != old).then_some(new)
}

impl Reconciler for Lifecycle {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(node) = self.nodes.get(&key) else {
                self.heard.lock().remove(&key.name);
                return Ok(Next::OnChange);
            };
            let heard_at = self.hear(&node, &key.name);
            let plan = plan(&node, heard_at, now());
            let api: Api<Node> = self.context.cluster_api();
            if let Some(conditions) = &plan.conditions {
                let patch = json!({ "metadata": { "resourceVersion": node.metadata.resource_version }, "status": { "conditions": conditions } });
                api.patch_status(&key.name, &context::params_patch(), &Patch::Merge(patch)).await?;
                self.recorder.record(
                    &*node,
                    Level::Normal,
                    "NodeNotReady",
                    format!("Node {} status is now: NodeNotReady", key.name),
                );
                self.mark_pods(&key.name).await?;
                // The new version brings us back for the taints.
                return Ok(Next::OnChange);
            }
            if let Some(taints) = &plan.taints {
                let patch = json!({ "metadata": { "resourceVersion": node.metadata.resource_version }, "spec": { "taints": taints } });
                api.patch(&key.name, &context::params_patch(), &Patch::Merge(patch)).await?;
            }
            Ok(plan.look_again.map_or(Next::OnChange, Next::After))
        })
    }
}

impl Lifecycle {
    /// When the node's latest sign of life reached us.
    fn hear(&self, node: &Node, name: &str) -> Timestamp {
        let lease = self.leases.get(&Key::new(LEASE_NAMESPACE, name));
        let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref().map(|t| t.0));
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = conditions.into_iter().find(|c| c.type_ == "Ready" && c.status != "Unknown");
        let beat = ready.and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
        let sign = renewed.max(beat);
        let mut heard = self.heard.lock();
        let entry = heard.entry(name.to_owned()).or_insert((sign, now()));
        if entry.0 != sign && sign > entry.0 {
            *entry = (sign, now());
        }
        entry.1
    }

    /// Nobody answers for the pods of a silent node: services must stop sending to them.
    async fn mark_pods(&self, node: &str) -> Result<(), kube::Error> {
        let pods = self.pods.all().into_iter();
        for pod in pods.filter(|p| pod::node_name(p) == Some(node) && pod::is_ready(p)) {
            let condition = json!({ "type": "Ready", "status": "False", "reason": "NodeNotReady",
                "lastTransitionTime": base::time::rfc3339_seconds(now()) });
            let patch =
                json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
            let api: Api<Pod> = self.context.api(meta::namespace(&pod.metadata));
            let name = meta::name(&pod.metadata);
            context::ignore_missing(
                api.patch_status(name, &context::params_patch(), &Patch::Strategic(patch)).await,
            )?;
            self.recorder.record(&*pod, Level::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn node(ready: &str) -> Node {
        let mut node = Node::default();
        let condition = NodeCondition { type_: "Ready".into(), status: ready.into(), ..Default::default() };
        node.status.get_or_insert_default().conditions = Some(vec![condition]);
        node
    }

    fn keys(plan: &Plan) -> Vec<(String, String)> {
        plan.taints.iter().flatten().map(|t| (t.key.clone(), t.effect.clone())).collect()
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_is_left() {
        let fresh = plan(&node("True"), at(0), at(39));
        assert_eq!((fresh.conditions.is_none(), fresh.taints.is_none()), (true, true));
        assert!(fresh.look_again.is_some());
        let silent = plan(&node("True"), at(0), at(40));
        let conditions = silent.conditions.clone().expect("changed");
        assert!(conditions.iter().all(|c| c.status == "Unknown") && conditions.len() == 4);
        let unreachable = |effect: &str| (taints::UNREACHABLE.to_owned(), effect.to_owned());
        assert_eq!(keys(&silent), [unreachable("NoSchedule"), unreachable("NoExecute")]);
        assert_eq!(silent.look_again, None);
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let mut back = node("True");
        let taint =
            |key: &str, effect: &str| Taint { key: key.into(), effect: effect.into(), ..Default::default() };
        back.spec.get_or_insert_default().taints =
            Some(vec![taint(taints::UNREACHABLE, "NoExecute"), taint("mine", "NoSchedule")]);
        assert_eq!(keys(&plan(&back, at(0), at(1))), [("mine".to_owned(), "NoSchedule".to_owned())]);
        let not_ready = plan(&node("False"), at(0), at(1));
        assert_eq!(keys(&not_ready).len(), 2);
        let mut cordoned = node("True");
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        assert_eq!(keys(&plan(&cordoned, at(0), at(1)))[0].0, taints::UNSCHEDULABLE);
    }
}
