//! Which nodes a pod can go to. Each filter is a question about one node; the table runs them in order and keeps the
//! first objection, in the words that users of kubectl know.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use api::selector::Selector;
use base::constants::taints;
use k8s_openapi::api::core::v1::{Taint, TopologySpreadConstraint};

use crate::matching::{
    NamespaceLabels, PodTerm, tolerates, tolerations, untolerated, wants_node, with_label_keys,
};
use crate::snapshot::{NodeInfo, PodInfo};
use crate::volumes::{self, Claims, Volumes};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Plugin {
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeBinding,
    PodTopologySpread,
    InterPodAffinity,
}

/// Why a node cannot take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub plugin: Plugin,
    pub reasons: Vec<String>,
    /// Whether removing pods from the node could help.
    pub preemption_helps: bool,
}

/// What filters may look up beside nodes and pods.
pub trait Lookup: Volumes + NamespaceLabels {}
impl<T: Volumes + NamespaceLabels> Lookup for T {}

/// What is worked out once for a pod, before its nodes are looked at one by one.
pub struct Cycle {
    pub pod: Arc<PodInfo>,
    pub claims: Claims,
    affinity: Vec<Near>,
    anti_affinity: Vec<Near>,
    /// Topologies that pods which are there want to have without this one.
    forbidden: HashSet<(String, String)>,
    spread: Vec<Spread>,
}

/// A term about other pods, and the values of its topology where such pods are.
struct Near {
    term: PodTerm,
    values: HashSet<String>,
    matches_itself: bool,
}

struct Spread {
    constraint: TopologySpreadConstraint,
    counts: HashMap<String, i32>,
    fewest: i32,
    counts_itself: bool,
}

type Filter = fn(&Cycle, &NodeInfo) -> Result<(), Rejection>;

const FILTERS: &[Filter] = &[
    node_unschedulable,
    node_name,
    taint_toleration,
    node_affinity,
    node_ports,
    node_resources_fit,
    volume_binding,
    pod_topology_spread,
    inter_pod_affinity,
];

impl Cycle {
    /// An error is a reason against every node.
    pub fn new<'a>(
        pod: &Arc<PodInfo>,
        nodes: impl Iterator<Item = &'a NodeInfo> + Clone,
        lookup: &dyn Lookup,
    ) -> Result<Self, Rejection> {
        let claims = volumes::claims(&pod.pod, lookup)
            .map_err(|reason| rejection(Plugin::VolumeBinding, reason, false))?;
        let affinity = pod.pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
        let near = affinity.and_then(|a| a.pod_affinity.as_ref());
        let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let near = near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref());
        let apart = apart.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref());
        let prepare = |terms: Option<&[_]>| {
            let terms = terms.unwrap_or_default().iter().map(|term| PodTerm::new(term, pod));
            terms.map(|term| near_of(term, pod, nodes.clone(), lookup)).collect()
        };
        Ok(Self {
            claims,
            affinity: prepare(near),
            anti_affinity: prepare(apart),
            forbidden: forbidden(pod, nodes.clone(), lookup),
            spread: spread(pod, nodes, "DoNotSchedule"),
            pod: Arc::clone(pod),
        })
    }

    pub fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        FILTERS.iter().try_for_each(|filter| filter(self, node))
    }
}

fn rejection(plugin: Plugin, reason: impl Into<String>, preemption_helps: bool) -> Rejection {
    Rejection { plugin, reasons: vec![reason.into()], preemption_helps }
}

fn check(fine: bool, plugin: Plugin, reason: &str, preemption_helps: bool) -> Result<(), Rejection> {
    if fine { Ok(()) } else { Err(rejection(plugin, reason, preemption_helps)) }
}

fn node_unschedulable(cycle: &Cycle, node: &NodeInfo) -> Result<(), Rejection> {
    let cordoned = node.node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
    let taint = Taint {
        key: taints::UNSCHEDULABLE.into(),
        effect: "NoSchedule".into(),
        value: None,
        time_added: None,
    };
    let tolerated = || tolerations(&cycle.pod.pod).iter().any(|t| tolerates(t, &taint));
    check(!cordoned || tolerated(), Plugin::NodeUnschedulable, "node(s) were unschedulable", false)
}

