//! Making room: the least important pods whose going lets a more important one in, all on one node.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::filters::{Cycle, Lookup, Rejection};
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};

/// Pods to remove from a node.
#[derive(Clone, Debug)]
pub struct Victims {
    pub node: String,
    pub pods: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Whether a pod's removal would break a disruption budget.
pub type IsProtected<'a> = &'a dyn Fn(&PodInfo) -> bool;

#[derive(Debug)]
pub enum Outcome {
    Found(Victims),
    /// What a user should read after `preemption: `.
    None(String),
}

pub fn plan(
    pod: &Arc<PodInfo>,
    snapshot: &Snapshot,
    rejections: &BTreeMap<String, Rejection>,
    lookup: &dyn Lookup,
    is_protected: IsProtected<'_>,
) -> Outcome {
    let spec = pod.pod.spec.as_ref();
    if spec.and_then(|s| s.preemption_policy.as_deref()) == Some("Never") {
        return Outcome::None("not eligible due to preemptionPolicy=Never.".into());
    }
    if waits_for_room(pod, snapshot) {
        return Outcome::None("not eligible due to terminating pod on the nominated node.".into());
    }
    let mut found: Vec<Victims> = Vec::new();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, rejection) in rejections {
        let Some(node) = snapshot.node(name) else { continue };
        if !rejection.preemption_helps {
            *reasons.entry("Preemption is not helpful for scheduling").or_default() += 1;
            continue;
        }
        match victims(pod, node, snapshot, lookup, is_protected) {
            Some(victims) => found.push(victims),
            None => *reasons.entry("No preemption victims found for incoming pod").or_default() += 1,
        }
    }
    match found.into_iter().min_by_key(cost) {
        Some(victims) => Outcome::Found(victims),
        None => {
            let mut parts: Vec<_> =
                reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            parts.sort();
            Outcome::None(format!("0/{} nodes are available: {}.", rejections.len(), parts.join(", ")))
        }
    }
}

/// Victims of an earlier attempt are still going: another attempt would only harm more.
fn waits_for_room(pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let nominated = pod.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    let node = nominated.and_then(|name| snapshot.node(name));
    node.is_some_and(|n| n.pods.iter().any(|p| p.is_deleting() && p.priority() < pod.priority()))
}

/// Fewest broken budgets, then least important victims, then fewest.
fn cost(victims: &Victims) -> (usize, i32, i64, usize, String) {
    let priorities = victims.pods.iter().map(|p| p.priority());
    let highest = priorities.clone().max().unwrap_or(i32::MIN);
    let sum = priorities.map(|p| i64::from(p) - i64::from(i32::MIN)).sum();
    (victims.violations, highest, sum, victims.pods.len(), victims.node.clone())
}

fn victims(
    pod: &Arc<PodInfo>,
    node: &NodeInfo,
    snapshot: &Snapshot,
    lookup: &dyn Lookup,
    is_protected: IsProtected<'_>,
) -> Option<Victims> {
    let mut candidates: Vec<_> =
        node.pods.iter().filter(|p| p.priority() < pod.priority()).cloned().collect();
    if candidates.is_empty() {
        return None;
    }
    let mut emptied = node.clone();
    candidates.iter().for_each(|p| emptied.remove(p.uid()));
    snapshot.nominated_before(node.name(), pod).into_iter().for_each(|p| emptied.add(p));
    if !fits(pod, &emptied, snapshot, lookup) {
        return None;
    }
    // Give back as many as still fit: protected and important ones first, of equals the older.
    let started = |p: &PodInfo| p.pod.status.as_ref().and_then(|s| s.start_time.clone()).map(|t| t.0);
    candidates.sort_by_key(|p| (!is_protected(p), std::cmp::Reverse(p.priority()), started(p)));
    let mut gone = Vec::new();
    for candidate in candidates {
        emptied.add(Arc::clone(&candidate));
        if !fits(pod, &emptied, snapshot, lookup) {
            emptied.remove(candidate.uid());
            gone.push(candidate);
        }
    }
    let violations = gone.iter().filter(|p| is_protected(p)).count();
    Some(Victims { node: node.name().to_owned(), pods: gone, violations })
}

/// Whether a pod fits on a node as it would be, all others as they are.
fn fits(pod: &Arc<PodInfo>, changed: &NodeInfo, snapshot: &Snapshot, lookup: &dyn Lookup) -> bool {
    let others = snapshot.nodes().filter(|n| n.name() != changed.name());
    let cycle = Cycle::new(pod, others.chain(std::iter::once(changed)), lookup);
    cycle.is_ok_and(|cycle| cycle.filter(changed).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::rejections_of;
    use crate::testing::{World, node, pod};

    fn planned(
        snapshot: &Snapshot,
        incoming: crate::testing::PodBuilder,
        protected: &[&str],
    ) -> Result<(String, Vec<String>), String> {
        let incoming = Arc::new(PodInfo::new(incoming.arc()));
        let world = World::default();
        let rejections = rejections_of(&incoming, snapshot, &world);
        let is_protected = |p: &PodInfo| protected.contains(&p.uid());
        match plan(&incoming, snapshot, &rejections, &world, &is_protected) {
            Outcome::Found(v) => Ok((v.node, v.pods.iter().map(|p| p.uid().to_owned()).collect())),
            Outcome::None(why) => Err(why),
        }
    }

    #[test]
    fn the_least_important_go_and_no_more_than_needed() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n1").arc());
        snapshot.set_node(node("n2").arc());
        snapshot.set_pod(pod("a").cpu("500m").priority(1).arc(), "n1");
        snapshot.set_pod(pod("b").cpu("500m").priority(5).arc(), "n1");
        snapshot.set_pod(pod("c").cpu("1").priority(7).arc(), "n2");
        let incoming = || pod("x").cpu("500m").priority(10);
        assert_eq!(planned(&snapshot, incoming(), &[]), Ok(("n1".into(), vec!["uid-a".into()])));
        assert_eq!(planned(&snapshot, incoming(), &["uid-a"]), Ok(("n1".into(), vec!["uid-b".into()])));
        let nobody = planned(&snapshot, pod("x").cpu("500m"), &[]);
        assert_eq!(
            nobody,
            Err("0/2 nodes are available: 2 No preemption victims found for incoming pod.".into())
        );
        let huge = planned(&snapshot, pod("x").cpu("5").priority(10), &[]);
        assert_eq!(huge, Err("0/2 nodes are available: 2 Preemption is not helpful for scheduling.".into()));
    }
}
