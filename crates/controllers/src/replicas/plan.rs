//! What should be created or deleted to have as many pods as asked for, and what is to be said of it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Replicated, Wanted};
use crate::{meta, pod};

/// No more pods are made or removed in one go.
const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[derive(Debug, Default)]
pub struct Plan {
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
}

impl Plan {
    /// The reason that is given when it could not be carried out.
    pub fn failure(&self) -> &'static str {
        if self.create > 0 { "FailedCreate" } else { "FailedDelete" }
    }
}

pub fn plan(desired: i32, pods: &[Arc<Pod>]) -> Plan {
    let desired = usize::try_from(desired).unwrap_or(0);
    let mut active: Vec<Arc<Pod>> = pods.iter().filter(|p| pod::is_active(p)).cloned().collect();
    if active.len() <= desired {
        return Plan { create: (desired - active.len()).min(BURST), delete: Vec::new() };
    }
    let surplus = (active.len() - desired).min(BURST);
    rank_for_deletion(&mut active);
    active.truncate(surplus);
    Plan { create: 0, delete: active }
}

/// Puts first what is missed least: unassigned before assigned, pending before running, not ready before ready,
/// cheaper first, crowded nodes first, then what was ready later, restarted more, is younger.
fn rank_for_deletion(pods: &mut [Arc<Pod>]) {
    let mut on_node: HashMap<String, usize> = HashMap::new();
    for p in pods.iter() {
        *on_node.entry(pod::node_name(p).unwrap_or_default().to_owned()).or_default() += 1;
    }
    let phase_rank = |p: &Pod| match pod::phase(p) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |p: &Pod| {
        let text = meta::annotation(&p.metadata, DELETION_COST);
        text.and_then(|c| c.parse::<i32>().ok()).unwrap_or(0)
    };
    pods.sort_by_cached_key(|p| {
        (
            pod::node_name(p).is_some(),
            phase_rank(p),
            pod::is_ready(p),
            cost(p),
            Reverse(on_node.get(pod::node_name(p).unwrap_or_default()).copied()),
            Reverse(pod::ready_since(p)),
            Reverse(pod::restarts(p)),
            Reverse(meta::created(&p.metadata)),
            meta::name(&p.metadata).to_owned(),
        )
    });
}

/// The status after looking at `pods`, and when to look again because one becomes available by time alone.
pub fn status<T: Replicated>(
    set: &T,
    wanted: &Wanted,
    pods: &[Arc<Pod>],
    failure: Option<(&'static str, String)>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let min_ready = wanted.min_ready_seconds;
    let template_labels =
        wanted.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|p| pod::is_active(p)).collect();
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active.iter().filter(|p| test(p)).count()).unwrap_or(i32::MAX)
    };
    let waits = active.iter().filter_map(|p| pod::available_in(p, min_ready, now));
    let next = waits.filter(|wait| !wait.is_zero()).min();
    let terminating = pods.iter().filter(|p| meta::is_deleting(&p.metadata) && !pod::has_ended(p)).count();
    let some = |n: i32| (n > 0).then_some(n);
    let status = ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some(count(&|p| {
            template_labels.iter().all(|(k, v)| meta::labels(&p.metadata).get(k) == Some(v))
        })),
        ready_replicas: some(count(&pod::is_ready)),
        available_replicas: some(count(&|p| pod::is_available(p, min_ready, now))),
        terminating_replicas: i32::try_from(terminating).ok(),
        observed_generation: set.meta().generation,
        conditions: conditions(set.status().conditions, failure, now),
    };
    (status, next)
}

fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<(&'static str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let (known, mut others): (Vec<_>, Vec<_>) =
        old.unwrap_or_default().into_iter().partition(|c| c.type_ == "ReplicaFailure");
    if let Some((reason, message)) = failure {
        // What failed first is told until nothing fails.
        others.push(known.into_iter().next().unwrap_or_else(|| ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }));
    }
    (!others.is_empty()).then_some(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use crate::testing::{at, pod_named};

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|p| meta::name(&p.metadata)).collect()
    }

    #[test]
    fn creates_what_is_missing_and_ignores_what_has_ended_or_goes() {
        let pods = [
            pod_named("a").ready(at(1)).arc(),
            pod_named("b").phase("Failed").arc(),
            pod_named("c").deleting().arc(),
        ];
        let plan = plan(3, &pods);
        assert_eq!((plan.create, plan.delete.len()), (2, 0));
        assert_eq!(super::plan(100_000, &[]).create, BURST);
    }

    #[test]
    fn deletes_in_the_order_users_expect() {
        let pods = [
            pod_named("old-ready").on("n1").ready(at(1)).arc(),
            pod_named("late-ready").on("n2").ready(at(9)).arc(),
            pod_named("cheap").on("n3").ready(at(1)).annotated(DELETION_COST, "-5").arc(),
            pod_named("not-ready").on("n4").phase("Running").arc(),
            pod_named("pending").on("n5").arc(),
            pod_named("unassigned").arc(),
        ];
        let plan = plan(0, &pods);
        assert_eq!(
            names(&plan.delete),
            ["unassigned", "pending", "not-ready", "cheap", "late-ready", "old-ready"]
        );
    }

    #[test]
    fn crowded_nodes_give_first() {
        let pods = [
            pod_named("alone").on("n1").ready(at(5)).arc(),
            pod_named("x").on("n2").ready(at(1)).arc(),
            pod_named("y").on("n2").ready(at(1)).arc(),
        ];
        assert_eq!(names(&plan(2, &pods).delete), ["x"]);
    }

    /// The checks that every kind of this has to pass.
    trait Case: Replicated {
        fn made(min_ready_seconds: i32, labels: &[(&str, &str)]) -> Self;
    }

    fn template(labels: &[(&str, &str)]) -> PodTemplateSpec {
        let labels = labels.iter().map(|(k, v)| (String::from(*k), String::from(*v))).collect();
        let metadata = ObjectMeta { labels: Some(labels), ..ObjectMeta::default() };
        PodTemplateSpec { metadata: Some(metadata), ..PodTemplateSpec::default() }
    }

    fn metadata() -> ObjectMeta {
        ObjectMeta { generation: Some(7), ..ObjectMeta::default() }
    }

    impl Case for ReplicaSet {
        fn made(min_ready_seconds: i32, labels: &[(&str, &str)]) -> Self {
            let mut set = Self { metadata: metadata(), ..Self::default() };
            let spec = set.spec.get_or_insert_default();
            spec.min_ready_seconds = Some(min_ready_seconds);
            spec.selector.match_labels = Some([("app".to_owned(), "a".to_owned())].into());
            spec.template = Some(template(labels));
            set
        }
    }

    impl Case for ReplicationController {
        fn made(min_ready_seconds: i32, labels: &[(&str, &str)]) -> Self {
            let mut set = Self { metadata: metadata(), ..Self::default() };
            let spec = set.spec.get_or_insert_default();
            spec.min_ready_seconds = Some(min_ready_seconds);
            spec.selector = Some([("app".to_owned(), "a".to_owned())].into());
            spec.template = Some(template(labels));
            set
        }
    }

    /// The status of a set after looking at pods, and when it wants to look again.
    fn seen<T: Case>(
        set: &T,
        pods: &[Arc<Pod>],
        failure: Option<(&'static str, String)>,
        now: Timestamp,
    ) -> (T, ReplicaSetStatus, Option<Duration>) {
        let (status, next) = status(set, &set.wanted().expect("it has a spec"), pods, failure, now);
        let set = set.with_status(status);
        let status = set.status();
        (set, status, next)
    }

    fn counts<T: Case>() {
        let set = T::made(10, &[("app", "a"), ("tier", "t")]);
        let pods = [
            pod_named("long-ready").labelled("app", "a").labelled("tier", "t").ready(at(0)).arc(),
            pod_named("just-ready").labelled("app", "a").ready(at(6)).arc(),
            pod_named("starts").labelled("app", "a").arc(),
            pod_named("ended").labelled("app", "a").phase("Failed").arc(),
            pod_named("goes").labelled("app", "a").ready(at(0)).deleting().arc(),
        ];
        let (_, status, next) = seen(&set, &pods, None, at(10));
        assert_eq!((status.replicas, status.fully_labeled_replicas), (3, Some(1)), "{}", T::KIND);
        assert_eq!((status.ready_replicas, status.available_replicas), (Some(2), Some(1)), "{}", T::KIND);
        assert_eq!((status.observed_generation, status.conditions), (Some(7), None), "{}", T::KIND);
        assert_eq!(next, Some(Duration::from_secs(6)), "{}", T::KIND);
        let selector = set.selector().expect("a plain one");
        assert!(selector.matches(meta::labels(&pods[0].metadata)), "{}", T::KIND);
        assert!(!selector.matches(&[("app".to_owned(), "b".to_owned())].into()), "{}", T::KIND);
    }

    #[test]
    fn every_kind_counts_alike() {
        counts::<ReplicaSet>();
        counts::<ReplicationController>();
    }

    fn tells_of_failures<T: Case>() {
        let set = T::made(0, &[("app", "a")]);
        let refused = |why: &str| Some(("FailedCreate", why.to_owned()));
        let told = |status: &ReplicaSetStatus| {
            let all = status.conditions.iter().flatten();
            all.map(|c| {
                let [reason, message] = [&c.reason, &c.message].map(|text| text.clone().unwrap_or_default());
                let since = c.last_transition_time.as_ref().map(|t| t.0);
                (format!("{}={} {reason}: {message}", c.type_, c.status), since)
            })
            .collect::<Vec<_>>()
        };
        let (set, status, _) = seen(&set, &[], refused("pods \"a-1\" is forbidden"), at(1));
        let first =
            vec![("ReplicaFailure=True FailedCreate: pods \"a-1\" is forbidden".to_owned(), Some(at(1)))];
        assert_eq!(told(&status), first, "{}", T::KIND);
        // Each attempt names another pod: as long as it fails the first stays, else every attempt would be a write.
        let (set, status, _) = seen(&set, &[], refused("pods \"a-2\" is forbidden"), at(2));
        assert_eq!(told(&status), first, "{}", T::KIND);
        let (_, status, _) = seen(&set, &[], None, at(3));
        assert_eq!(told(&status), [], "{}", T::KIND);
    }

    #[test]
    fn failures_are_told_until_nothing_fails() {
        tells_of_failures::<ReplicaSet>();
        tells_of_failures::<ReplicationController>();
        assert_eq!(plan(1, &[]).failure(), "FailedCreate");
        assert_eq!(plan(0, &[pod_named("a").arc()]).failure(), "FailedDelete");
    }

    #[test]
    fn a_selector_that_says_nothing_takes_nothing() {
        let empty = ReplicationController::default();
        assert!(!empty.selector().expect("a plain one").matches(&Default::default()));
        assert!(empty.wanted().is_none());
    }
}
