//! Disruption budgets: how many pods may be evicted now without a service suffering.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::selector::Selector;
use client::{Cache, Change, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;

use crate::context::{self, Context, now};
use crate::percent::{Round, scaled};
use crate::{meta, pod};

/// An eviction that was allowed and did not happen within this time counts no longer.
const EVICTION_SECONDS: i64 = 120;

pub fn start(context: &Context) -> Vec<Controller> {
    let budgets = context.caches.of::<PodDisruptionBudget>();
    let pods = context.caches.of::<Pod>();
    let reconciler = Budgets {
        context: context.clone(),
        budgets: Arc::clone(&budgets),
        pods: Arc::clone(&pods),
        sets: context.caches.of(),
        controllers: context.caches.of(),
        stateful: context.caches.of(),
        deployments: context.caches.of(),
    };
    let all = Arc::clone(&budgets);
    let (of_sets, of_controllers) = (Arc::clone(&budgets), Arc::clone(&budgets));
    let (of_stateful, of_deployments) = (Arc::clone(&budgets), Arc::clone(&budgets));
    let controller = Controller::new("disruption", reconciler)
        .owns_kind(&budgets)
        .watches(&pods, move |change: &Change<Pod>| {
            let pod = change.object();
            let budgets = all.in_namespace(meta::namespace(&pod.metadata)).into_iter();
            budgets.filter(|b| selects(b, pod)).map(|b| Key::of(&*b)).collect()
        })
        .watches(&context.caches.of::<ReplicaSet>(), move |c| {
            resized(&of_sets, c, |s| s.spec.as_ref()?.replicas)
        })
        .watches(&context.caches.of::<ReplicationController>(), move |c| {
            resized(&of_controllers, c, |r| r.spec.as_ref()?.replicas)
        })
        .watches(&context.caches.of::<StatefulSet>(), move |c| {
            resized(&of_stateful, c, |s| s.spec.as_ref()?.replicas)
        })
        .watches(&context.caches.of::<Deployment>(), move |c| {
            resized(&of_deployments, c, |d| d.spec.as_ref()?.replicas)
        });
    vec![controller]
}

/// A share of a set's size is another number when the set is resized.
fn resized<T: client::Object>(
    budgets: &Cache<PodDisruptionBudget>,
    change: &Change<T>,
    size: impl Fn(&T) -> Option<i32>,
) -> Vec<Key> {
    let side = |object: &Option<Arc<T>>| object.as_ref().and_then(|o| size(o));
    if side(&change.old) == side(&change.new) {
        return Vec::new();
    }
    let budgets = budgets.in_namespace(meta::namespace(change.object().meta()));
    budgets.iter().map(|budget| Key::of(&**budget)).collect()
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    Selector::from_optional(selector).is_ok_and(|s| s.matches(meta::labels(&pod.metadata)))
}

struct Budgets {
    context: Context,
    budgets: Arc<Cache<PodDisruptionBudget>>,
    pods: Arc<Cache<Pod>>,
    sets: Arc<Cache<ReplicaSet>>,
    controllers: Arc<Cache<ReplicationController>>,
    stateful: Arc<Cache<StatefulSet>>,
    deployments: Arc<Cache<Deployment>>,
}

impl Reconciler for Budgets {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(budget) = self.budgets.get(&key) else { return Ok(Next::OnChange) };
            let pods = self.pods.in_namespace(&key.namespace).into_iter().filter(|p| selects(&budget, p));
            let pods: Vec<Arc<Pod>> = pods.filter(|p| !pod::has_ended(p)).collect();
            let scale = scale(&pods, |owner| self.size(&key.namespace, owner));
            let (status, next) = plan(&budget, &pods, scale, now());
            if budget.status.as_ref() != Some(&status) {
                let api: Api<PodDisruptionBudget> = self.context.api(&key.namespace);
                let updated = PodDisruptionBudget { status: Some(status), ..(*budget).clone() };
                context::ignore_missing(context::write_status(&api, &updated).await)?;
            }
            Ok(next.map_or(Next::OnChange, Next::After))
        })
    }
}

