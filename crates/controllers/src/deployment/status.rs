//! What a Deployment says of itself: counts, and the conditions that `kubectl rollout status` waits for.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::limits::Limits;
use super::sets::Set;
use crate::{meta, pod};

const NO_DEADLINE: i32 = i32::MAX;

/// What a step did that the conditions must tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Created(String),
    Found(String),
    None,
}

pub struct Summary<'a> {
    pub deployment: &'a Deployment,
    pub spec: &'a DeploymentSpec,
    pub limits: Limits,
    pub new: Option<&'a Set>,
    pub old: &'a [Set],
    pub step: Step,
    pub now: Timestamp,
}

impl Summary<'_> {
    /// The status, and when time alone may change it.
    pub fn status(&self) -> (DeploymentStatus, Option<Duration>) {
        let before = self.deployment.status.clone().unwrap_or_default();
        let mut status = self.counts(&before);
        let mut conditions =
            Conditions { list: before.conditions.clone().unwrap_or_default(), now: self.now };
        self.availability(&status, &mut conditions);
        self.failure(&mut conditions);
        let next = self.progress(&before, &status, &mut conditions);
        status.conditions = Some(conditions.list);
        (status, next)
    }

    fn counts(&self, before: &DeploymentStatus) -> DeploymentStatus {
        let all = || self.old.iter().chain(self.new);
        let some = |n: i32| (n > 0).then_some(n);
        let wanted: i32 = all().map(Set::size).sum();
        let available: i32 = all().map(Set::available).sum();
        let terminating = all().filter_map(|s| s.seen.status.as_ref()?.terminating_replicas).sum();
        DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: some(all().map(Set::pods).sum()),
            updated_replicas: some(self.new.map_or(0, Set::pods)),
            ready_replicas: some(all().map(Set::ready).sum()),
            available_replicas: some(available),
            unavailable_replicas: some(wanted - available),
            terminating_replicas: Some(terminating),
            collision_count: before.collision_count,
            conditions: None,
        }
    }

    fn availability(&self, status: &DeploymentStatus, conditions: &mut Conditions) {
        if status.available_replicas.unwrap_or(0) >= self.limits.available() {
            let message = "Deployment has minimum availability.";
            conditions.set("Available", "True", "MinimumReplicasAvailable", message.into());
        } else {
            let message = "Deployment does not have minimum availability.";
            conditions.set("Available", "False", "MinimumReplicasUnavailable", message.into());
        }
    }

    fn failure(&self, conditions: &mut Conditions) {
        let failures = self.new.into_iter().chain(self.old).filter_map(|set| {
            let listed = set.seen.status.as_ref()?.conditions.as_ref()?;
            listed.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True").cloned()
        });
        match failures.into_iter().next() {
            Some(failure) => {
                let reason = failure.reason.unwrap_or_default();
                conditions.set("ReplicaFailure", "True", &reason, failure.message.unwrap_or_default());
            }
            None => conditions.list.retain(|c| c.type_ != "ReplicaFailure"),
        }
    }

    fn progress(
        &self,
        before: &DeploymentStatus,
        status: &DeploymentStatus,
        conditions: &mut Conditions,
    ) -> Option<Duration> {
        let deadline = self.spec.progress_deadline_seconds.filter(|d| *d != NO_DEADLINE);
        if self.pause(conditions) {
            return None;
        }
        let Some(deadline) = deadline else {
            conditions.list.retain(|c| c.type_ != "Progressing");
            return None;
        };
        match &self.step {
            Step::Created(name) => {
                let message = format!("Created new replica set \"{name}\"");
                conditions.touch("True", "NewReplicaSetCreated", message);
            }
            Step::Found(name) if conditions.reason().is_none() => {
                conditions.touch("True", "FoundNewReplicaSet", format!("Found new replica set \"{name}\""));
            }
            _ => {}
        }
        let said_complete = conditions.reason() == Some("NewReplicaSetAvailable");
        if said_complete && status.replicas == status.updated_replicas {
            return None;
        }
        let who = match self.new {
            Some(new) => format!("ReplicaSet \"{}\"", new.name()),
            None => format!("Deployment \"{}\"", meta::name(&self.deployment.metadata)),
        };
        if is_complete(self.spec, status) {
            conditions.touch("True", "NewReplicaSetAvailable", format!("{who} has successfully progressed."));
            return None;
        }
        if has_progressed(before, status) {
            conditions.touch("True", "ReplicaSetUpdated", format!("{who} is progressing."));
        } else if conditions.overdue(deadline) {
            conditions.set(
                "Progressing",
                "False",
                "ProgressDeadlineExceeded",
                format!("{who} has timed out progressing."),
            );
            return None;
        }
        conditions.time_left(deadline)
    }

    /// Notes that the Deployment was paused or resumed. A paused one makes no progress to be judged.
    fn pause(&self, conditions: &mut Conditions) -> bool {
        let paused = self.spec.paused == Some(true);
        let was = conditions.reason() == Some("DeploymentPaused");
        if paused && !was && self.spec.progress_deadline_seconds.is_some() {
            conditions.touch("Unknown", "DeploymentPaused", "Deployment is paused".into());
        } else if !paused && was {
            conditions.touch("Unknown", "DeploymentResumed", "Deployment is resumed".into());
        }
        paused
    }
}

