//! From what the runtime lists, and what the API was told, to the record: which run of each container is the newest, and what it said last.

use container::runtime::{ContainerState, ContainerStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus as Told, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::record::{Kind, PodRecord, RunRecord, keys, later};
use super::status::RUNTIME_SCHEME;
use crate::logs::last_words;

/// Sets each container's newest run and the one before it. Where the sandbox is lost nothing can be running. What is known
/// and not listed stays known: it was in an earlier sandbox, or the runtime has forgotten it, which does not undo it.
pub fn take_runs(record: &mut PodRecord, statuses: &[ContainerStatus], lost: bool) {
    for container in &mut record.containers {
        let known: Vec<RunRecord> =
            [container.current.take(), container.previous.take()].into_iter().flatten().collect();
        let listed = statuses.iter().filter(|status| status.name == container.name);
        let mut runs: Vec<RunRecord> = listed
            .map(|status| {
                // What it said last does not change, and is not read again.
                let settled = |run: &&RunRecord| run.id == status.id && run.state == ContainerState::Exited;
                known.iter().find(settled).cloned().unwrap_or_else(|| {
                    let ended = status.state == ContainerState::Exited;
                    RunRecord::from_status(status, if ended { message_of(status) } else { String::new() })
                })
            })
            .collect();
        for mut run in known {
            if runs.iter().all(|listed| listed.id != run.id) {
                if !run.is_over() {
                    run.vanish();
                }
                runs.push(run);
            }
        }
        runs.sort_by_key(|run| std::cmp::Reverse(run.attempt));
        let mut runs = runs.into_iter();
        (container.current, container.previous) = (runs.next(), runs.next());
        if let Some(run) = container.current.as_mut().filter(|run| lost && run.is_running()) {
            run.vanish();
        }
    }
}

/// Where the runtime knows of no run of a container, what the API was told of it last is all that is left. A run that
/// nobody can find any more must not count as never begun: it may be one that may run only once.
pub fn recall(record: &mut PodRecord, pod: &Pod) {
    let Some(status) = &pod.status else { return };
    let told =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    for status in told.into_iter().flatten().flatten() {
        if let Some(container) = record.container_mut(&status.name).filter(|c| c.current.is_none()) {
            let mut runs = told_runs(status, &container.hash).into_iter();
            (container.current, container.previous) = (runs.next(), runs.next());
        }
    }
}

/// The API is not told in which one a container ran; it is none that there is.
const UNKNOWN_SANDBOX: &str = "-unknown";

/// The newest first.
fn told_runs(status: &Told, hash: &str) -> Vec<RunRecord> {
    let id_of = |id: &str| id.strip_prefix(RUNTIME_SCHEME).map(str::to_owned);
    let Some(id) = status.container_id.as_deref().and_then(id_of) else { return Vec::new() };
    let attempt = u32::try_from(status.restart_count).unwrap_or(0);
    let newest = RunRecord {
        id,
        sandbox_id: UNKNOWN_SANDBOX.into(),
        attempt,
        image: status.image.clone(),
        image_id: status.image_id.clone(),
        hash: hash.to_owned(),
        ..RunRecord::default()
    };
    let mut runs = Vec::new();
    if let Some(running) = status.state.as_ref().and_then(|state| state.running.as_ref()) {
        let mut run = RunRecord { started_at_ns: nanos_of(running.started_at.as_ref()), ..newest.clone() };
        run.vanish();
        runs.push(run);
    }
    for state in [&status.state, &status.last_state] {
        let Some(ended) = state.as_ref().and_then(|state| state.terminated.as_ref()) else { continue };
        let Some(id) = ended.container_id.as_deref().and_then(id_of) else { continue };
        runs.push(RunRecord {
            attempt: if id == newest.id { attempt } else { attempt.saturating_sub(1) },
            id,
            state: ContainerState::Exited,
            started_at_ns: nanos_of(ended.started_at.as_ref()),
            finished_at_ns: nanos_of(ended.finished_at.as_ref()),
            exit_code: ended.exit_code,
            reason: ended.reason.clone().unwrap_or_default(),
            message: ended.message.clone().unwrap_or_default(),
            ..newest.clone()
        });
    }
    runs
}

fn nanos_of(time: Option<&Time>) -> i64 {
    time.and_then(|time| i64::try_from(time.0.as_nanosecond()).ok()).unwrap_or(0)
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

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
