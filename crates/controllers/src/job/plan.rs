//! A Job's next turn. Each pod's end is counted once, even if the pod is gone a moment later: its uid is first noted
//! in the status, then its finalizer is taken off, and only when that is seen it becomes a number.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{
    Job, JobCondition, JobSpec, JobStatus, PodFailurePolicyRule, UncountedTerminatedPods,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::indexes;
use crate::{meta, pod};

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const BURST: usize = 500;
const BACKOFF_FIRST_SECONDS: i64 = 10;
const BACKOFF_LAST_SECONDS: i64 = 600;
/// A status holds no more noted pods than this; the rest waits for the next turn.
const MAX_UNCOUNTED: usize = 500;

#[derive(Debug, Default)]
pub struct Plan {
    pub status: JobStatus,
    /// Pods whose finalizer goes once the status is written.
    pub release: Vec<Arc<Pod>>,
    /// Pods to delete, uncounted if so said.
    pub delete: Vec<(Arc<Pod>, bool)>,
    /// One pod each; with its index if the Job has such.
    pub create: Vec<Option<i32>>,
    /// Level is warning if true.
    pub events: Vec<(bool, String, String)>,
    /// The Job itself has outlived its time.
    pub delete_job: bool,
    pub look_again: Option<Duration>,
}

struct View<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
}

pub fn condition<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == "True")
}

pub fn is_finished(status: &JobStatus) -> bool {
    condition(status, "Complete").or(condition(status, "Failed")).is_some()
}

pub fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub fn index_of(pod: &Pod) -> Option<i32> {
    let noted = meta::annotation(&pod.metadata, INDEX);
    noted.or_else(|| meta::labels(&pod.metadata).get(INDEX).map(String::as_str))?.parse().ok()
}

/// `may_change_pods` is false while the cache has not caught up with what was done last.
pub fn plan(job: &Job, pods: &[Arc<Pod>], may_change_pods: bool, now: Timestamp) -> Option<Plan> {
    let spec = job.spec.as_ref()?;
    let view = View { job, spec, pods, now };
    let mut plan = Plan { status: job.status.clone().unwrap_or_default(), ..Default::default() };
    if is_finished(&plan.status) {
        plan.release = pods.iter().filter(|p| meta::has_finalizer(&p.metadata, FINALIZER)).cloned().collect();
        view.outlive(&mut plan);
        return Some(plan);
    }
    view.start(&mut plan);
    view.count(&mut plan);
    view.judge(&mut plan);
    if may_change_pods && !meta::is_deleting(&job.metadata) {
        view.manage(&mut plan);
    }
    view.finish(&mut plan);
    Some(plan)
}

