//! What a StatefulSet does next: pods by their ordinal, made in order, removed in reverse, replaced from the top.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::constants::labels;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::percent::{Round, scaled};
use crate::{meta, pod};

#[derive(Clone, Debug)]
pub enum Action {
    Create(i32),
    /// `scaled_down`: beyond the size asked for, rather than to be replaced.
    Delete {
        pod: Arc<Pod>,
        scaled_down: bool,
    },
}

#[derive(Debug)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub status: StatefulSetStatus,
    pub look_again: Option<Duration>,
}

/// Names of the revision that pods had before, and of the one they should have.
#[derive(Clone, Copy, Debug)]
pub struct Revisions<'a> {
    pub current: &'a str,
    pub update: &'a str,
}

struct View<'a> {
    spec: &'a StatefulSetSpec,
    start: i32,
    replicas: i32,
    min_ready: i32,
    by_ordinal: BTreeMap<i32, Arc<Pod>>,
    revisions: Revisions<'a>,
    now: Timestamp,
}

/// The ordinal of a pod of this set, by its name.
pub fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    meta::name(&pod.metadata).strip_prefix(set)?.strip_prefix('-')?.parse().ok().filter(|n| *n >= 0)
}

pub fn revision_of(pod: &Pod) -> &str {
    meta::labels(&pod.metadata).get(labels::CONTROLLER_REVISION_HASH).map_or("", String::as_str)
}

pub fn plan(set: &StatefulSet, pods: &[Arc<Pod>], revisions: Revisions<'_>, now: Timestamp) -> Option<Plan> {
    let spec = set.spec.as_ref()?;
    let name = meta::name(&set.metadata);
    let by_ordinal: BTreeMap<i32, Arc<Pod>> =
        pods.iter().filter_map(|p| Some((ordinal(name, p)?, Arc::clone(p)))).collect();
    let view = View {
        spec,
        start: spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0),
        replicas: spec.replicas.unwrap_or(1),
        min_ready: spec.min_ready_seconds.unwrap_or(0),
        by_ordinal,
        revisions,
        now,
    };
    let actions = if meta::is_deleting(&set.metadata) { Vec::new() } else { view.actions() };
    let waits = view.by_ordinal.values().filter_map(|p| pod::available_in(p, view.min_ready, now));
    let look_again = waits.filter(|wait| !wait.is_zero()).min();
    let status = view.status(set, &actions);
    Some(Plan { actions, status, look_again })
}

