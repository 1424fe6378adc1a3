//! A Deployment's next step, from the Deployment and its ReplicaSets alone.

use std::sync::Arc;
use std::time::Duration;

use base::constants::annotations;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};

use super::limits::{Limits, is_recreate};
use super::rollout::Rollout;
use super::sets::{self, Set};
use super::status::{Step, Summary, is_complete};
use crate::meta;

#[derive(Clone, Debug)]
pub enum Action {
    /// Name taken by another template's set: count a collision and plan again.
    Create(Box<ReplicaSet>),
    Update {
        set: Box<ReplicaSet>,
        from: i32,
        to: i32,
    },
    Delete(Arc<ReplicaSet>),
    /// Notes the revision on the Deployment itself.
    SetRevision(i64),
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub status: DeploymentStatus,
    pub look_again: Option<Duration>,
}

/// `old_pods_run`: whether pods of former templates still exist, which only `Recreate` asks.
pub fn plan(
    deployment: &Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    old_pods_run: bool,
    now: Timestamp,
) -> Option<Plan> {
    let spec = deployment.spec.as_ref()?;
    let limits = Limits::of(spec);
    let (new, old) = sets::split(spec, sets.into_iter().map(Set::new).collect());
    let mut rollout = Rollout { spec, limits, new, old };
    let mut actions = Vec::new();
    let mut step = Step::None;
    if !meta::is_deleting(&deployment.metadata) {
        step = advance(deployment, &mut rollout, old_pods_run, &mut actions);
    }
    let Rollout { new, old, .. } = rollout;
    let summary = Summary { deployment, spec, limits, new: new.as_ref(), old: &old, step, now };
    let (status, look_again) = summary.status();
    actions.extend(old.iter().chain(&new).filter_map(update_of));
    if !meta::is_deleting(&deployment.metadata) && is_complete(spec, &status) {
        actions.extend(surplus(spec, &old).into_iter().map(Action::Delete));
    }
    Some(Plan { actions, status, look_again })
}

fn advance(
    deployment: &Deployment,
    rollout: &mut Rollout<'_>,
    old_pods_run: bool,
    actions: &mut Vec<Action>,
) -> Step {
    let spec = rollout.spec;
    let next_revision = rollout.old.iter().map(Set::revision).max().unwrap_or(0) + 1;
    let mut step = Step::None;
    if let Some(new) = &mut rollout.new {
        sets::refresh(new, deployment, spec, next_revision);
        if sets::revision(&deployment.metadata) != new.revision() {
            actions.push(Action::SetRevision(new.revision()));
        }
        step = Step::Found(new.name().to_owned());
    }
    if spec.paused == Some(true) || rollout.was_scaled() {
        if rollout.was_scaled() || sizes_differ(rollout) {
            rollout.scale();
        }
        return step;
    }
    let new_runs = rollout.new.as_ref().is_some_and(|new| new.size() > 0);
    if is_recreate(spec) && (rollout.stop_old() || (old_pods_run && !new_runs)) {
        return step;
    }
    if rollout.new.is_none() {
        let mut set = sets::new_set(deployment, spec, next_revision);
        let size = rollout.new_size();
        set.spec.get_or_insert_default().replicas = Some(size);
        sets::note_limits(&mut set.metadata, &rollout.limits);
        step = Step::Created(meta::name(&set.metadata).to_owned());
        actions.push(Action::Create(Box::new(set)));
        if sets::revision(&deployment.metadata) != next_revision {
            actions.push(Action::SetRevision(next_revision));
        }
        return step;
    }
    if is_recreate(spec) {
        rollout.resize_new();
    } else {
        rollout.roll();
    }
    step
}

/// A paused Deployment with a single running set is still scaled.
fn sizes_differ(rollout: &Rollout<'_>) -> bool {
    let mut running = rollout.old.iter().chain(&rollout.new).filter(|set| set.size() > 0);
    match (running.next(), running.next()) {
        (Some(only), None) => only.size() != rollout.limits.desired,
        (None, _) => rollout.limits.desired > 0,
        _ => false,
    }
}

fn update_of(set: &Set) -> Option<Action> {
    let (from, to) = (sets::size(&set.seen), set.size());
    let changed =
        set.seen.metadata.annotations != set.wanted.metadata.annotations || set.seen.spec != set.wanted.spec;
    changed.then(|| Action::Update { set: Box::new(set.wanted.clone()), from, to })
}

/// Old sets beyond what history should keep, the oldest revisions first.
fn surplus(spec: &DeploymentSpec, old: &[Set]) -> Vec<Arc<ReplicaSet>> {
    let Some(limit) = spec.revision_history_limit else { return Vec::new() };
    let idle = |set: &&Set| {
        let observed = set.seen.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
        set.pods() == 0
            && set.size() == 0
            && observed >= set.seen.metadata.generation.unwrap_or(0)
            && !meta::is_deleting(&set.seen.metadata)
    };
    let kept = old.iter().filter(|set| !meta::is_deleting(&set.seen.metadata)).count();
    let excess = kept.saturating_sub(usize::try_from(limit).unwrap_or(0));
    let mut idle: Vec<&Set> = old.iter().filter(idle).collect();
    idle.sort_by_key(|set| set.revision());
    idle.into_iter().take(excess).map(|set| Arc::clone(&set.seen)).collect()
}

/// The annotation that carries a revision.
pub fn revision_patch(revision: i64, version: Option<&str>) -> serde_json::Value {
    let notes = serde_json::json!({ annotations::DEPLOYMENT_REVISION: revision.to_string() });
    serde_json::json!({ "metadata": { "resourceVersion": version, "annotations": notes } })
}
