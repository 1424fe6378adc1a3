//! One pod, one decision: the pure heart of the scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::filters::{Cycle, Lookup, Plugin, Rejection, explain};
use crate::preempt::{self, IsProtected, Victims};
use crate::scores;
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use crate::volumes::Need;

#[derive(Debug)]
pub enum Decision {
    Place {
        node: String,
        needs: Vec<Need>,
    },
    /// No node fits now; removing `victims`, if any, will make one fit.
    Wait {
        message: String,
        plugins: BTreeSet<Plugin>,
        victims: Option<Victims>,
    },
}

pub fn decide(
    pod: &Arc<PodInfo>,
    snapshot: &Snapshot,
    lookup: &dyn Lookup,
    is_protected: IsProtected<'_>,
) -> Decision {
    let wait =
        |message: String, plugins: BTreeSet<Plugin>| Decision::Wait { message, plugins, victims: None };
    let total = snapshot.nodes().count();
    if total == 0 {
        return wait("no nodes available to schedule pods".into(), BTreeSet::new());
    }
    let cycle = match Cycle::new(pod, snapshot.nodes(), lookup) {
        Ok(cycle) => cycle,
        Err(rejection) => {
            let reasons = rejection.reasons.join(", ");
            let message = format!(
                "0/{total} nodes are available: {reasons}. preemption: 0/{total} nodes are available: {total} \
                 Preemption is not helpful for scheduling."
            );
            return wait(message, [rejection.plugin].into());
        }
    };
    let mut rejections = BTreeMap::new();
    let mut possible: Vec<&NodeInfo> = Vec::new();
    for node in snapshot.nodes() {
        match filter(&cycle, node, snapshot, lookup) {
            Ok(()) => possible.push(node),
            Err(rejection) => {
                rejections.insert(node.name().to_owned(), rejection);
            }
        }
    }
    // Room that was made for this pod is used before anything else.
    let nominated = pod.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    let nominated = nominated.and_then(|name| possible.iter().find(|n| n.name() == name).copied());
    if let Some(node) = nominated.or_else(|| scores::best(&cycle, &possible, lookup)) {
        let needs = cycle.claims.on(node).unwrap_or_default();
        return Decision::Place { node: node.name().to_owned(), needs };
    }
    let plugins = rejections.values().map(|r| r.plugin).collect();
    let why = explain(&rejections);
    match preempt::plan(pod, snapshot, &rejections, lookup, is_protected) {
        preempt::Outcome::None(more) => wait(format!("{why} preemption: {more}"), plugins),
        preempt::Outcome::Found(victims) => Decision::Wait { message: why, plugins, victims: Some(victims) },
    }
}

/// With the pods that were promised room on the node, and without them: whether they come is not sure.
fn filter(cycle: &Cycle, node: &NodeInfo, snapshot: &Snapshot, lookup: &dyn Lookup) -> Result<(), Rejection> {
    let promised = snapshot.nominated_before(node.name(), &cycle.pod);
    if promised.is_empty() {
        return cycle.filter(node);
    }
    let mut fuller = node.clone();
    promised.into_iter().for_each(|p| fuller.add(p));
    let others = snapshot.nodes().filter(|n| n.name() != node.name());
    Cycle::new(&cycle.pod, others.chain(std::iter::once(&fuller)), lookup)?.filter(&fuller)?;
    cycle.filter(node)
}

#[cfg(test)]
pub fn rejections_of(
    pod: &Arc<PodInfo>,
    snapshot: &Snapshot,
    lookup: &dyn Lookup,
) -> BTreeMap<String, Rejection> {
    let Ok(cycle) = Cycle::new(pod, snapshot.nodes(), lookup) else { return BTreeMap::new() };
    let all = snapshot.nodes().filter_map(|n| Some((n.name().to_owned(), cycle.filter(n).err()?)));
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, node, pod};

    fn message(snapshot: &Snapshot, cpu: &str) -> String {
        let pod = Arc::new(PodInfo::new(pod("x").cpu(cpu).arc()));
        match decide(&pod, snapshot, &World::default(), &|_| false) {
            Decision::Place { node, .. } => node,
            Decision::Wait { message, .. } => message,
        }
    }

    #[test]
    fn users_read_what_they_know() {
        let mut snapshot = Snapshot::default();
        assert_eq!(message(&snapshot, "1"), "no nodes available to schedule pods");
        snapshot.set_node(node("n1").arc());
        assert_eq!(message(&snapshot, "1"), "n1");
        assert_eq!(
            message(&snapshot, "2"),
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not \
             helpful for scheduling."
        );
    }

    #[test]
    fn promised_room_is_kept_from_lesser_pods() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n1").arc());
        let important = Arc::new(PodInfo::new(pod("vip").cpu("800m").priority(9).arc()));
        snapshot.nominate(important, "n1");
        assert!(message(&snapshot, "500m").contains("Insufficient cpu"));
        assert_eq!(message(&snapshot, "200m"), "n1");
    }
}