impl View<'_> {
    fn wanted(&self) -> std::ops::Range<i32> {
        self.start..self.start.saturating_add(self.replicas)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        pod::is_available(pod, self.min_ready, self.now) && !meta::is_deleting(&pod.metadata)
    }

    fn actions(&self) -> Vec<Action> {
        let in_order = self.spec.pod_management_policy.as_deref() != Some("Parallel");
        let mut actions = Vec::new();
        for ordinal in self.wanted() {
            match self.by_ordinal.get(&ordinal) {
                None => actions.push(Action::Create(ordinal)),
                Some(pod) if meta::is_deleting(&pod.metadata) => {}
                Some(pod) if pod::has_ended(pod) => {
                    actions.push(Action::Delete { pod: Arc::clone(pod), scaled_down: false });
                }
                Some(pod) if self.is_healthy(pod) => continue,
                Some(_) => {}
            }
            if in_order {
                // The next waits until this one serves.
                return actions;
            }
        }
        if self.scale_down(in_order, &mut actions) || !actions.is_empty() {
            return actions;
        }
        self.replace(&mut actions);
        actions
    }

    /// True if nothing else may be done now.
    fn scale_down(&self, in_order: bool, actions: &mut Vec<Action>) -> bool {
        let wanted = self.wanted();
        let condemned: Vec<_> = self.by_ordinal.iter().rev().filter(|(o, _)| !wanted.contains(o)).collect();
        for (_, pod) in &condemned {
            if meta::is_deleting(&pod.metadata) {
                if in_order {
                    return true;
                }
                continue;
            }
            actions.push(Action::Delete { pod: Arc::clone(pod), scaled_down: true });
            if in_order {
                return true;
            }
        }
        !condemned.is_empty() && in_order
    }

    fn partition(&self) -> i32 {
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        rolling.and_then(|r| r.partition).unwrap_or(0)
    }

    fn replace(&self, actions: &mut Vec<Action>) {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let limit = strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.max_unavailable.as_ref());
        let limit = limit.map_or(1, |value| scaled(value, self.replicas, Round::Up).max(1));
        let healthy = |ordinal: i32| self.by_ordinal.get(&ordinal).is_some_and(|p| self.is_healthy(p));
        let mut unavailable =
            i32::try_from(self.wanted().filter(|o| !healthy(*o)).count()).unwrap_or(i32::MAX);
        let lowest = self.start + self.partition();
        for ordinal in self.wanted().rev().take_while(|o| *o >= lowest) {
            let Some(pod) = self.by_ordinal.get(&ordinal) else { continue };
            let outdated = revision_of(pod) != self.revisions.update && !meta::is_deleting(&pod.metadata);
            if !outdated {
                if !healthy(ordinal) && limit == 1 {
                    return;
                }
                continue;
            }
            if healthy(ordinal) {
                if unavailable >= limit {
                    return;
                }
                unavailable += 1;
            }
            actions.push(Action::Delete { pod: Arc::clone(pod), scaled_down: false });
            if limit == 1 {
                return;
            }
        }
    }

    fn status(&self, set: &StatefulSet, actions: &[Action]) -> StatefulSetStatus {
        let count = |test: &dyn Fn(&Pod) -> bool| {
            i32::try_from(self.by_ordinal.values().filter(|p| test(p)).count()).unwrap_or(i32::MAX)
        };
        // Who goes now may be missing in the next turn already, and is then made from what this says.
        let goes = |pod: &Pod| {
            let uid = meta::uid(&pod.metadata);
            meta::is_deleting(&pod.metadata)
                || actions
                    .iter()
                    .any(|a| matches!(a, Action::Delete { pod, .. } if meta::uid(&pod.metadata) == uid))
        };
        let of = |revision: &str| count(&|p| revision_of(p) == revision && !goes(p));
        let before = set.status.clone().unwrap_or_default();
        let mut status = StatefulSetStatus {
            observed_generation: set.metadata.generation,
            replicas: count(&|_| true),
            ready_replicas: Some(count(&|p| pod::is_ready(p))),
            available_replicas: Some(count(&|p| pod::is_available(p, self.min_ready, self.now))),
            current_replicas: Some(of(self.revisions.current)),
            updated_replicas: Some(of(self.revisions.update)),
            current_revision: Some(self.revisions.current.to_owned()),
            update_revision: Some(self.revisions.update.to_owned()),
            collision_count: before.collision_count.or(Some(0)),
            conditions: before.conditions,
        };
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete");
        let all = Some(self.replicas);
        if rolling
            && status.updated_replicas == all
            && status.replicas == self.replicas
            && status.ready_replicas == all
        {
            status.current_revision = status.update_revision.clone();
            status.current_replicas = status.updated_replicas;
        }
        status
    }
}

/// Whether a pod that is missing is made anew as it was, because the update has not come to it.
pub fn wants_current(set: &StatefulSet, ordinal: i32) -> bool {
    let Some(spec) = &set.spec else { return false };
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return false;
    }
    let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    match strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.partition).filter(|p| *p > 0) {
        Some(partition) => ordinal < start + partition,
        None => ordinal < start + set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0),
    }
}

pub fn claim_name(template: &PersistentVolumeClaim, set: &str, ordinal: i32) -> String {
    format!("{}-{set}-{ordinal}", meta::name(&template.metadata))
}