fn node_name(cycle: &Cycle, node: &NodeInfo) -> Result<(), Rejection> {
    let asked = cycle.pod.pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty());
    let fine = asked.is_none_or(|name| name == node.name());
    check(fine, Plugin::NodeName, "node(s) didn't match the requested node name", false)
}

fn taint_toleration(cycle: &Cycle, node: &NodeInfo) -> Result<(), Rejection> {
    match untolerated(&cycle.pod.pod, node, &["NoSchedule", "NoExecute"]) {
        None => Ok(()),
        Some(taint) => {
            let value = taint.value.as_deref().unwrap_or_default();
            let reason = format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
            Err(rejection(Plugin::TaintToleration, reason, false))
        }
    }
}

fn node_affinity(cycle: &Cycle, node: &NodeInfo) -> Result<(), Rejection> {
    let fine = wants_node(&cycle.pod.pod, node);
    check(fine, Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector", false)
}

fn node_ports(cycle: &Cycle, node: &NodeInfo) -> Result<(), Rejection> {
    let mut used = node.pods.iter().flat_map(|p| &p.ports);
    let fine = cycle.pod.ports.is_empty() || !used.any(|u| cycle.pod.ports.iter().any(|p| p.collides(u)));
    check(fine, Plugin::NodePorts, "node(s) didn't have free ports for the requested pod ports", true)
}

fn node_resources_fit(cycle: &Cycle, node: &NodeInfo) -> Result<(), Rejection> {
    let mut reasons = Vec::new();
    let mut preemption_helps = true;
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) + 1 > node.max_pods {
        reasons.push("Too many pods".to_owned());
    }
    for (name, asked) in cycle.pod.requests.named() {
        if asked > node.allocatable.get(name) - node.requested.get(name) {
            reasons.push(format!("Insufficient {name}"));
            // An empty node would not do either.
            preemption_helps &= asked <= node.allocatable.get(name);
        }
    }
    match reasons.is_empty() {
        true => Ok(()),
        false => Err(Rejection { plugin: Plugin::NodeResourcesFit, reasons, preemption_helps }),
    }
}

fn volume_binding(cycle: &Cycle, node: &NodeInfo) -> Result<(), Rejection> {
    let needs = cycle.claims.on(node);
    needs.map(drop).map_err(|reason| rejection(Plugin::VolumeBinding, reason, false))
}

fn near_of<'a>(
    term: PodTerm,
    pod: &PodInfo,
    nodes: impl Iterator<Item = &'a NodeInfo>,
    lookup: &dyn Lookup,
) -> Near {
    let with =
        nodes.filter(|n| n.pods.iter().any(|p| !p.is_deleting() && term.matches(p, namespaces(lookup))));
    let values = with.filter_map(|n| n.label(&term.topology_key).map(str::to_owned)).collect();
    Near { matches_itself: term.matches(pod, namespaces(lookup)), values, term }
}

fn namespaces(lookup: &dyn Lookup) -> &dyn NamespaceLabels {
    lookup
}

fn forbidden<'a>(
    pod: &PodInfo,
    nodes: impl Iterator<Item = &'a NodeInfo>,
    lookup: &dyn Lookup,
) -> HashSet<(String, String)> {
    let mut forbidden = HashSet::new();
    for node in nodes {
        for other in node.pods.iter().filter(|p| p.has_anti_affinity) {
            let affinity = other.pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
            let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
            let terms = apart.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref());
            for term in terms.unwrap_or_default() {
                let Some(value) = node.label(&term.topology_key) else { continue };
                if PodTerm::new(term, other).matches(pod, namespaces(lookup)) {
                    forbidden.insert((term.topology_key.clone(), value.to_owned()));
                }
            }
        }
    }
    forbidden
}

