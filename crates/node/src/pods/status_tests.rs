//! What the API is told of a pod, from what was observed of it.

use container::runtime::ContainerState as State;
use serde_json::json;

use super::*;
use crate::pods::record::{Ending, Waiting, later};

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).expect("in range")
}

fn pod(restart: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"restartPolicy": restart, "initContainers": [{"name": "i", "image": "busybox"}],
            "containers": [{"name": "a", "image": "busybox"}]},
    }))
    .expect("a pod")
}

fn run(state: State, code: i32) -> RunRecord {
    RunRecord {
        id: "id".into(),
        state,
        exit_code: code,
        attempt: 2,
        started_at_ns: 1,
        finished_at_ns: 2,
        reason: if code == 0 { "Completed".into() } else { "Error".into() },
        ..RunRecord::default()
    }
}

/// phase, the state of the app container, conditions that hold
fn shown(pod: &Pod, record: &PodRecord) -> (String, String, Vec<String>) {
    let status = build_status(pod, record, &[], Ipv4Addr::new(10, 44, 0, 1), now());
    let app = &status.container_statuses.as_ref().expect("statuses")[0];
    let state = app.state.as_ref().expect("a state");
    let state = match (&state.waiting, &state.running, &state.terminated) {
        (Some(waiting), ..) => format!("waiting {}", waiting.reason.as_deref().unwrap_or_default()),
        (_, Some(_), _) => "running".into(),
        (.., Some(terminated)) => format!("terminated {}", terminated.exit_code),
        _ => "nothing".into(),
    };
    let conditions = status.conditions.expect("conditions");
    let holding = conditions.into_iter().filter(|c| c.status == "True").map(|c| c.type_).collect();
    (status.phase.expect("a phase"), state, holding)
}

#[test]
fn a_pod_is_shown_through_its_life() {
    let pod = pod("Never");
    let mut record = PodRecord::new(&pod, now());
    assert_eq!(
        shown(&pod, &record),
        ("Pending".into(), "waiting PodInitializing".into(), vec!["PodScheduled".into()])
    );
    record.sandbox = SandboxPhase::Ready;
    record.containers[0].current = Some(run(State::Exited, 0));
    let (phase, state, holding) = shown(&pod, &record);
    assert_eq!((phase.as_str(), state.as_str()), ("Pending", "waiting ContainerCreating"));
    assert_eq!(holding, ["PodReadyToStartContainers", "Initialized", "PodScheduled"]);
    record.containers[1].current = Some(run(State::Running, 0));
    (record.containers[1].started, record.containers[1].ready) = (true, true);
    let (phase, state, holding) = shown(&pod, &record);
    assert_eq!((phase.as_str(), state.as_str(), holding.len()), ("Running", "running", 5));
    record.containers[1].current = Some(run(State::Exited, 3));
    let (phase, state, holding) = shown(&pod, &record);
    assert_eq!((phase.as_str(), state.as_str(), holding.len()), ("Failed", "terminated 3", 3));
}

#[test]
fn a_crashing_container_waits_and_remembers() {
    let pod = pod("Always");
    let mut record = PodRecord::new(&pod, now());
    record.sandbox = SandboxPhase::Ready;
    record.containers[0].current = Some(run(State::Exited, 0));
    record.containers[1].current = Some(run(State::Exited, 1));
    record.containers[1].waiting = Some(Waiting::new("CrashLoopBackOff", "back-off"));
    let status = build_status(&pod, &record, &[], Ipv4Addr::LOCALHOST, now());
    let app = &status.container_statuses.as_ref().expect("statuses")[0];
    assert_eq!(app.restart_count, 2);
    assert_eq!(app.last_state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code), Some(1));
    assert_eq!(shown(&pod, &record).0, "Running");
}

#[test]
fn a_pod_past_its_deadline_has_failed_and_says_why() {
    let pod = pod("Always");
    let mut record = PodRecord::new(&pod, now());
    let reason = Some("DeadlineExceeded".to_owned());
    record.ending = Some(Ending { by: later(now(), 1), removal: false, reason, message: None });
    let status = build_status(&pod, &record, &[], Ipv4Addr::LOCALHOST, now());
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
}

#[test]
fn transition_times_stay_until_a_condition_turns() {
    let pod = pod("Always");
    let record = PodRecord::new(&pod, now());
    let first = build_status(&pod, &record, &[], Ipv4Addr::LOCALHOST, now()).conditions.expect("conditions");
    let again = build_status(&pod, &record, &first, Ipv4Addr::LOCALHOST, later(now(), 60));
    assert_eq!(Some(first), again.conditions);
}
