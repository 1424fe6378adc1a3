//! The status of a pod as the API shows it. Pure.

use std::net::Ipv4Addr;

use container::runtime::ContainerState as Runtime;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::record::{ContainerRecord, Kind, Operation, PodRecord, RunRecord, SandboxPhase, time_of};

/// The front of every container id in a status.
pub const RUNTIME_SCHEME: &str = "kedge://";

/// `told` are the conditions told last; their times are kept while nothing turns.
pub fn build_status(
    pod: &Pod,
    record: &PodRecord,
    told: &[PodCondition],
    host_ip: Ipv4Addr,
    now: Timestamp,
) -> PodStatus {
    let phase = phase(record);
    let statuses = |kinds: &[Kind]| -> Option<Vec<ContainerStatus>> {
        let wanted = record.containers.iter().filter(|c| kinds.contains(&c.kind));
        let all: Vec<_> = wanted.map(|c| container_status(pod, record, c)).collect();
        (!all.is_empty()).then_some(all)
    };
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
    let ip = record.pod_ip.map(|ip| ip.to_string()).filter(|_| record.sandbox != SandboxPhase::Absent);
    let ip = if host_network && ip.is_some() { Some(host_ip.to_string()) } else { ip };
    PodStatus {
        observed_generation: pod.metadata.generation,
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(pod, record, told, phase, now)),
        container_statuses: statuses(&[Kind::App]),
        init_container_statuses: statuses(&[Kind::Init, Kind::Sidecar]),
        ephemeral_container_statuses: statuses(&[Kind::Ephemeral]),
        host_ip: Some(host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_string() }]),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        start_time: Some(Time(record.started_at)),
        reason: record.ending.as_ref().and_then(|e| e.reason.clone()),
        message: record.ending.as_ref().and_then(|e| e.message.clone()),
        ..PodStatus::default()
    }
}

/// A terminal phase is only told once nothing runs any more.
pub fn phase(record: &PodRecord) -> &'static str {
    let expired = record.ending.as_ref().is_some_and(|e| !e.removal);
    let begun = record.of_kind(Kind::App).any(|c| c.current.is_some());
    let over = expired || record.is_done();
    if over && !record.anything_running() {
        let apps = || record.of_kind(Kind::App);
        let succeeded = !expired && apps().all(|c| c.exit_code() == Some(0));
        return if succeeded { "Succeeded" } else { "Failed" };
    }
    let removal = record.ending.as_ref().is_some_and(|e| e.removal);
    if removal && begun && !record.anything_running() {
        // Stopped on request: what it came to is what its containers came to.
        let failed = record.of_kind(Kind::App).any(|c| c.exit_code().is_none_or(|code| code != 0));
        return if failed { "Failed" } else { "Succeeded" };
    }
    let waiting =
        record.of_kind(Kind::App).any(|c| c.current.as_ref().is_none_or(|r| r.state == Runtime::Created));
    if !begun || (waiting && !record.of_kind(Kind::App).any(|c| c.previous.is_some())) {
        return "Pending";
    }
    "Running"
}

fn container_status(pod: &Pod, record: &PodRecord, container: &ContainerRecord) -> ContainerStatus {
    let run = container.current.as_ref();
    let running = container.is_running();
    let spec_image = spec_image(pod, &container.name);
    let (image, image_id) = match (run, &container.image) {
        (Some(run), _) if !run.image_id.is_empty() => (run.image.clone(), run.image_id.clone()),
        (_, Some((image, id))) => (image.clone(), id.clone()),
        _ => (String::new(), String::new()),
    };
    let (state, last_state) = states(record, container);
    let completed = container.kind == Kind::Init && record.is_completed(container);
    ContainerStatus {
        name: container.name.clone(),
        container_id: run.map(|run| format!("{RUNTIME_SCHEME}{}", run.id)),
        image: if image.is_empty() { spec_image } else { image },
        image_id,
        ready: completed || (running && container.ready && container.operation != Some(Operation::Starting)),
        started: Some(running && container.started),
        restart_count: run.map_or(0, |run| i32::try_from(run.attempt).unwrap_or(i32::MAX)),
        state: Some(state),
        last_state: Some(last_state),
        resources: running.then(|| spec_resources(pod, &container.name)).flatten(),
        ..ContainerStatus::default()
    }
}

fn spec_image(pod: &Pod, name: &str) -> String {
    let found = pod.spec.as_ref().and_then(|spec| crate::resources::find_container(spec, name));
    found.and_then(|c| c.image).unwrap_or_default()
}

