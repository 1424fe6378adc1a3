//! Rollouts step by step against simulated ReplicaSets, and the promise that holds at every step: never more pods
//! than allowed, never fewer available than promised.

use std::sync::Arc;

use base::constants::annotations;
use base::id::fnv1a_32;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy, ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::limits::Limits;
use super::plan::{Action, Plan, plan};
use super::sets;
use crate::meta;
use crate::testing::at;

/// A Deployment and its sets as a cluster would hold them.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    clock: i64,
}

fn world(replicas: i32, surge: &str, unavailable: &str) -> World {
    let value = |text: &str| match text.parse() {
        Ok(number) => IntOrString::Int(number),
        Err(_) => IntOrString::String(text.into()),
    };
    let mut deployment = Deployment::default();
    deployment.metadata.name = Some("web".into());
    deployment.metadata.namespace = Some("ns".into());
    deployment.metadata.uid = Some("d".into());
    let spec = deployment.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    spec.selector =
        LabelSelector { match_labels: Some([("app".into(), "web".into())].into()), ..Default::default() };
    spec.strategy = Some(DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(value(surge)),
            max_unavailable: Some(value(unavailable)),
        }),
    });
    spec.progress_deadline_seconds = Some(600);
    spec.revision_history_limit = Some(2);
    let mut world = World { deployment, sets: Vec::new(), clock: 0 };
    world.template("v1");
    world
}

impl World {
    fn template(&mut self, version: &str) {
        let spec = self.deployment.spec.get_or_insert_default();
        let meta = spec.template.metadata.get_or_insert_default();
        meta.labels = Some([("app".into(), "web".into())].into());
        meta.annotations = Some([("version".into(), version.into())].into());
    }

    fn plan(&self) -> Plan {
        let sets = self.sets.iter().cloned().map(Arc::new).collect();
        plan(&self.deployment, sets, false, at(self.clock)).expect("it has a spec")
    }

    /// One reconcile, carried out.
    fn step(&mut self) -> Plan {
        self.clock += 1;
        let plan = self.plan();
        for action in plan.actions.clone() {
            match action {
                Action::Create(set) => {
                    let mut set = *set;
                    set.metadata.uid = set.metadata.name.clone();
                    set.metadata.creation_timestamp = Some(Time(at(self.clock)));
                    self.sets.push(set);
                }
                Action::Update { set, .. } => {
                    let place = self.sets.iter_mut().find(|s| s.metadata.name == set.metadata.name);
                    *place.expect("it is there") = *set;
                }
                Action::Delete(set) => self.sets.retain(|s| s.metadata.name != set.metadata.name),
                Action::SetRevision(revision) => {
                    let notes = self.deployment.metadata.annotations.get_or_insert_default();
                    notes.insert(annotations::DEPLOYMENT_REVISION.into(), revision.to_string());
                }
            }
        }
        self.deployment.status = Some(plan.status.clone());
        plan
    }

    /// Sets make their pods at once; `available` says how many of each serve.
    fn settle(&mut self, available: impl Fn(usize, i32) -> i32) {
        for (at, set) in self.sets.iter_mut().enumerate() {
            let size = sets::size(set);
            let status = set.status.get_or_insert_default();
            status.replicas = size;
            let serving = available(at, size).clamp(0, size);
            status.available_replicas = Some(serving);
            status.ready_replicas = Some(serving);
        }
    }

    fn run(&mut self) {
        for _ in 0..200 {
            self.settle(|_, size| size);
            if self.step().actions.is_empty() {
                return;
            }
        }
        panic!("it never came to rest: {:?}", self.sizes());
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(sets::size).collect()
    }

    fn reason(&self, type_: &str) -> String {
        let status = self.deployment.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        conditions.into_iter().find(|c| c.type_ == type_).and_then(|c| c.reason).unwrap_or_default()
    }
}

#[test]
fn a_first_rollout_makes_one_set_named_after_its_template() {
    let mut world = world(3, "25%", "25%");
    world.step();
    assert_eq!(world.reason("Progressing"), "NewReplicaSetCreated");
    assert_eq!(world.reason("Available"), "MinimumReplicasUnavailable");
    world.run();
    assert_eq!(world.sizes(), [3]);
    let set = &world.sets[0];
    let hash = meta::labels(&set.metadata)["pod-template-hash"].clone();
    assert_eq!(meta::name(&set.metadata), format!("web-{hash}"));
    assert_eq!(meta::annotation(&set.metadata, annotations::DEPLOYMENT_REVISION), Some("1"));
    assert_eq!(meta::annotation(&set.metadata, annotations::MAX_REPLICAS), Some("4"));
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
    assert_eq!(world.reason("Available"), "MinimumReplicasAvailable");
}

#[test]
fn going_back_reuses_the_old_set_under_a_new_revision() {
    let mut world = world(2, "1", "0");
    world.run();
    world.template("v2");
    world.run();
    assert_eq!(world.sizes(), [0, 2]);
    world.template("v1");
    world.run();
    assert_eq!(world.sizes(), [2, 0]);
    let notes = &world.sets[0].metadata;
    assert_eq!(meta::annotation(notes, annotations::DEPLOYMENT_REVISION), Some("3"));
    assert_eq!(meta::annotation(notes, sets::REVISION_HISTORY), Some("1"));
    assert_eq!(sets::revision(&world.deployment.metadata), 3);
}

#[test]
fn history_keeps_no_more_than_asked() {
    let mut world = world(1, "1", "0");
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        world.template(version);
        world.run();
    }
    let revisions: Vec<i64> = world.sets.iter().map(|s| sets::revision(&s.metadata)).collect();
    assert_eq!(revisions, [3, 4, 5]);
}