impl Budgets {
    /// How many pods an owner wants, and who says so: what owns the owner, if that is what is resized.
    fn size(&self, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        match (group, owner.kind.as_str()) {
            ("apps", "StatefulSet") => {
                let set = find(&self.stateful, namespace, owner)?;
                Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            ("", "ReplicationController") => {
                let set = find(&self.controllers, namespace, owner)?;
                Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            ("apps", "ReplicaSet") => {
                let set = find(&self.sets, namespace, owner)?;
                match meta::controller_of(&set.metadata).filter(|o| o.kind == "Deployment") {
                    Some(above) => {
                        let deployment = find(&self.deployments, namespace, above)?;
                        Some((above.uid.clone(), deployment.spec.as_ref()?.replicas.unwrap_or(1)))
                    }
                    None => Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1))),
                }
            }
            _ => None,
        }
    }
}

/// The owner itself, and no namesake.
fn find<T: client::Object>(cache: &Cache<T>, namespace: &str, owner: &OwnerReference) -> Option<Arc<T>> {
    cache.get(&Key::new(namespace, owner.name.clone())).filter(|found| meta::uid(found.meta()) == owner.uid)
}

/// How many pods the owners of `pods` want. Who has no owner counts for nothing; an owner whose size nobody knows makes
/// the number unknown.
fn scale(pods: &[Arc<Pod>], size: impl Fn(&OwnerReference) -> Option<(String, i32)>) -> Result<i32, String> {
    let mut sizes: HashMap<String, i32> = HashMap::new();
    for pod in pods {
        let Some(owner) = meta::controller_of(&pod.metadata) else { continue };
        let unknown = || format!("found no controllers for pod \"{}\"", meta::name(&pod.metadata));
        let (uid, size) = size(owner).ok_or_else(unknown)?;
        sizes.insert(uid, size);
    }
    Ok(sizes.values().fold(0, |sum, size| sum.saturating_add(*size)))
}

fn plan(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: Result<i32, String>,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let spec = budget.spec.clone().unwrap_or_default();
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let (expected, desired, failure) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => match scale {
            Ok(expected) => (expected, (expected - scaled(max, expected, Round::Up)).max(0), None),
            Err(why) => (count(pods.len()), count(pods.len()), Some(why)),
        },
        (None, Some(IntOrString::Int(min))) => (count(pods.len()), *min, None),
        (None, Some(min)) => match scale {
            Ok(expected) => (expected, scaled(min, expected, Round::Up), None),
            Err(why) => (count(pods.len()), count(pods.len()), Some(why)),
        },
        (None, None) => (count(pods.len()), count(pods.len()), None),
    };
    let (disrupted, next) = still_disrupted(budget, pods, now);
    let healthy = pods.iter().filter(|p| {
        pod::is_ready(p)
            && !meta::is_deleting(&p.metadata)
            && !disrupted.contains_key(meta::name(&p.metadata))
    });
    let healthy = count(healthy.count());
    let allowed = if expected <= 0 || failure.is_some() { 0 } else { (healthy - desired).max(0) };
    let old = budget.status.clone().unwrap_or_default();
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: Some(conditions(
            old.conditions,
            allowed,
            failure.as_deref(),
            budget.metadata.generation,
            now,
        )),
    };
    (status, next)
}

/// Evictions that were allowed and are still to be seen.
fn still_disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let known = budget.status.as_ref().and_then(|s| s.disrupted_pods.clone()).unwrap_or_default();
    let mut next: Option<Duration> = None;
    let kept = known.into_iter().filter(|(name, since)| {
        let there =
            pods.iter().any(|p| p.metadata.name.as_ref() == Some(name) && !meta::is_deleting(&p.metadata));
        let left = pod::remaining(since.0, EVICTION_SECONDS, now);
        if there && !left.is_zero() {
            next = Some(next.map_or(left, |known| known.min(left)));
        }
        there && !left.is_zero()
    });
    let kept = kept.collect();
    (kept, next)
}