pub fn is_complete(spec: &DeploymentSpec, status: &DeploymentStatus) -> bool {
    let desired = spec.replicas.unwrap_or(1);
    [status.updated_replicas, status.replicas, status.available_replicas]
        .iter()
        .all(|n| n.unwrap_or(0) == desired)
}

fn has_progressed(before: &DeploymentStatus, status: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let old = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(status.updated_replicas) > n(before.updated_replicas)
        || old(status) < old(before)
        || n(status.ready_replicas) > n(before.ready_replicas)
        || n(status.available_replicas) > n(before.available_replicas)
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn progressing(&self) -> Option<&DeploymentCondition> {
        self.list.iter().find(|c| c.type_ == "Progressing")
    }

    fn reason(&self) -> Option<&str> {
        self.progressing()?.reason.as_deref()
    }

    /// Writes a condition unless it says the same already.
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: String) {
        let same = |c: &DeploymentCondition| {
            c.type_ == type_ && c.status == status && c.reason.as_deref() == Some(reason)
        };
        if !self.list.iter().any(same) {
            self.write(type_, status, reason, message);
        }
    }

    /// Writes the progress condition anew, for its time of update is what the deadline counts from.
    fn touch(&mut self, status: &str, reason: &str, message: String) {
        self.write("Progressing", status, reason, message);
    }

    fn write(&mut self, type_: &str, status: &str, reason: &str, message: String) {
        let now = Some(Time(self.now));
        let known = self.list.iter().find(|c| c.type_ == type_ && c.status == status);
        let transition = known.and_then(|c| c.last_transition_time.clone()).or_else(|| now.clone());
        let condition = DeploymentCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_update_time: now,
            last_transition_time: transition,
        };
        match self.list.iter_mut().find(|c| c.type_ == type_) {
            Some(place) => *place = condition,
            None => self.list.push(condition),
        }
    }

    /// Until the deadline of the rollout that the condition tells of. One that has ended is none to count from: what
    /// follows it says when it began.
    fn time_left(&self, deadline_seconds: i32) -> Option<Duration> {
        let ended = ["ProgressDeadlineExceeded", "NewReplicaSetAvailable"];
        let condition =
            self.progressing().filter(|c| !ended.contains(&c.reason.as_deref().unwrap_or_default()))?;
        let since = condition.last_update_time.as_ref()?.0;
        Some(pod::remaining(since, i64::from(deadline_seconds), self.now))
    }

    fn overdue(&self, deadline_seconds: i32) -> bool {
        match self.reason() {
            Some("ProgressDeadlineExceeded") => true,
            _ => self.time_left(deadline_seconds).is_some_and(|left| left.is_zero()),
        }
    }
}
