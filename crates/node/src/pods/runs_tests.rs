//! What is remembered of a container's runs, by what the runtime lists and what the API was told.

use container::runtime::reason;
use serde_json::json;

use super::*;

fn pod(status: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"containers": [{"name": "a", "image": "busybox"}]},
        "status": status,
    }))
    .expect("a pod")
}

fn record() -> PodRecord {
    PodRecord::new(&pod(json!({})), Timestamp::UNIX_EPOCH)
}

fn listed(attempt: u32, state: ContainerState, exit_code: i32) -> ContainerStatus {
    let reason = if state == ContainerState::Exited { reason::ERROR } else { "" };
    ContainerStatus {
        id: format!("run-{attempt}"),
        sandbox_id: format!("u-{attempt}"),
        name: "a".into(),
        attempt,
        state,
        exit_code,
        reason: reason.into(),
        ..ContainerStatus::default()
    }
}

/// Attempt and exit code of the newest run and of the one before it.
fn known(record: &PodRecord) -> Vec<(u32, i32)> {
    let container = &record.containers[0];
    [&container.current, &container.previous]
        .into_iter()
        .flatten()
        .map(|r| (r.attempt, r.exit_code))
        .collect()
}

#[test]
fn the_run_before_stays_known_when_its_sandbox_is_not_listed_any_more() {
    let mut record = record();
    take_runs(&mut record, &[listed(0, ContainerState::Exited, 3)], true);
    take_runs(&mut record, &[], false);
    assert_eq!(known(&record), [(0, 3)]);
    take_runs(&mut record, &[listed(1, ContainerState::Running, 0)], false);
    assert_eq!(known(&record), [(1, 0), (0, 3)]);
    take_runs(&mut record, &[listed(1, ContainerState::Exited, 4)], true);
    take_runs(&mut record, &[listed(2, ContainerState::Running, 0)], false);
    assert_eq!(known(&record), [(2, 0), (1, 4)], "one run before is kept, as by the kubelet");
}

#[test]
fn a_run_that_the_runtime_has_lost_has_failed() {
    let mut record = record();
    take_runs(&mut record, &[listed(0, ContainerState::Running, 0)], false);
    take_runs(&mut record, &[], true);
    let run = record.containers[0].current.as_ref().expect("a run");
    assert_eq!((run.exit_code, run.reason.as_str()), (137, "ContainerStatusUnknown"));
    // It was only late to say how the run has ended.
    take_runs(&mut record, &[listed(0, ContainerState::Exited, 5)], true);
    assert_eq!(known(&record), [(0, 5)]);
}

#[test]
fn an_end_that_nobody_saw_is_told_as_the_kubelet_tells_it() {
    let mut record = record();
    let mut status = listed(0, ContainerState::Exited, 137);
    status.reason = reason::UNKNOWN.into();
    status.message = "the process that held the container is gone".into();
    take_runs(&mut record, &[status], true);
    let run = record.containers[0].current.as_ref().expect("a run");
    assert_eq!((run.exit_code, run.reason.as_str()), (137, "ContainerStatusUnknown"));
    assert_eq!(run.message, "the process that held the container is gone");
}

#[test]
fn what_the_runtime_knows_nothing_of_is_recalled_from_what_was_told() {
    let told = |state, last| {
        json!({"containerStatuses": [{
            "name": "a", "image": "busybox", "imageID": "sha", "ready": true, "restartCount": 4,
            "containerID": "kedge://run-4", "state": state, "lastState": last,
        }]})
    };
    let ended =
        |id: &str, code: i32| json!({"terminated": {"exitCode": code, "reason": "Error", "containerID": id}});
    let running = json!({"running": {"startedAt": "2026-01-02T03:04:05Z"}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let check = |status, expected: &[(u32, i32)]| {
        let mut record = record();
        recall(&mut record, &pod(status));
        assert_eq!(known(&record), expected);
        record
    };
    let record = check(told(running.clone(), ended("kedge://run-3", 2)), &[(4, 137), (3, 2)]);
    let run = record.containers[0].current.as_ref().expect("a run");
    assert_eq!((run.id.as_str(), run.reason.as_str()), ("run-4", "ContainerStatusUnknown"));
    assert!(
        run.is_over()
            && run.message.starts_with("The container could not be located")
            && run.started_at_ns > 0
    );
    check(told(ended("kedge://run-4", 9), ended("kedge://run-3", 2)), &[(4, 9), (3, 2)]);
    check(told(waiting, ended("kedge://run-4", 9)), &[(4, 9)]);
    check(told(json!({"waiting": {"reason": "ContainerCreating"}}), json!({})), &[]);
    check(json!({}), &[]);
    // What the runtime says comes first.
    let mut record = self::record();
    take_runs(&mut record, &[listed(5, ContainerState::Running, 0)], false);
    recall(&mut record, &pod(told(running, json!({}))));
    assert_eq!(known(&record), [(5, 0)]);
}
