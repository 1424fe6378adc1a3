//! Jobs turn by turn, with pods whose ends are told by the test.

use super::*;
use crate::testing::{PodBuilder, at, pod_named};

fn job(completions: Option<i32>, parallelism: i32) -> Job {
    let mut job = Job::default();
    job.metadata.name = Some("j".into());
    let spec = job.spec.get_or_insert_default();
    (spec.completions, spec.parallelism, spec.backoff_limit) = (completions, Some(parallelism), Some(1));
    job
}

fn tracked(name: &str) -> PodBuilder {
    let mut pod = pod_named(name);
    pod.0.metadata.finalizers = Some(vec![FINALIZER.into()]);
    pod
}

fn turn(job: &mut Job, pods: &[Arc<Pod>], seconds: i64) -> Plan {
    let plan = plan(job, pods, true, at(seconds)).expect("it has a spec");
    job.status = Some(plan.status.clone());
    plan
}

fn reasons(job: &Job) -> Vec<String> {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.map(|c| format!("{} {}", c.type_, c.reason.clone().unwrap_or_default())).collect()
}

#[test]
fn an_end_is_counted_once_through_note_finalizer_number() {
    let mut job = job(Some(2), 2);
    assert_eq!(turn(&mut job, &[], 0).create.len(), 2);
    let done = tracked("a").phase("Succeeded").arc();
    let running = tracked("b").phase("Running").arc();
    let first = turn(&mut job, &[Arc::clone(&done), Arc::clone(&running)], 1);
    assert_eq!((first.release.len(), first.status.succeeded, first.create.len()), (1, None, 0));
    let noted = first.status.uncounted_terminated_pods.expect("noted");
    assert_eq!(noted.succeeded, Some(vec!["uid-a".to_owned()]));
    // The finalizer is still seen: nothing is counted twice.
    assert_eq!(turn(&mut job, &[done, Arc::clone(&running)], 2).status.succeeded, None);
    let released = pod_named("a").phase("Succeeded").arc();
    assert_eq!(turn(&mut job, &[released, running], 3).status.succeeded, Some(1));
    let both = [pod_named("a").phase("Succeeded").arc(), tracked("b").phase("Succeeded").arc()];
    turn(&mut job, &both, 4);
    assert_eq!(reasons(&job), ["SuccessCriteriaMet CompletionsReached"]);
    let last = turn(&mut job, &[both[0].clone(), pod_named("b").phase("Succeeded").arc()], 5);
    assert_eq!(last.status.succeeded, Some(2));
    assert_eq!(reasons(&job)[1], "Complete CompletionsReached");
    assert_eq!(last.events, [(false, "Completed".to_owned(), "Job completed".to_owned())]);
}

#[test]
fn failures_wait_longer_and_end_at_the_limit() {
    let mut job = job(Some(1), 1);
    turn(&mut job, &[], 0);
    let failed = tracked("a").phase("Failed").arc();
    let plan = turn(&mut job, &[Arc::clone(&failed)], 5);
    assert!(plan.create.is_empty());
    assert_eq!(plan.look_again, Some(Duration::from_secs(5)));
    let released = pod_named("a").phase("Failed").arc();
    assert_eq!(turn(&mut job, &[Arc::clone(&released)], 10).create.len(), 1);
    turn(&mut job, &[Arc::clone(&released), tracked("b").phase("Failed").arc()], 11);
    assert_eq!(reasons(&job), ["FailureTarget BackoffLimitExceeded"]);
    let last = turn(&mut job, &[released, pod_named("b").phase("Failed").arc()], 12);
    assert_eq!(reasons(&job)[1], "Failed BackoffLimitExceeded");
    assert_eq!(last.status.failed, Some(2));
    assert!(last.events[0].0);
}

#[test]
fn indexes_are_given_and_remembered() {
    let mut job = job(Some(3), 2);
    job.spec.get_or_insert_default().completion_mode = Some("Indexed".into());
    assert_eq!(turn(&mut job, &[], 0).create, [Some(0), Some(1)]);
    let of = |name: &str, index: &str, phase: &str| tracked(name).annotated(INDEX, index).phase(phase).arc();
    let pods = [of("a", "0", "Running"), of("b", "1", "Succeeded")];
    let plan = turn(&mut job, &pods, 1);
    assert_eq!(plan.create, [Some(2)]);
    assert_eq!((plan.status.completed_indexes.as_deref(), plan.status.succeeded), (Some("1"), Some(1)));
}

#[test]
fn suspending_removes_pods_without_counting_them() {
    let mut job = job(Some(1), 1);
    turn(&mut job, &[], 0);
    job.spec.get_or_insert_default().suspend = Some(true);
    let plan = turn(&mut job, &[tracked("a").phase("Running").arc()], 1);
    assert_eq!(plan.delete.iter().map(|(_, uncounted)| *uncounted).collect::<Vec<_>>(), [true]);
    assert_eq!((plan.status.start_time, reasons(&job)), (None, vec!["Suspended JobSuspended".to_owned()]));
    job.spec.get_or_insert_default().suspend = Some(false);
    assert_eq!(turn(&mut job, &[], 2).create.len(), 1);
    assert_eq!(reasons(&job), ["Suspended JobResumed"]);
}

#[test]
fn deadlines_and_lifetimes() {
    let mut job = job(Some(1), 1);
    let spec = job.spec.get_or_insert_default();
    (spec.active_deadline_seconds, spec.ttl_seconds_after_finished) = (Some(30), Some(100));
    turn(&mut job, &[], 0);
    let running = [tracked("a").phase("Running").arc()];
    assert_eq!(turn(&mut job, &running, 10).look_again, Some(Duration::from_secs(20)));
    let late = turn(&mut job, &running, 31);
    assert_eq!((reasons(&job), late.delete.len()), (vec!["FailureTarget DeadlineExceeded".to_owned()], 1));
    turn(&mut job, &[], 32);
    assert_eq!(turn(&mut job, &[], 60).look_again, Some(Duration::from_secs(72)));
    assert!(turn(&mut job, &[], 132).delete_job);
}