fn spec_resources(pod: &Pod, name: &str) -> Option<k8s_openapi::api::core::v1::ResourceRequirements> {
    crate::resources::find_container(pod.spec.as_ref()?, name)?.resources
}

fn states(record: &PodRecord, container: &ContainerRecord) -> (ContainerState, ContainerState) {
    let ended = |run: Option<&RunRecord>| ContainerState {
        terminated: run.map(terminated),
        ..ContainerState::default()
    };
    let waiting = |reason: String, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason), message }),
        ..ContainerState::default()
    };
    let told = container.waiting.as_ref();
    let told = told.map(|w| waiting(w.reason.clone(), Some(w.message.clone()).filter(|m| !m.is_empty())));
    let state = match &container.current {
        Some(run) if run.is_running() => {
            let running = ContainerStateRunning { started_at: time_of(run.started_at_ns).map(Time) };
            ContainerState { running: Some(running), ..ContainerState::default() }
        }
        Some(run) if run.is_over() => told.unwrap_or_else(|| ended(Some(run))),
        _ => {
            let inits = record.containers.iter().any(|c| matches!(c.kind, Kind::Init | Kind::Sidecar));
            let behind = inits && !record.is_initialized() && container.kind == Kind::App;
            let default = if inits && (behind || container.kind == Kind::Init) {
                "PodInitializing"
            } else {
                "ContainerCreating"
            };
            told.unwrap_or_else(|| waiting(default.to_owned(), None))
        }
    };
    (state, ended(container.last_run()))
}

fn terminated(run: &RunRecord) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(format!("{RUNTIME_SCHEME}{}", run.id)),
        exit_code: run.exit_code,
        reason: Some(run.reason.clone()).filter(|reason| !reason.is_empty()),
        message: Some(run.message.clone()).filter(|message| !message.is_empty()),
        started_at: time_of(run.started_at_ns).map(Time),
        finished_at: time_of(run.finished_at_ns).map(Time),
        ..ContainerStateTerminated::default()
    }
}

struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

fn conditions(
    pod: &Pod,
    record: &PodRecord,
    told: &[PodCondition],
    phase: &str,
    now: Timestamp,
) -> Vec<PodCondition> {
    let ready = |c: &&ContainerRecord| c.is_running() && c.ready;
    let unready: Vec<&str> = record
        .containers
        .iter()
        .filter(|c| matches!(c.kind, Kind::App | Kind::Sidecar))
        .filter(|c| !ready(c))
        .map(|c| c.name.as_str())
        .collect();
    let uninitialized: Vec<&str> = record
        .containers
        .iter()
        .filter(|c| match c.kind {
            Kind::Init => !record.is_completed(c),
            Kind::Sidecar => !c.started,
            _ => false,
        })
        .map(|c| c.name.as_str())
        .collect();
    let not = |reason, message: String| (false, Some(reason), Some(message));
    let initialized = match phase {
        "Succeeded" => (true, Some("PodCompleted"), None),
        _ if record.is_initialized() => (true, None, None),
        _ => not(
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", uninitialized.join(" ")),
        ),
    };
    let containers_ready = match phase {
        "Succeeded" => (false, Some("PodCompleted"), None),
        "Failed" => (false, Some("PodFailed"), None),
        _ if unready.is_empty() => (true, None, None),
        _ => not("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    };
    let pod_ready = match missing_gates(pod) {
        Some(message) if containers_ready.0 => not("ReadinessGatesNotReady", message),
        _ => containers_ready.clone(),
    };
    let verdict = |kind, (holds, reason, message)| Verdict { kind, holds, reason, message };
    [
        verdict("PodReadyToStartContainers", (record.sandbox == SandboxPhase::Ready, None, None)),
        verdict("Initialized", initialized),
        verdict("Ready", pod_ready),
        verdict("ContainersReady", containers_ready),
        verdict("PodScheduled", (true, None, None)),
    ]
    .into_iter()
    .map(|verdict| condition(pod, told, verdict, now))
    .collect()
}

fn missing_gates(pod: &Pod) -> Option<String> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_ref()?;
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let holds = |kind: &str| conditions.into_iter().flatten().any(|c| c.type_ == kind && c.status == "True");
    let missing: Vec<String> = gates
        .iter()
        .filter(|gate| !holds(&gate.condition_type))
        .map(|gate| {
            format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )
        })
        .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// The transition time stays unless the condition turned.
fn condition(pod: &Pod, told: &[PodCondition], verdict: Verdict, now: Timestamp) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let old = told.iter().find(|c| c.type_ == verdict.kind && c.status == status);
    PodCondition {
        type_: verdict.kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: old.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