/// The pod of an ordinal: named, hosted and mounted so that it is the same one wherever it comes up again.
pub fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let set_name = meta::name(&set.metadata);
    let mut pod = pod::from_template(template, meta::namespace(&set.metadata), meta::controller_ref(set));
    let name = format!("{set_name}-{ordinal}");
    let marks = pod.metadata.labels.get_or_insert_default();
    marks.insert(labels::STATEFULSET_POD_NAME.into(), name.clone());
    marks.insert(labels::POD_INDEX.into(), ordinal.to_string());
    marks.insert(labels::CONTROLLER_REVISION_HASH.into(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    let set_spec = set.spec.as_ref();
    spec.subdomain = set_spec.and_then(|s| s.service_name.clone()).filter(|s| !s.is_empty());
    let templates = set_spec.and_then(|s| s.volume_claim_templates.as_deref()).unwrap_or_default();
    let volumes = spec.volumes.get_or_insert_default();
    for template in templates {
        let volume = meta::name(&template.metadata).to_owned();
        volumes.retain(|v| v.name != volume);
        let source = PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(template, set_name, ordinal),
            read_only: Some(false),
        };
        volumes.push(Volume { name: volume, persistent_volume_claim: Some(source), ..Default::default() });
    }
    pod.metadata.name = Some(name);
    pod
}

