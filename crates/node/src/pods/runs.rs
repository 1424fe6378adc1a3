//! From what the runtime lists to the record: which run of each container is the newest, and what it said last.

use container::runtime::{ContainerState, ContainerStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::record::{Kind, PodRecord, RunRecord, keys, later};
use crate::logs::last_words;

/// Sets each container's newest run and the one before it. Where the sandbox is lost nothing can be running.
pub fn take_runs(record: &mut PodRecord, statuses: &[ContainerStatus], lost: bool) {
    for container in &mut record.containers {
        let mut runs: Vec<&ContainerStatus> = statuses.iter().filter(|s| s.name == container.name).collect();
        runs.sort_by_key(|status| std::cmp::Reverse(status.attempt));
        let known = [container.current.take(), container.previous.take()];
        let mut taken = runs.into_iter().take(2).map(|status| {
            let same = known.iter().flatten().find(|run| run.id == status.id && run.is_over());
            same.cloned().unwrap_or_else(|| {
                let ended = status.state == ContainerState::Exited;
                RunRecord::from_status(status, if ended { message_of(status) } else { String::new() })
            })
        });
        (container.current, container.previous) = (taken.next(), taken.next());
        let newest = known[0].as_ref().map(|run| run.attempt);
        if container.current.as_ref().map(|run| run.attempt) < newest {
            // A runtime that forgot a run has not undone it.
            let [current, previous] = known;
            (container.current, container.previous) = (current, previous);
            if let Some(run) = container.current.as_mut().filter(|run| !run.is_over()) {
                run.state = ContainerState::Unknown;
            }
        }
        if let Some(run) = container.current.as_mut().filter(|run| lost && run.is_running()) {
            run.state = ContainerState::Unknown;
        }
    }
}

/// What a container said last, by the policy it was started with.
fn message_of(status: &ContainerStatus) -> String {
    let annotation = |key: &str| status.annotations.get(key).map(String::as_str);
    let file = annotation(keys::MESSAGE_FILE).map(std::path::Path::new);
    let fall_back =
        annotation(keys::MESSAGE_POLICY) == Some("FallbackToLogsOnError") && status.exit_code != 0;
    let said = last_words(file, fall_back.then_some(status.log_path.as_path()));
    if said.is_empty() { status.message.clone() } else { said }
}

/// Sidecars and apps that were running when the agent came back count as up until a probe says otherwise.
pub fn assume_up(record: &mut PodRecord, pod: &Pod) {
    let told = |name: &str| {
        let status = pod.status.as_ref()?;
        let mains = status.container_statuses.iter().flatten();
        mains.chain(status.init_container_statuses.iter().flatten()).find(|s| s.name == name)
    };
    let specs = pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    for spec in specs {
        let Some(container) = record.container_mut(&spec.name) else { continue };
        if !container.is_running() || container.kind == Kind::Init {
            continue;
        }
        let told = told(&spec.name);
        // Nothing would ever set what no probe watches: the agent may have ended before it could tell.
        container.started = spec.startup_probe.is_none() || told.and_then(|s| s.started).unwrap_or(false);
        container.ready =
            container.started && (spec.readiness_probe.is_none() || told.is_some_and(|s| s.ready));
    }
    let now = Timestamp::now();
    record.set_up_not_before = record.set_up_not_before.map(|time| time.min(later(now, 60)));
}
