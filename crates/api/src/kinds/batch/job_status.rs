//! What the status of a job may become. Jobs may be run by other controllers than ours, so what clients rely on is held here: a
//! job that is done stays done, and says when and why. What has not changed is not held against a write.

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use std::collections::HashSet;

use super::job_policies::{count_indexes, index_ranges};
use crate::kinds::Errors;
use crate::kinds::validate::json;
use crate::status::{FieldError, Problem};

const CONDITIONS: &str = "status.conditions";
const COMPLETED: &str = "status.completionTime";

/// A status with what is asked of it over and over.
struct Seen {
    status: JobStatus,
    complete: bool,
    failed: bool,
    failing: bool,
    succeeding: bool,
}

impl Seen {
    fn of(job: &Job) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let is = |kind: &str| is_condition(&status, kind, "True");
        let (complete, failed) = (is("Complete"), is("Failed"));
        let (failing, succeeding) = (is("FailureTarget"), is("SuccessCriteriaMet"));
        Self { complete, failed, failing, succeeding, status }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }
}

fn is_condition(status: &JobStatus, kind: &str, value: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == value)
}

/// Conditions that do not go together; they are not shown.
fn contradiction(detail: &str, errors: &mut Errors) {
    let problem = Problem::Worded("FieldValueInvalid", format!("Invalid value: {detail}"));
    errors.push(FieldError { field: CONDITIONS.into(), problem });
}

pub fn check(new: &Job, old: &Job, errors: &mut Errors) {
    let spec = new.spec.clone().unwrap_or_default();
    let (now, before) = (Seen::of(new), Seen::of(old));
    check_counts(&now.status, errors);
    check_conditions(&now, &before, errors);
    check_end(&spec, &now, &before, errors);
    check_indexes(&spec, &now.status, &before.status, errors);
    check_pods(&now, &before, errors);
    check_success(&spec, &now, errors);
    check_change(&spec, &now, &before, errors);
}

fn check_counts(status: &JobStatus, errors: &mut Errors) {
    for (name, count) in [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ] {
        errors.not_negative(format!("status.{name}"), count.map(i64::from));
    }
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let mut seen = HashSet::new();
    for (part, uids) in [("succeeded", &uncounted.succeeded), ("failed", &uncounted.failed)] {
        for (i, uid) in uids.iter().flatten().enumerate() {
            let at = format!("status.uncountedTerminatedPods.{part}[{i}]");
            if uid.is_empty() {
                errors.push(FieldError::invalid(at, "", "must not be empty"));
            } else if !seen.insert(uid.as_str()) {
                errors.push(FieldError::duplicate(at, uid.as_str()));
            }
        }
    }
}

fn check_conditions(now: &Seen, before: &Seen, errors: &mut Errors) {
    let completes = now.complete != before.complete;
    if (completes || now.failed != before.failed) && now.complete && now.failed {
        contradiction("cannot set Complete=True and Failed=true conditions", errors);
    }
    if (completes || now.failing != before.failing) && now.complete && now.failing {
        contradiction("cannot set Complete=True and FailureTarget=true conditions", errors);
    }
}

/// When it was done, why, and what it then has no more.
fn check_end(spec: &JobSpec, now: &Seen, before: &Seen, errors: &mut Errors) {
    let (status, held) = (&now.status, &before.status);
    let completes = now.complete != before.complete;
    let ended = &status.completion_time;
    if completes || *ended != held.completion_time {
        if ended.is_some() && !now.complete {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            errors.push(FieldError::invalid(COMPLETED, json(ended), detail));
        }
        if ended.is_none() && now.complete {
            errors.push(FieldError::required(COMPLETED, "completionTime is required for Complete jobs"));
        }
    }
    if (status.start_time != held.start_time || *ended != held.completion_time)
        && let (Some(start), Some(end)) = (&status.start_time, ended)
        && end.0 < start.0
    {
        let detail = "must be equal to or after `startTime`";
        errors.push(FieldError::invalid(COMPLETED, json(end), detail));
    }
    let fails = now.failed != before.failed || status.failed_indexes != held.failed_indexes;
    if fails && now.failed && !now.failing {
        contradiction("cannot set Failed=True condition without the FailureTarget=true condition", errors);
    }
    if (completes || now.succeeding != before.succeeding) && now.complete && !now.succeeding {
        let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        contradiction(detail, errors);
    }
    let finishes = now.finished() != before.finished();
    let active = status.active.unwrap_or(0);
    if (finishes || active != held.active.unwrap_or(0)) && active > 0 && now.finished() {
        let detail = "active>0 is invalid for finished job";
        errors.push(FieldError::invalid("status.active", active, detail));
    }
    let never_runs = spec.suspend == Some(true) && spec.completions == Some(0);
    let starts = (finishes || status.start_time != held.start_time) && !never_runs;
    if starts && status.start_time.is_none() && now.finished() {
        errors.push(FieldError::required("status.startTime", "startTime is required for finished job"));
    }
    let uncounted = &status.uncounted_terminated_pods;
    if (finishes || *uncounted != held.uncounted_terminated_pods)
        && now.finished()
        && has_uncounted(uncounted)
    {
        let detail = "must be empty for finished job";
        let shown = json(uncounted);
        errors.push(FieldError::invalid("status.uncountedTerminatedPods", shown, detail));
    }
}

fn has_uncounted(pods: &Option<UncountedTerminatedPods>) -> bool {
    let some = |uids: &Option<Vec<String>>| uids.as_ref().is_some_and(|uids| !uids.is_empty());
    pods.as_ref().is_some_and(|pods| some(&pods.failed) || some(&pods.succeeded))
}