impl View<'_> {
    fn limit(&self) -> i32 {
        self.spec.backoff_limit.unwrap_or(6)
    }

    fn active(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|p| pod::is_active(p))
    }

    fn waits_for_end(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    /// A pod that will not succeed any more.
    fn has_failed(&self, pod: &Pod) -> bool {
        match pod::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => meta::is_deleting(&pod.metadata) && !self.waits_for_end(),
        }
    }

    fn rule_for(&self, pod: &Pod) -> Option<&PodFailurePolicyRule> {
        let rules = self.spec.pod_failure_policy.as_ref().map(|p| p.rules.as_slice()).unwrap_or_default();
        rules.iter().find(|rule| matches_rule(rule, pod))
    }

    fn start(&self, plan: &mut Plan) {
        let suspended = self.spec.suspend == Some(true);
        let was = condition(&plan.status, "Suspended").is_some();
        match (suspended, was) {
            (true, false) => {
                set(&mut plan.status, "Suspended", "True", "JobSuspended", "Job suspended", self.now);
                plan.status.start_time = None;
                plan.events.push((false, "Suspended".into(), "Job suspended".into()));
            }
            (false, true) => {
                set(&mut plan.status, "Suspended", "False", "JobResumed", "Job resumed", self.now);
                plan.events.push((false, "Resumed".into(), "Job resumed".into()));
            }
            _ => {}
        }
        if !suspended && plan.status.start_time.is_none() {
            plan.status.start_time = Some(Time(self.now));
        }
    }

    fn count(&self, plan: &mut Plan) {
        let status = &mut plan.status;
        let mut uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let held: HashSet<&str> = self
            .pods
            .iter()
            .filter(|p| meta::has_finalizer(&p.metadata, FINALIZER))
            .map(|p| meta::uid(&p.metadata))
            .collect();
        let settle = |list: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
            let before = list.take().unwrap_or_default();
            let (waiting, done): (Vec<_>, Vec<_>) =
                before.into_iter().partition(|uid| held.contains(uid.as_str()));
            if !done.is_empty() {
                let more = i32::try_from(done.len()).unwrap_or(i32::MAX);
                *counter = Some(counter.unwrap_or(0).saturating_add(more));
            }
            *list = Some(waiting).filter(|l| !l.is_empty());
        };
        settle(&mut uncounted.succeeded, &mut status.succeeded);
        settle(&mut uncounted.failed, &mut status.failed);
        let indexed = is_indexed(self.spec);
        let mut completed = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default());
        for pod in self.pods.iter().filter(|p| held.contains(meta::uid(&p.metadata))) {
            let uid = meta::uid(&pod.metadata).to_owned();
            let full = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len) >= MAX_UNCOUNTED;
            let knows = |list: &Option<Vec<String>>| list.iter().flatten().any(|known| *known == uid);
            if pod::phase(pod) == "Succeeded" {
                if let (true, Some(index)) = (indexed, index_of(pod)) {
                    if index < self.spec.completions.unwrap_or(0) {
                        completed.insert(index);
                    }
                } else if knows(&uncounted.succeeded) {
                } else if full(&uncounted.succeeded) {
                    continue;
                } else {
                    uncounted.succeeded.get_or_insert_default().push(uid);
                }
                plan.release.push(Arc::clone(pod));
            } else if self.has_failed(pod) {
                let ignored = self.rule_for(pod).is_some_and(|rule| rule.action == "Ignore");
                if !ignored && !knows(&uncounted.failed) {
                    if full(&uncounted.failed) {
                        continue;
                    }
                    uncounted.failed.get_or_insert_default().push(uid);
                }
                plan.release.push(Arc::clone(pod));
            }
        }
        if indexed {
            status.succeeded = i32::try_from(completed.len()).ok().filter(|n| *n > 0);
            status.completed_indexes = Some(indexes::format(&completed)).filter(|t| !t.is_empty());
        }
        let count = |test: &dyn Fn(&Pod) -> bool| {
            i32::try_from(self.pods.iter().filter(|p| test(p)).count()).unwrap_or(i32::MAX)
        };
        status.active = Some(count(&pod::is_active)).filter(|n| *n > 0);
        status.ready = Some(count(&|p| pod::is_active(p) && pod::is_ready(p)));
        status.terminating = Some(count(&|p| meta::is_deleting(&p.metadata) && !pod::has_ended(p)));
        status.uncounted_terminated_pods = Some(uncounted);
    }

    fn succeeded(&self, status: &JobStatus) -> i32 {
        let noted =
            status.uncounted_terminated_pods.as_ref().and_then(|u| u.succeeded.as_ref()).map_or(0, Vec::len);
        status.succeeded.unwrap_or(0) + i32::try_from(noted).unwrap_or(i32::MAX)
    }

    fn failed(&self, status: &JobStatus) -> i32 {
        let noted =
            status.uncounted_terminated_pods.as_ref().and_then(|u| u.failed.as_ref()).map_or(0, Vec::len);
        status.failed.unwrap_or(0) + i32::try_from(noted).unwrap_or(i32::MAX)
    }

    /// Decides whether the Job has succeeded or failed. What is left of it then goes before it is said to be finished.
    fn judge(&self, plan: &mut Plan) {
        let status = &mut plan.status;
        if condition(status, "SuccessCriteriaMet").or(condition(status, "FailureTarget")).is_some() {
            return;
        }
        if let Some((reason, message)) = self.failure(status) {
            set(status, "FailureTarget", "True", reason, &message, self.now);
            return;
        }
        if let Some(message) = self.success_by_policy(status) {
            set(status, "SuccessCriteriaMet", "True", "SuccessPolicy", &message, self.now);
            return;
        }
        let succeeded = self.succeeded(status);
        let complete = match self.spec.completions {
            Some(completions) => succeeded >= completions,
            None => succeeded > 0 && self.active().next().is_none(),
        };
        if complete {
            let message = "Reached expected number of succeeded pods";
            set(status, "SuccessCriteriaMet", "True", "CompletionsReached", message, self.now);
        } else if let Some(left) = self.deadline(status) {
            plan.look_again = Some(left);
        }
    }

    fn failure(&self, status: &JobStatus) -> Option<(&'static str, String)> {
        let by_rule = self.pods.iter().filter(|p| pod::phase(p) == "Failed").find_map(|p| {
            let rule = self.rule_for(p).filter(|rule| rule.action == "FailJob")?;
            let at = self.spec.pod_failure_policy.as_ref()?.rules.iter().position(|r| r == rule)?;
            let name = format!("{}/{}", meta::namespace(&p.metadata), meta::name(&p.metadata));
            Some(("PodFailurePolicy", format!("Pod {name} has failed matching FailJob rule at index {at}")))
        });
        if by_rule.is_some() {
            return by_rule;
        }
        let restarts: i32 = match self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) {
            Some("OnFailure") => self.active().map(|p| pod::restarts(p)).sum(),
            _ => 0,
        };
        let by_restarts = restarts > 0 && restarts >= self.limit().max(1);
        if self.failed(status) > self.limit() || by_restarts {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
        }
        let over = self.deadline(status).is_some_and(|left| left.is_zero());
        over.then(|| ("DeadlineExceeded", "Job was active longer than specified deadline".into()))
    }

    fn deadline(&self, status: &JobStatus) -> Option<Duration> {
        if self.spec.suspend == Some(true) {
            return None;
        }
        Some(pod::remaining(status.start_time.as_ref()?.0, self.spec.active_deadline_seconds?, self.now))
    }

    fn success_by_policy(&self, status: &JobStatus) -> Option<String> {
        let rules = &self.spec.success_policy.as_ref()?.rules;
        let completed = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default());
        let met = rules.iter().position(|rule| {
            let named = rule.succeeded_indexes.as_deref().map(indexes::parse);
            let among = named.as_ref().map_or(completed.len(), |named| completed.intersection(named).count());
            let needed = rule.succeeded_count.and_then(|n| usize::try_from(n).ok());
            let needed = needed.or(named.map(|n| n.len())).unwrap_or(usize::MAX);
            among >= needed
        })?;
        Some(format!("Matched rules at index {met}"))
    }

    fn manage(&self, plan: &mut Plan) {
        let ending = condition(&plan.status, "SuccessCriteriaMet").is_some();
        let failing = condition(&plan.status, "FailureTarget").is_some();
        if ending || failing || self.spec.suspend == Some(true) {
            // Pods that fall with a failed Job count as failed; others are nobody's failure.
            plan.delete = self.active().map(|p| (Arc::clone(p), !failing)).collect();
            return;
        }
        let succeeded = self.succeeded(&plan.status);
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            Some(completions) => parallelism.min((completions - succeeded).max(0)),
            None if succeeded > 0 => 0,
            None => parallelism,
        };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let mut active: Vec<_> = self.active().cloned().collect();
        if active.len() > wanted && !(self.spec.completions.is_none() && succeeded > 0) {
            active.sort_by_key(|p| {
                (pod::is_ready(p), pod::node_name(p).is_some(), std::cmp::Reverse(meta::created(&p.metadata)))
            });
            active.truncate(active.len() - wanted);
            plan.delete = active.into_iter().map(|p| (p, true)).collect();
            return;
        }
        let ending = if self.waits_for_end() {
            usize::try_from(plan.status.terminating.unwrap_or(0)).unwrap_or(0)
        } else {
            0
        };
        let missing = wanted.saturating_sub(active.len() + ending).min(BURST);
        if missing == 0 {
            return;
        }
        let wait = self.backoff();
        if !wait.is_zero() {
            plan.look_again = Some(plan.look_again.map_or(wait, |known| known.min(wait)));
            return;
        }
        plan.create = match is_indexed(self.spec) {
            true => self.free_indexes(&plan.status).into_iter().take(missing).map(Some).collect(),
            false => vec![None; missing],
        };
    }

    fn free_indexes(&self, status: &JobStatus) -> Vec<i32> {
        let completed = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default());
        let taken: BTreeSet<i32> = self
            .pods
            .iter()
            .filter(|p| pod::is_active(p) || (self.waits_for_end() && !pod::has_ended(p)))
            .filter_map(|p| index_of(p))
            .collect();
        let all = 0..self.spec.completions.unwrap_or(0);
        all.filter(|index| !completed.contains(index) && !taken.contains(index)).collect()
    }

    /// How long to wait before another pod, the longer the more have failed since one last succeeded.
    fn backoff(&self) -> Duration {
        let ended = |p: &Arc<Pod>| {
            let statuses = p.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
            let ends = statuses
                .filter_map(|s| s.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
                .map(|t| t.0);
            ends.max()
                .or(p.metadata.deletion_timestamp.as_ref().map(|t| t.0))
                .unwrap_or_else(|| meta::created(&p.metadata))
        };
        let succeeded = self.pods.iter().filter(|p| pod::phase(p) == "Succeeded").map(ended).max();
        let failed: Vec<Timestamp> =
            self.pods.iter().filter(|p| pod::phase(p) == "Failed").map(ended).collect();
        let since: Vec<Timestamp> =
            failed.into_iter().filter(|at| succeeded.is_none_or(|s| *at > s)).collect();
        let Some(last) = since.iter().max() else { return Duration::ZERO };
        let doublings = u32::try_from(since.len() - 1).unwrap_or(u32::MAX).min(10);
        let seconds = (BACKOFF_FIRST_SECONDS << doublings).min(BACKOFF_LAST_SECONDS);
        pod::remaining(*last, seconds, self.now)
    }

    /// Says that the Job is finished, once all its pods have ended and are counted.
    fn finish(&self, plan: &mut Plan) {
        let uncounted = plan.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let quiet = self.pods.iter().all(|p| pod::has_ended(p))
            && uncounted == UncountedTerminatedPods::default()
            && plan.release.iter().all(|p| {
                pod::phase(p) == "Succeeded" || self.rule_for(p).is_some_and(|r| r.action == "Ignore")
            });
        if !quiet {
            return;
        }
        if let Some(target) = condition(&plan.status, "FailureTarget").cloned() {
            let (reason, message) = (target.reason.unwrap_or_default(), target.message.unwrap_or_default());
            set(&mut plan.status, "Failed", "True", &reason, &message, self.now);
            plan.events.push((true, reason, message));
        } else if let Some(target) = condition(&plan.status, "SuccessCriteriaMet").cloned() {
            let (reason, message) = (target.reason.unwrap_or_default(), target.message.unwrap_or_default());
            set(&mut plan.status, "Complete", "True", &reason, &message, self.now);
            plan.status.completion_time = Some(Time(self.now));
            plan.events.push((false, "Completed".into(), "Job completed".into()));
        } else {
            return;
        }
        plan.look_again = None;
        self.outlive(plan);
        plan.delete_job = false;
        plan.look_again = plan.look_again.or(self.spec.ttl_seconds_after_finished.map(|_| Duration::ZERO));
    }

    fn outlive(&self, plan: &mut Plan) {
        let Some(ttl) = self.spec.ttl_seconds_after_finished else { return };
        let finished = condition(&plan.status, "Complete").or(condition(&plan.status, "Failed"));
        let Some(at) = finished.and_then(|c| c.last_transition_time.as_ref()) else { return };
        let left = pod::remaining(at.0, i64::from(ttl), self.now);
        plan.delete_job = left.is_zero() && !meta::is_deleting(&self.job.metadata);
        plan.look_again = (!left.is_zero()).then_some(left);
    }
}

fn matches_rule(rule: &PodFailurePolicyRule, pod: &Pod) -> bool {
    if let Some(wanted) = &rule.on_exit_codes {
        let statuses = pod
            .status
            .iter()
            .flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
        return statuses
            .filter(|s| wanted.container_name.as_ref().is_none_or(|name| *name == s.name))
            .filter_map(|s| s.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code))
            .any(|code| match wanted.operator.as_str() {
                "In" => wanted.values.contains(&code),
                _ => code != 0 && !wanted.values.contains(&code),
            });
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    patterns.iter().any(|pattern| {
        let status = pattern.status.as_deref().unwrap_or("True");
        pod::condition(pod, &pattern.type_).is_some_and(|c| c.status == status)
    })
}

fn set(status: &mut JobStatus, type_: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let condition = JobCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(known) if known.status == value => {}
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
