//! Which of the possible nodes is best: each score is 0 to 100, weighed and summed.

use std::collections::HashMap;

use base::id::fnv1a_32;

use crate::filters::{Cycle, soft_spread};
use crate::matching::{NamespaceLabels, PodTerm, term_holds, tolerates, tolerations};
use crate::snapshot::NodeInfo;

const BEST: i64 = 100;

/// The best of `nodes`; of equals one by chance, but always the same for the same pod, so that a run can be replayed.
pub fn best<'a>(cycle: &Cycle, nodes: &[&'a NodeInfo], lookup: &dyn NamespaceLabels) -> Option<&'a NodeInfo> {
    if let [only] = nodes {
        return Some(only);
    }
    let totals = scores(cycle, nodes, lookup);
    let luck = |node: &NodeInfo| fnv1a_32(format!("{}/{}", cycle.pod.uid(), node.name()).as_bytes());
    let ranked = nodes.iter().zip(totals).max_by_key(|(node, total)| (*total, luck(node)));
    ranked.map(|(node, _)| *node)
}

pub fn scores(cycle: &Cycle, nodes: &[&NodeInfo], lookup: &dyn NamespaceLabels) -> Vec<i64> {
    let plain = |score: &dyn Fn(&NodeInfo) -> i64| nodes.iter().map(|n| score(n)).collect::<Vec<i64>>();
    let weighed: [(i64, Vec<i64>); 6] = [
        (1, plain(&|node| least_allocated(cycle, node))),
        (1, plain(&|node| balanced(cycle, node))),
        (3, reversed(plain(&|node| intolerable(cycle, node)))),
        (2, normalized(plain(&|node| preferred(cycle, node)))),
        (2, crowding(cycle, nodes)),
        (2, normalized(company(cycle, nodes, lookup))),
    ];
    (0..nodes.len()).map(|at| weighed.iter().map(|(weight, scores)| weight * scores[at]).sum()).collect()
}

fn after(cycle: &Cycle, node: &NodeInfo) -> [(i64, i64); 2] {
    [
        (node.weight.0 + cycle.pod.weight.0, node.allocatable.milli_cpu),
        (node.weight.1 + cycle.pod.weight.1, node.allocatable.memory_bytes),
    ]
}

/// More for what stays free.
fn least_allocated(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let free = after(cycle, node)
        .map(|(used, all)| if all > 0 && used <= all { (all - used) * BEST / all } else { 0 });
    free.iter().sum::<i64>() / 2
}

/// More if processor and memory are used alike.
fn balanced(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let [cpu, memory] =
        after(cycle, node).map(|(used, all)| if all > 0 { (used * 1000 / all).min(1000) } else { 1000 });
    // For two shares the standard deviation is half their distance.
    BEST - (cpu - memory).abs() * BEST / 2000
}

fn intolerable(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let taints = node.taints().filter(|t| t.effect == "PreferNoSchedule");
    let open = taints.filter(|taint| !tolerations(&cycle.pod.pod).iter().any(|t| tolerates(t, taint)));
    i64::try_from(open.count()).unwrap_or(i64::MAX)
}

fn preferred(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let affinity =
        cycle.pod.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
    let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    let holding = terms.unwrap_or_default().iter().filter(|term| term_holds(&term.preference, node));
    holding.map(|term| i64::from(term.weight)).sum()
}

/// Weights of preferred company, less those of company to avoid, by topology.
fn company(cycle: &Cycle, nodes: &[&NodeInfo], lookup: &dyn NamespaceLabels) -> Vec<i64> {
    let affinity = cycle.pod.pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
    let near = affinity.and_then(|a| a.pod_affinity.as_ref());
    let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    let near = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    let apart = apart.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    let near = near.unwrap_or_default().iter().map(|t| (i64::from(t.weight), &t.pod_affinity_term));
    let apart = apart.unwrap_or_default().iter().map(|t| (-i64::from(t.weight), &t.pod_affinity_term));
    let mut totals = vec![0; nodes.len()];
    for (weight, term) in near.chain(apart) {
        let term = PodTerm::new(term, &cycle.pod);
        let mut found: HashMap<&str, i64> = HashMap::new();
        for node in nodes {
            let Some(value) = node.label(&term.topology_key) else { continue };
            let mates = node.pods.iter().filter(|p| term.matches(p, lookup)).count();
            *found.entry(value).or_default() += i64::try_from(mates).unwrap_or(0);
        }
        for (total, node) in totals.iter_mut().zip(nodes) {
            let there = node.label(&term.topology_key).and_then(|v| found.get(v)).copied().unwrap_or(0);
            *total += weight * there;
        }
    }
    totals
}

/// Fewer mates are better. Without a constraint pods of one controller still spread over nodes.
fn crowding(cycle: &Cycle, nodes: &[&NodeInfo]) -> Vec<i64> {
    let soft = soft_spread(&cycle.pod, nodes.iter().copied());
    let mates = |node: &NodeInfo| -> i64 {
        if soft.is_empty() {
            return siblings(cycle, node);
        }
        let counts = soft
            .iter()
            .map(|(key, counts)| node.label(key).and_then(|v| counts.get(v)).copied().unwrap_or(0));
        counts.map(i64::from).sum()
    };
    reversed(nodes.iter().map(|n| mates(n)).collect())
}

fn siblings(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let owner = |pod: &k8s_openapi::api::core::v1::Pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        owners.filter(|o| o.controller == Some(true)).map(|o| o.uid.clone()).next()
    };
    let Some(own) = owner(&cycle.pod.pod) else { return 0 };
    let mates = node.pods.iter().filter(|p| owner(&p.pod).as_ref() == Some(&own));
    i64::try_from(mates.count()).unwrap_or(0)
}

fn normalized(scores: Vec<i64>) -> Vec<i64> {
    let (low, high) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
    scores.into_iter().map(|s| if high > low { (s - low) * BEST / (high - low) } else { 0 }).collect()
}

fn reversed(scores: Vec<i64>) -> Vec<i64> {
    let high = scores.iter().copied().max().unwrap_or(0);
    scores.into_iter().map(|s| if high > 0 { BEST - s * BEST / high } else { BEST }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{PodInfo, Snapshot};
    use crate::testing::{World, node, pod};
    use std::sync::Arc;

    fn chosen(snapshot: &Snapshot) -> String {
        let pod = Arc::new(PodInfo::new(pod("a").cpu("100m").arc()));
        let Ok(cycle) = Cycle::new(&pod, snapshot.nodes(), &World::default()) else { panic!("no volumes") };
        let nodes: Vec<_> = snapshot.nodes().collect();
        best(&cycle, &nodes, &World::default()).expect("there are nodes").name().to_owned()
    }

    #[test]
    fn the_emptier_and_the_untainted_win() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("busy").arc());
        snapshot.set_node(node("idle").arc());
        snapshot.set_pod(pod("x").cpu("800m").arc(), "busy");
        assert_eq!(chosen(&snapshot), "idle");
        snapshot.set_node(node("idle").tainted("k", "v", "PreferNoSchedule").arc());
        assert_eq!(chosen(&snapshot), "busy");
    }
}