fn check_indexes(spec: &JobSpec, status: &JobStatus, held: &JobStatus, errors: &mut Errors) {
    let done = status.completed_indexes.as_deref().unwrap_or_default();
    let done_changed = done != held.completed_indexes.as_deref().unwrap_or_default();
    let failed = status.failed_indexes.as_deref();
    let failed_changed = status.failed_indexes != held.failed_indexes;
    let mut parse = |name: &str, text: &str, completions: i32| {
        if let Err(why) = count_indexes(text, completions) {
            let detail = format!("error parsing {name}: {why}");
            errors.push(FieldError::invalid(format!("status.{name}"), text, detail));
        }
    };
    if let Some(completions) = spec.completions {
        if done_changed {
            parse("completedIndexes", done, completions);
        }
        if let (true, Some(failed), Some(_)) = (failed_changed, failed, spec.backoff_limit_per_index) {
            parse("failedIndexes", failed, completions);
        }
    }
    if done_changed && !done.is_empty() && spec.completion_mode.as_deref() != Some("Indexed") {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(FieldError::invalid("status.completedIndexes", done, detail));
    }
    let Some(failed) = failed else { return };
    if failed_changed && spec.backoff_limit_per_index.is_none() {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(FieldError::invalid("status.failedIndexes", failed, detail));
    }
    if let Some(completions) = spec.completions.filter(|_| failed_changed || done_changed)
        && let Some(both) = first_in_both(done, failed, completions)
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {both}");
        errors.push(FieldError::invalid("status.failedIndexes", failed, detail));
    }
}

/// The first index that two lists of ranges have in common.
fn first_in_both(one: &str, other: &str, completions: i32) -> Option<i32> {
    let (one, other) = (index_ranges(one, completions), index_ranges(other, completions));
    let meet = |(from, to): &(i32, i32)| {
        let others = other.iter().filter(|(first, last)| from <= last && first <= to);
        others.map(|(first, _)| *first.max(from)).min()
    };
    one.iter().filter_map(meet).min()
}

fn check_pods(now: &Seen, before: &Seen, errors: &mut Errors) {
    let (status, held) = (&now.status, &before.status);
    let finishes = now.finished() != before.finished();
    if let Some(terminating) = status.terminating.filter(|n| *n > 0 && now.finished())
        && (finishes || status.terminating != held.terminating)
    {
        let detail = "terminating>0 is invalid for finished job";
        errors.push(FieldError::invalid("status.terminating", terminating, detail));
    }
    let (active, was) = (status.active.unwrap_or(0), held.active.unwrap_or(0));
    if let Some(ready) = status.ready.filter(|ready| *ready > active)
        && (status.ready != held.ready || active != was)
    {
        errors.push(FieldError::invalid("status.ready", ready, "cannot set more ready pods than active"));
    }
}

fn check_success(spec: &JobSpec, now: &Seen, errors: &mut Errors) {
    if now.succeeding && now.failed {
        contradiction("cannot set SuccessCriteriaMet=True and Failed=true conditions", errors);
    }
    if now.succeeding && now.failing {
        contradiction("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions", errors);
    }
    if spec.success_policy.is_some() && !now.succeeding && now.complete {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        contradiction(detail, errors);
    }
}

/// What was said once cannot be taken back.
fn check_change(spec: &JobSpec, now: &Seen, before: &Seen, errors: &mut Errors) {
    let (status, held) = (&now.status, &before.status);
    for (kind, was, is) in [
        ("Failed", before.failed, now.failed),
        ("Complete", before.complete, now.complete),
        ("FailureTarget", before.failing, now.failing),
    ] {
        if was && !is {
            contradiction(&format!("cannot disable the terminal {kind}=True condition"), errors);
        }
    }
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let scales = indexed && spec.completions == spec.parallelism;
    for (name, count, was) in
        [("failed", status.failed, held.failed), ("succeeded", status.succeeded, held.succeeded)]
    {
        let count = count.unwrap_or(0);
        if count < was.unwrap_or(0) && !(scales && name == "succeeded") {
            let detail = format!("cannot decrease the {name} counter");
            errors.push(FieldError::invalid(format!("status.{name}"), count, detail));
        }
    }
    if let (Some(end), Some(was)) = (&status.completion_time, &held.completion_time)
        && end != was
    {
        errors.push(FieldError::immutable(COMPLETED, json(end)));
    }
    let resumes = is_condition(held, "Suspended", "True") && is_condition(status, "Suspended", "False");
    let moved = held.start_time.is_some() && status.start_time != held.start_time;
    if moved && !resumes && spec.suspend != Some(true) {
        let detail = "field is immutable for unsuspended job once set";
        errors.push(FieldError::invalid("status.startTime", json(&status.start_time), detail));
    }
    if before.succeeding && !now.succeeding {
        contradiction("cannot disable the SuccessCriteriaMet=True condition", errors);
    }
    if before.complete && !before.succeeding && now.succeeding {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        contradiction(detail, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet_where_they_first_do() {
        let check = |one: &str, other: &str, expected: Option<i32>| {
            assert_eq!(first_in_both(one, other, 20), expected, "{one} {other}");
        };
        check("0,2-4", "1,5", None);
        check("0,2-4", "3-9", Some(3));
        check("0,2-4", "0", Some(0));
        check("", "0", None);
        check("x,5-7", "6", Some(6));
        check("30", "30", None);
    }
}