fn conditions(
    old: Option<Vec<Condition>>,
    allowed: i32,
    failure: Option<&str>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = old.unwrap_or_default();
    let (status, reason, message) = match failure {
        Some(failure) => ("False", "SyncFailed", failure),
        None if allowed > 0 => ("True", "SufficientPods", ""),
        None => ("False", "InsufficientPods", ""),
    };
    let known = all.iter().find(|c| c.type_ == "DisruptionAllowed" && c.status == status);
    let since = known.map_or(Time(now), |c| c.last_transition_time.clone());
    all.retain(|c| c.type_ != "DisruptionAllowed");
    all.push(Condition {
        type_: "DisruptionAllowed".into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since,
        observed_generation: generation,
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, pod_named};

    fn allowed(
        min: Option<IntOrString>,
        max: Option<IntOrString>,
        ready: usize,
        scale: Option<i32>,
    ) -> Option<i32> {
        let mut budget = PodDisruptionBudget::default();
        let spec = budget.spec.get_or_insert_default();
        (spec.min_available, spec.max_unavailable) = (min, max);
        let pods: Vec<_> = (0..ready).map(|n| pod_named(&n.to_string()).ready(at(0)).arc()).collect();
        let scale = scale.ok_or_else(|| "unknown".to_owned());
        plan(&budget, &pods, scale, at(1)).0.disruptions_allowed
    }

    #[test]
    fn what_may_be_disrupted() {
        let int = |n| Some(IntOrString::Int(n));
        let percent = |p: &str| Some(IntOrString::String(p.into()));
        let cases = [
            (int(2), None, 3, Some(3), 1),
            (int(3), None, 3, Some(3), 0),
            (percent("50%"), None, 3, Some(3), 1),
            (None, int(1), 3, Some(3), 1),
            (None, int(1), 2, Some(3), 0),
            (None, percent("50%"), 4, Some(4), 2),
            (None, int(1), 3, None, 0),
            (int(0), None, 0, Some(0), 0),
        ];
        for (min, max, ready, scale, expected) in cases {
            let got = allowed(min.clone(), max.clone(), ready, scale);
            assert_eq!(got, Some(expected), "min {min:?} max {max:?} ready {ready}");
        }
    }
    #[test]
    fn what_the_owners_want_is_what_counts() {
        let owned = |name: &str, kind: &str, uid: &str| {
            let mut pod = pod_named(name).0;
            pod.metadata.owner_references = Some(vec![OwnerReference {
                kind: kind.into(),
                uid: uid.into(),
                controller: Some(true),
                ..OwnerReference::default()
            }]);
            Arc::new(pod)
        };
        let size = |owner: &OwnerReference| match owner.kind.as_str() {
            "ReplicationController" => Some((owner.uid.clone(), 3)),
            "ReplicaSet" => Some(("of-a-deployment".to_owned(), 4)),
            _ => None,
        };
        let alone = pod_named("alone").arc();
        let (a, b) = (owned("a", "ReplicationController", "1"), owned("b", "ReplicationController", "1"));
        let (old, new) = (owned("old", "ReplicaSet", "2"), owned("new", "ReplicaSet", "3"));
        let unknown = owned("x", "Machine", "4");
        let said = |pods: &[&Arc<Pod>]| scale(&pods.iter().map(|p| Arc::clone(p)).collect::<Vec<_>>(), size);
        assert_eq!(said(&[&a, &b]), Ok(3), "an owner counts once");
        assert_eq!(said(&[&a, &old, &new]), Ok(7), "two sets of one deployment are one");
        assert_eq!(said(&[&a, &alone]), Ok(3), "who has no owner counts for nothing");
        assert_eq!(said(&[&a, &unknown]), Err("found no controllers for pod \"x\"".to_owned()));
    }
}
