//! A case is a pod written as words: `init:i=0 side:s+ app:a app:b!1` means an init container that ended with 0, a
//! sidecar that is up, an app container not yet there, and one that ended with 1; `o` after it: in an older sandbox.

use container::runtime::ContainerState;
use k8s_openapi::api::core::v1::Pod;

use super::*;
use crate::pods::record::{Ending, Restart, RunRecord, later};

const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("in range")
}

fn container(word: &str) -> ContainerRecord {
    let (kind, rest) = word.split_once(':').expect("kind:name");
    let kind = match kind {
        "init" => Kind::Init,
        "side" => Kind::Sidecar,
        "app" => Kind::App,
        _ => Kind::Ephemeral,
    };
    let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    let (name, state) = rest.split_at(end);
    let mut container = ContainerRecord::new(name, kind, "h".into());
    let mut run = RunRecord { id: name.into(), hash: "h".into(), ..RunRecord::default() };
    match state.chars().next() {
        None => return container,
        Some('+') => {
            (run.state, container.started) = (ContainerState::Running, true);
        }
        // Running, not yet started in the sense of its probes.
        Some('~') => run.state = ContainerState::Running,
        Some('?') => {
            (run.state, container.started) = (ContainerState::Running, true);
            container.unhealthy = Some("sick".into());
        }
        Some('%') => {
            (run.state, run.hash) = (ContainerState::Running, "old".into());
        }
        Some('.') => {
            container.operation = Some(Operation::Starting);
            return container;
        }
        Some('-') => {
            run.state = ContainerState::Running;
            container.operation = Some(Operation::Stopping { by: later(now(), 30) });
        }
        Some('=' | '!') => {
            (run.state, run.exit_code) = (ContainerState::Exited, state[1..2].parse().expect("a digit"));
            if state.ends_with('o') {
                // Of an older sandbox.
                run.sandbox_id = "u-9".into();
            }
            if state.ends_with('w') {
                container.not_before = Some(later(now(), 10));
            }
        }
        Some(other) => panic!("what is {other}?"),
    }
    container.current = Some(run);
    container
}

fn pod(restart: Restart, words: &str) -> PodRecord {
    let mut pod = PodRecord::new(&Pod::default(), now());
    pod.restart = restart;
    pod.sandbox = SandboxPhase::Ready;
    pod.containers = words.split_whitespace().map(container).collect();
    pod
}

fn shown(pod: &PodRecord) -> String {
    let plan = plan(pod, now());
    let mut words: Vec<String> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::Start { name } => format!("start {name}"),
            Action::Kill { name, .. } => format!("kill {name}"),
            other => format!("{other:?}"),
        })
        .collect();
    words.extend(plan.wake_at.map(|at| format!("wake +{}", at.as_second() - NOW)));
    words.join(", ")
}

#[test]
fn a_pod_goes_on_according_to_its_policy() {
    use Restart::{Always, Never, OnFailure};
    let cases = [
        (Always, "app:a app:b", "start a, start b"),
        (Always, "init:i init:j app:a", "start i"),
        (Always, "init:i. app:a", ""),
        (Always, "init:i=0 init:j app:a", "start j"),
        (Always, "init:i=0 init:j=0 app:a", "start a"),
        (Always, "init:i!1 app:a", "start i"),
        (Always, "init:i!1w app:a", "wake +10"),
        (Always, "init:i=0o app:a!1o", "start i"),
        (Always, "init:i. app:a!1o", ""),
        (Always, "init:i=0 app:a!1o", "start a"),
        (Always, "init:i=0 init:j=0o app:a=0o", "start j"),
        (Never, "init:i=0o app:a", "start i"),
        (Never, "init:i=0 app:a!1", "StopSandbox"),
        (Never, "init:i!1 app:a", "StopSandbox"),
        (Always, "init:i=0 side:s init:j app:a", "start s"),
        (Always, "init:i=0 side:s~ init:j app:a", ""),
        (Always, "init:i=0 side:s+ init:j app:a", "start j"),
        (Always, "init:i=0 side:s+ init:j=0 app:a", "start a"),
        (Always, "side:s!1 app:a+", "start s"),
        (Always, "app:a=0 app:b+", "start a"),
        (OnFailure, "app:a=0 app:b+", ""),
        (OnFailure, "app:a!1 app:b+", "start a"),
        (OnFailure, "app:a=0 app:b=0", "StopSandbox"),
        (Never, "app:a!1 app:b=0", "StopSandbox"),
        (Never, "app:a!1 side:s+ side:t+", "kill t"),
        (Never, "side:s+ side:t- app:a!1", ""),
        (Always, "app:a!1w app:b", "start b, wake +10"),
        (Always, "app:a?", "kill a"),
        (Always, "app:a%", "kill a"),
        (Always, "app:a-", ""),
        (Always, "app:a+ eph:d", "start d"),
        (Always, "app:a+ eph:d!1", ""),
    ];
    for (restart, words, expected) in cases {
        assert_eq!(shown(&pod(restart, words)), expected, "{restart:?} {words}");
    }
}

#[test]
fn an_ending_pod_is_taken_down_in_order() {
    let cases = [
        ("app:a+ app:b+ side:s+", Teardown::No, "kill a, kill b"),
        ("app:a- app:b=0 side:s+", Teardown::No, "kill a"),
        ("app:a=0 side:s+ side:t+", Teardown::No, "kill t"),
        ("app:a. side:s+", Teardown::No, ""),
        ("app:a=0 side:s=0", Teardown::No, "TearDown"),
        ("app:a", Teardown::No, "TearDown"),
        ("app:a=0", Teardown::Doing, ""),
        ("app:a=0", Teardown::Done, "Finish"),
        ("app:a=0", Teardown::Finished, ""),
    ];
    for (words, teardown, expected) in cases {
        let mut pod = pod(Restart::Always, words);
        pod.teardown = teardown;
        // Sooner than the 30 s a stop was promised.
        pod.ending = Some(Ending { by: later(now(), 5), removal: true, reason: None, message: None });
        assert_eq!(shown(&pod), expected, "{words} {teardown:?}");
    }
    let mut expired = pod(Restart::Always, "app:a=0");
    expired.ending = Some(Ending { by: now(), removal: false, reason: None, message: None });
    assert_eq!(shown(&expired), "StopSandbox");
}

#[test]
fn nothing_runs_without_a_sandbox_and_nothing_past_the_deadline() {
    let mut fresh = pod(Restart::Always, "app:a");
    fresh.sandbox = SandboxPhase::Absent;
    assert_eq!(shown(&fresh), "SetUp");
    fresh.set_up_not_before = Some(later(now(), 3));
    assert_eq!(shown(&fresh), "wake +3");
    let mut lost = pod(Restart::Always, "app:a!1");
    lost.sandbox = SandboxPhase::Lost;
    assert_eq!(shown(&lost), "SetUp");
    let mut timed = pod(Restart::Always, "app:a+");
    timed.deadline = Some(later(now(), 7));
    assert_eq!(shown(&timed), "wake +7");
    timed.deadline = Some(now());
    assert_eq!(shown(&timed), "Expire");
}