#[test]
fn recreate_stops_the_old_before_it_starts_the_new() {
    let mut world = world(2, "1", "0");
    world.run();
    let strategy = DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None };
    world.deployment.spec.get_or_insert_default().strategy = Some(strategy);
    world.template("v2");
    world.step();
    assert_eq!(world.sizes(), [0]);
    world.settle(|_, size| size);
    let sets = world.sets.iter().cloned().map(Arc::new).collect();
    let waiting = plan(&world.deployment, sets, true, at(50)).expect("it has a spec");
    assert!(waiting.actions.is_empty(), "{:?}", waiting.actions);
    world.run();
    assert_eq!(world.sizes(), [0, 2]);
}

#[test]
fn a_paused_deployment_is_scaled_but_not_rolled() {
    let mut world = world(2, "1", "0");
    world.run();
    world.deployment.spec.get_or_insert_default().paused = Some(true);
    world.template("v2");
    world.run();
    assert_eq!(world.sizes(), [2]);
    assert_eq!(world.reason("Progressing"), "DeploymentPaused");
    world.deployment.spec.get_or_insert_default().replicas = Some(5);
    world.run();
    assert_eq!(world.sizes(), [5]);
    world.deployment.spec.get_or_insert_default().paused = Some(false);
    world.run();
    assert_eq!(world.sizes(), [0, 5]);
}

#[test]
fn scaling_amid_a_rollout_keeps_the_proportion() {
    let mut world = world(10, "3", "2");
    world.run();
    world.template("v2");
    world.step();
    world.settle(|at, size| if at == 0 { size } else { 0 });
    world.step();
    assert_eq!(world.sizes(), [8, 3]);
    world.settle(|at, size| if at == 0 { size } else { 0 });
    world.step();
    assert_eq!(world.sizes(), [8, 5]);
    world.deployment.spec.get_or_insert_default().replicas = Some(15);
    world.settle(|at, size| if at == 0 { size } else { 0 });
    world.step();
    assert_eq!(world.sizes(), [11, 7]);
}

#[test]
fn a_rollout_that_stands_still_misses_its_deadline() {
    let mut world = world(2, "1", "0");
    world.step();
    world.settle(|_, _| 0);
    let plan = world.step();
    assert!(plan.look_again.is_some_and(|wait| wait.as_secs() <= 600));
    world.clock += 601;
    world.step();
    assert_eq!(world.reason("Progressing"), "ProgressDeadlineExceeded");
    world.run();
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
}

/// What ended long ago is not what the next rollout is judged by, also where its beginning has not been seen yet.
#[test]
fn a_rollout_is_not_judged_by_the_time_of_the_one_before() {
    let mut world = world(2, "1", "0");
    world.run();
    world.clock += 6000;
    let before = world.deployment.clone();
    world.template("v2");
    world.step();
    assert_eq!(world.reason("Progressing"), "NewReplicaSetCreated");
    // The set is there, but the Deployment is still seen as it was.
    world.deployment.status = before.status;
    world.settle(|at, size| if at == 0 { size } else { 0 });
    let plan = world.step();
    assert_ne!(world.reason("Progressing"), "ProgressDeadlineExceeded");
    assert_ne!(plan.look_again.map(|wait| wait.as_secs()), Some(0), "{plan:?}");
    world.run();
    world.clock += 6000;
    // Back to a set that is there already.
    world.template("v1");
    world.settle(|_, size| size);
    world.step();
    assert_ne!(world.reason("Progressing"), "ProgressDeadlineExceeded");
}

/// Any sizes, limits, and order in which pods come to serve: the promises hold after each step, and it ends.
#[test]
fn no_step_breaks_the_promises() {
    for seed in 0..400_u32 {
        let random = |salt: u32, below: u32| {
            let bytes = [seed.to_le_bytes(), salt.to_le_bytes()].concat();
            (fnv1a_32(&bytes) >> 8) % below
        };
        let replicas = random(1, 12) as i32 + 1;
        let surge = ["0", "1", "3", "25%", "100%"][random(2, 5) as usize];
        let unavailable = ["0", "1", "2", "25%", "50%"][random(3, 5) as usize];
        let mut world = world(replicas, surge, unavailable);
        world.run();
        world.template("v2");
        let limits = Limits::of(world.deployment.spec.as_ref().expect("it has one"));
        for step in 0..300_u32 {
            if step == 4 && random(4, 2) == 0 {
                world.template("v3");
            }
            world.step();
            let promised = format!("seed {seed} step {step} {limits:?} sizes {:?}", world.sizes());
            assert!(world.sizes().iter().sum::<i32>() <= limits.total(), "too many: {promised}");
            // Sets that shrink take pods that do not serve first, so what serves is the smaller of the two.
            let serving = |s: &ReplicaSet| {
                let available = s.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0);
                available.min(sets::size(s))
            };
            let available: i32 = world.sets.iter().map(serving).sum();
            assert!(available >= limits.available(), "too few: {promised}");
            // What served goes on to serve; some of the others come to.
            let before: Vec<i32> = world.sets.iter().map(serving).collect();
            let last = world.sets.len() - 1;
            world.settle(|at, size| match at == last {
                true => before[at] + (random(step + 10, 3) as i32).min(size - before[at]),
                false => before[at],
            });
        }
        world.run();
        assert_eq!(world.sizes().last(), Some(&replicas), "seed {seed}");
    }
}