fn inter_pod_affinity(cycle: &Cycle, node: &NodeInfo) -> Result<(), Rejection> {
    let plugin = Plugin::InterPodAffinity;
    // The first of a group that wants to be together finds nobody, and may go anywhere that has the topology.
    let first = cycle.affinity.iter().all(|near| near.values.is_empty() && near.matches_itself);
    let with = cycle.affinity.iter().all(|near| {
        let value = node.label(&near.term.topology_key);
        value.is_some_and(|value| first || near.values.contains(value))
    });
    check(with, plugin, "node(s) didn't match pod affinity rules", false)?;
    let without = cycle
        .anti_affinity
        .iter()
        .all(|near| node.label(&near.term.topology_key).is_none_or(|value| !near.values.contains(value)));
    check(without, plugin, "node(s) didn't match pod anti-affinity rules", true)?;
    let allowed = !cycle.forbidden.iter().any(|(key, value)| node.label(key) == Some(value));
    check(allowed, plugin, "node(s) didn't satisfy existing pods anti-affinity rules", true)
}

fn spread<'a>(pod: &PodInfo, nodes: impl Iterator<Item = &'a NodeInfo> + Clone, when: &str) -> Vec<Spread> {
    let all = pod.pod.spec.iter().flat_map(|s| s.topology_spread_constraints.iter().flatten());
    let all: Vec<&TopologySpreadConstraint> = all.filter(|c| c.when_unsatisfiable == when).collect();
    let has_all_keys = |node: &NodeInfo| all.iter().all(|c| node.label(&c.topology_key).is_some());
    let one = |constraint: &&TopologySpreadConstraint| {
        let selector = with_label_keys(
            constraint.label_selector.as_ref(),
            constraint.match_label_keys.as_deref(),
            pod.labels(),
        );
        let selector = Selector::from_optional(selector.as_ref()).unwrap_or_else(|_| Selector::nothing());
        let mut counts: HashMap<String, i32> = HashMap::new();
        for node in nodes.clone().filter(|n| has_all_keys(n) && counts_for(constraint, pod, n)) {
            let Some(value) = node.label(&constraint.topology_key) else { continue };
            let mates = node.pods.iter().filter(|p| {
                !p.is_deleting() && p.namespace() == pod.namespace() && selector.matches(p.labels())
            });
            *counts.entry(value.to_owned()).or_default() += i32::try_from(mates.count()).unwrap_or(i32::MAX);
        }
        let enough = i32::try_from(counts.len()).unwrap_or(i32::MAX) >= constraint.min_domains.unwrap_or(1);
        let fewest = if enough { counts.values().copied().min().unwrap_or(0) } else { 0 };
        let counts_itself = selector.matches(pod.labels());
        Spread { constraint: (*constraint).clone(), counts, fewest, counts_itself }
    };
    all.iter().map(one).collect()
}

/// Whether a node's pods count, by the constraint's policies.
fn counts_for(constraint: &TopologySpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    let affinity = constraint.node_affinity_policy.as_deref() == Some("Ignore") || wants_node(&pod.pod, node);
    let taints = constraint.node_taints_policy.as_deref() != Some("Honor")
        || untolerated(&pod.pod, node, &["NoSchedule", "NoExecute"]).is_none();
    affinity && taints
}

fn pod_topology_spread(cycle: &Cycle, node: &NodeInfo) -> Result<(), Rejection> {
    let (plugin, reason) =
        (Plugin::PodTopologySpread, "node(s) didn't match pod topology spread constraints");
    for spread in &cycle.spread {
        let Some(value) = node.label(&spread.constraint.topology_key) else {
            return Err(rejection(plugin, format!("{reason} (missing required label)"), false));
        };
        let there = spread.counts.get(value).copied().unwrap_or(0);
        let skew = there + i32::from(spread.counts_itself) - spread.fewest;
        check(skew <= spread.constraint.max_skew, plugin, reason, true)?;
    }
    Ok(())
}

/// How many mates a pod would find at each value of a soft constraint, for scores.
pub fn soft_spread<'a>(
    pod: &PodInfo,
    nodes: impl Iterator<Item = &'a NodeInfo> + Clone,
) -> Vec<(String, HashMap<String, i32>)> {
    spread(pod, nodes, "ScheduleAnyway").into_iter().map(|s| (s.constraint.topology_key, s.counts)).collect()
}

/// `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.`
pub fn explain(rejections: &BTreeMap<String, Rejection>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in rejections.values().flat_map(|r| &r.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{} nodes are available: {}.", rejections.len(), parts.join(", "))
}

#[cfg(test)]
#[path = "filters_tests.rs"]
mod tests;