pub fn new_claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let retention = spec.persistent_volume_claim_retention_policy.as_ref();
    let goes_with_set = retention.and_then(|r| r.when_deleted.as_deref()) == Some("Delete");
    let one = |template: &PersistentVolumeClaim| {
        let mut own_labels = template.metadata.labels.clone().unwrap_or_default();
        own_labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(claim_name(template, meta::name(&set.metadata), ordinal)),
                namespace: set.metadata.namespace.clone(),
                labels: Some(own_labels),
                annotations: template.metadata.annotations.clone(),
                owner_references: goes_with_set.then(|| vec![meta::controller_ref(set)]),
                ..Default::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    };
    spec.volume_claim_templates.iter().flatten().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PodBuilder, at, pod_named};
    use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSetUpdateStrategy};

    const REVISIONS: Revisions<'static> = Revisions { current: "old", update: "new" };

    fn set(replicas: i32, policy: &str, partition: i32) -> StatefulSet {
        let mut set = StatefulSet::default();
        set.metadata.name = Some("web".into());
        let spec = set.spec.get_or_insert_default();
        spec.replicas = Some(replicas);
        spec.pod_management_policy = Some(policy.into());
        let rolling = RollingUpdateStatefulSetStrategy { partition: Some(partition), max_unavailable: None };
        spec.update_strategy = Some(StatefulSetUpdateStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(rolling),
        });
        set
    }

    fn member(ordinal: i32, revision: &str) -> PodBuilder {
        pod_named(&format!("web-{ordinal}")).labelled(labels::CONTROLLER_REVISION_HASH, revision)
    }

    fn ready(ordinal: i32, revision: &str) -> Arc<Pod> {
        member(ordinal, revision).ready(at(0)).arc()
    }

    fn told(set: &StatefulSet, pods: &[Arc<Pod>]) -> Vec<String> {
        let plan = plan(set, pods, REVISIONS, at(10)).expect("it has a spec");
        let one = |action: &Action| match action {
            Action::Create(ordinal) => format!("+{ordinal}"),
            Action::Delete { pod, .. } => format!("-{}", ordinal("web", pod).expect("its own")),
        };
        plan.actions.iter().map(one).collect()
    }

    #[test]
    fn pods_come_in_order_and_go_in_reverse() {
        let ordered = set(3, "OrderedReady", 0);
        let none: [&str; 0] = [];
        assert_eq!(told(&ordered, &[]), ["+0"]);
        assert_eq!(told(&ordered, &[member(0, "new").arc()]), none);
        assert_eq!(told(&ordered, &[ready(0, "new")]), ["+1"]);
        assert_eq!(told(&ordered, &[member(0, "new").phase("Failed").arc()]), ["-0"]);
        assert_eq!(told(&set(3, "Parallel", 0), &[]), ["+0", "+1", "+2"]);
        let all = [ready(0, "new"), ready(1, "new"), ready(2, "new")];
        assert_eq!(told(&set(1, "OrderedReady", 0), &all), ["-2"]);
        let last_going = [ready(0, "new"), ready(1, "new"), member(2, "new").ready(at(0)).deleting().arc()];
        assert_eq!(told(&set(1, "OrderedReady", 0), &last_going), none);
        assert_eq!(told(&set(0, "Parallel", 0), &all), ["-2", "-1", "-0"]);
    }

    #[test]
    fn updates_go_from_the_top_down_to_the_partition() {
        let all = [ready(0, "old"), ready(1, "old"), ready(2, "old")];
        assert_eq!(told(&set(3, "OrderedReady", 0), &all), ["-2"]);
        let half = [ready(0, "old"), ready(1, "old"), ready(2, "new")];
        assert_eq!(told(&set(3, "OrderedReady", 0), &half), ["-1"]);
        assert!(told(&set(3, "OrderedReady", 2), &half).is_empty());
        let unready = [ready(0, "old"), ready(1, "old"), member(2, "new").phase("Running").arc()];
        assert!(told(&set(3, "OrderedReady", 0), &unready).is_empty());
        let mut by_hand = set(3, "OrderedReady", 0);
        by_hand.spec.get_or_insert_default().update_strategy =
            Some(StatefulSetUpdateStrategy { type_: Some("OnDelete".into()), rolling_update: None });
        assert!(told(&by_hand, &all).is_empty());
    }

    /// Whoever goes at once is missing in the next turn already: it must not come back as it was.
    #[test]
    fn what_is_replaced_does_not_come_back_as_it_was() {
        let mut set = set(3, "OrderedReady", 0);
        let mut pods = vec![ready(0, "old"), ready(1, "old"), ready(2, "old")];
        set.status = Some(plan(&set, &pods, REVISIONS, at(10)).expect("it has a spec").status);
        assert_eq!(told(&set, &pods), ["-2"]);
        pods.truncate(2);
        assert_eq!(told(&set, &pods), ["+2"]);
        let as_they_were = [0, 1, 2].map(|ordinal| wants_current(&set, ordinal));
        assert_eq!(as_they_were, [true, true, false]);
        let status = plan(&set, &pods, REVISIONS, at(10)).expect("it has a spec").status;
        assert_eq!(
            (status.replicas, status.current_replicas, status.updated_replicas),
            (2, Some(2), Some(0))
        );
    }

    #[test]
    fn a_finished_update_becomes_the_current_revision() {
        let set = set(2, "OrderedReady", 0);
        let pods = [ready(0, "new"), ready(1, "new")];
        let status = plan(&set, &pods, REVISIONS, at(10)).expect("it has a spec").status;
        assert_eq!(status.current_revision.as_deref(), Some("new"));
        assert_eq!((status.current_replicas, status.updated_replicas), (Some(2), Some(2)));
    }

    #[test]
    fn pods_have_a_name_a_host_and_their_own_claims() {
        let mut set = set(1, "OrderedReady", 0);
        let spec = set.spec.get_or_insert_default();
        spec.service_name = Some("svc".into());
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some("data".into());
        spec.volume_claim_templates = Some(vec![claim]);
        let pod = new_pod(&set, &PodTemplateSpec::default(), "new", 4);
        let spec = pod.spec.clone().expect("made");
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-4"), Some("svc")));
        assert_eq!(meta::labels(&pod.metadata)[labels::POD_INDEX], "4");
        let claimed = spec.volumes.expect("made")[0].persistent_volume_claim.clone().expect("a claim");
        assert_eq!(claimed.claim_name, "data-web-4");
        assert_eq!(meta::name(&new_claims(&set, 4)[0].metadata), "data-web-4");
    }
}
