//! `Pod`: what runs. Its spec is fixed at birth but for the few fields the API allows.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodIP, PodSpec, PodStatus};
use serde_json::Value;

use super::{pod_resize, pod_spec, pod_status, pod_update, pod_validate, pod_warnings};
use crate::columns::{age_cell, list_or_none, name_cell, or_none};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::{Build, CREATE_ONLY, Errors, Kind, Part};
use crate::quantity::Quantity;
use crate::status::FieldError;

const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const EPHEMERAL: Part = Part { name: "ephemeralcontainers", paths: &["spec.ephemeralContainers"] };
const RESIZE: Part = Part {
    name: "resize",
    paths: &[
        "spec.containers[].resources",
        "spec.containers[].resizePolicy",
        "spec.initContainers[].resources",
        "spec.initContainers[].resizePolicy",
        "spec.resources",
    ],
};
const FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

/// The one address is the first of the list, and wins over a list that begins with another.
fn settle_addresses(status: &mut PodStatus) {
    let one = status.pod_ip.clone().filter(|ip| !ip.is_empty());
    let first = status.pod_ips.as_ref().and_then(|ips| ips.first()).map(|first| first.ip.clone());
    match one {
        Some(ip) if first.as_ref() != Some(&ip) => status.pod_ips = Some(vec![PodIP { ip }]),
        Some(_) => {}
        None => status.pod_ip = first,
    }
}

/// What is said of a pod that nobody may schedule yet.
fn gated(pod: &Pod) -> Option<PodCondition> {
    let gates = pod.spec.as_ref()?.scheduling_gates.as_ref()?;
    (!gates.is_empty()).then(|| PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("SchedulingGated".into()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".into()),
        last_transition_time: pod.metadata.creation_timestamp.clone(),
        ..PodCondition::default()
    })
}

pub fn kind() -> Kind {
    Build::<Pod>::new("pods", true)
        .metadata_on_update(&[Change, Whole])
        .short(&["po"])
        .in_all()
        .status()
        .rules(|r| r.status_keeps = &["metadata.deletionTimestamp", "metadata.ownerReferences"])
        .generation()
        .rules(|r| {
            r.answers_deleted = true;
            r.graceful_deletion = true;
        })
        .part(&EPHEMERAL, settle_ephemeral)
        .part(&RESIZE, pod_resize::settle)
        .subresource("attach", ("", "v1", "PodAttachOptions"), CONNECT)
        .subresource("binding", ("", "v1", "Binding"), CREATE_ONLY)
        .subresource("eviction", ("policy", "v1", "Eviction"), CREATE_ONLY)
        .subresource("exec", ("", "v1", "PodExecOptions"), CONNECT)
        .subresource("log", ("", "v1", "Pod"), &["get"])
        .subresource("portforward", ("", "v1", "PodPortForwardOptions"), CONNECT)
        .subresource("proxy", ("", "v1", "PodProxyOptions"), PROXY)
        .default(|pod| {
            let spec = pod.spec.get_or_insert_default();
            pod_spec::default_spec(spec);
            pod_spec::default_requests(spec);
            spec.enable_service_links.get_or_insert(true);
            if let Some(status) = &mut pod.status {
                settle_addresses(status);
            }
        })
        .prepare_create(|pod| {
            let qos_class = pod.spec.as_ref().map(|s| qos_class(s).to_owned());
            let conditions = gated(pod).map(|condition| vec![condition]);
            let phase = Some("Pending".into());
            pod.status = Some(PodStatus { phase, qos_class, conditions, ..Default::default() });
        })
        .validate(|pod, errors| {
            let default = PodSpec::default();
            pod_validate::check_spec("spec", pod.spec.as_ref().unwrap_or(&default), errors);
        })
        .warnings(pod_warnings::of_pod)
        .prepare_status(|pod, old| {
            if let Some(status) = &mut pod.status {
                pod_status::settle_status(status, &old.status.clone().unwrap_or_default());
            }
        })
        .validate_status(pod_status::check_status)
        .status_warnings(pod_status::warnings)
        .validate_create(|pod, errors| {
            let ephemeral = pod.spec.as_ref().and_then(|s| s.ephemeral_containers.as_ref());
            if ephemeral.is_some_and(|e| !e.is_empty()) {
                errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
            }
            let gated =
                pod.spec.as_ref().is_some_and(|s| s.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()));
            let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
            if gated && !node.is_empty() {
                let detail = "cannot be set until all schedulingGates have been cleared";
                errors.push(FieldError::forbidden("spec.nodeName", detail));
            }
        })
        .validate_update(|new, old, errors| {
            pod_update::check_annotations(new, old, errors);
            pod_update::check_update(new, old, errors);
        })
        .row(row)
        .bare_fields(FIELDS, fields)
        .done()
}

/// Ephemeral containers are added, never taken away or changed.
fn settle_ephemeral(new: &mut Pod, old: &Pod, errors: &mut Errors) {
    let of = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.ephemeral_containers.clone()).unwrap_or_default();
    let (now, before) = (of(new), of(old));
    // Of several alike the first counts.
    let now: HashMap<&str, _> = now.iter().rev().map(|c| (c.name.as_str(), c)).collect();
    for held in &before {
        match now.get(held.name.as_str()).copied() {
            None => {
                let detail = format!("existing ephemeral containers {:?} may not be removed\n", held.name);
                errors.push(FieldError::forbidden("spec.ephemeralContainers", detail));
            }
            Some(given) if given != held => {
                let detail = format!("existing ephemeral containers {:?} may not be changed\n", held.name);
                errors.push(FieldError::forbidden("spec.ephemeralContainers", detail));
            }
            Some(_) => {}
        }
    }
    if let Some(spec) = &new.spec {
        pod_validate::check_spec("spec", spec, errors);
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from the cpu and memory of all containers.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let side = |limits: bool, c: &k8s_openapi::api::core::v1::Container, name: &str| {
        let resources = c.resources.as_ref()?;
        let map = if limits { resources.limits.as_ref() } else { resources.requests.as_ref() };
        let amount = map?.get(name)?;
        let counts = Quantity::parse(&amount.0).is_ok_and(|q| !q.is_negative() && !q.is_zero());
        counts.then(|| amount.0.clone())
    };
    const COUNTED: [&str; 2] = ["cpu", "memory"];
    let any = containers()
        .any(|c| COUNTED.iter().any(|n| side(true, c, n).is_some() || side(false, c, n).is_some()));
    let all_equal = containers().all(|c| {
        COUNTED
            .iter()
            .all(|n| side(true, c, n).is_some_and(|limit| side(false, c, n).is_none_or(|r| r == limit)))
    });
    match (any, all_equal) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn fields(pod: &Value) -> Vec<(&'static str, String)> {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let in_host = pod.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    vec![
        ("spec.nodeName", text("/spec/nodeName")),
        ("spec.restartPolicy", text("/spec/restartPolicy")),
        ("spec.schedulerName", text("/spec/schedulerName")),
        ("spec.serviceAccountName", text("/spec/serviceAccountName")),
        ("spec.hostNetwork", in_host.to_string()),
        ("status.phase", text("/status/phase")),
        ("status.podIP", text("/status/podIP")),
        ("status.nominatedNodeName", text("/status/nominatedNodeName")),
    ]
}

fn row(pod: &Pod) -> Vec<Value> {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let sidecars = sidecars(&spec);
    let is_sidecar = |name: &str| sidecars.contains(name);
    let inits = status.init_container_statuses.iter().flatten().filter(|c| is_sidecar(&c.name));
    let running: Vec<&ContainerStatus> = containers.iter().chain(inits).collect();
    let total =
        spec.containers.len() + spec.init_containers.iter().flatten().filter(|c| is_sidecar(&c.name)).count();
    let ready = running.iter().filter(|c| c.ready).count();
    let gates = spec.readiness_gates.iter().flatten().map(|g| g.condition_type.clone());
    vec![
        name_cell(&pod.metadata),
        format!("{ready}/{total}").into(),
        summary(pod, &spec, &status).into(),
        restarts(&running).into(),
        age_cell(&pod.metadata),
        or_none(status.pod_ip.as_deref()),
        or_none(spec.node_name.as_deref()),
        or_none(status.nominated_node_name.as_deref()),
        list_or_none(gates),
    ]
}

fn restarts(containers: &[&ContainerStatus]) -> String {
    let count: i32 = containers.iter().map(|c| c.restart_count).sum();
    let last = containers
        .iter()
        .filter_map(|c| c.last_state.as_ref()?.terminated.as_ref()?.finished_at.clone())
        .max_by_key(|t| t.0);
    match last {
        Some(time) if count > 0 => {
            let seconds = base::time::now().as_second() - time.0.as_second();
            format!("{count} ({} ago)", base::time::human_age(seconds))
        }
        _ => count.to_string(),
    }
}

/// The one word (or two) that stands for all that a pod is going through.
fn summary(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> String {
    let mut reason = status.reason.clone().or(status.phase.clone()).unwrap_or_default();
    let gated = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated"));
    if gated {
        reason = "SchedulingGated".into();
    }
    let initializing = initializing(spec, status);
    match &initializing {
        Some(text) => reason.clone_from(text),
        None => {
            let mut running = false;
            for container in status.container_statuses.iter().flatten().rev() {
                let state = container.state.clone().unwrap_or_default();
                match (state.waiting.and_then(|w| w.reason), state.terminated) {
                    (Some(waiting), _) if !waiting.is_empty() => reason = waiting,
                    (_, Some(t)) => reason = ended(t.reason.as_deref(), t.signal, t.exit_code),
                    _ if container.ready && state.running.is_some() => running = true,
                    _ => {}
                }
            }
            if reason == "Completed" && running {
                let ready =
                    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
                reason = if ready { "Running" } else { "NotReady" }.into();
            }
        }
    }
    match pod.metadata.deletion_timestamp {
        Some(_) if status.reason.as_deref() == Some("NodeLost") => "Unknown".into(),
        Some(_) if !matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) => "Terminating".into(),
        _ => reason,
    }
}

fn ended(reason: Option<&str>, signal: Option<i32>, exit_code: i32) -> String {
    match (reason.unwrap_or_default(), signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{exit_code}"),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// The names of init containers that go on running.
fn sidecars(spec: &PodSpec) -> HashSet<&str> {
    let inits = spec.init_containers.iter().flatten();
    inits.filter(|c| c.restart_policy.as_deref() == Some("Always")).map(|c| c.name.as_str()).collect()
}

/// `Init:…` while init containers are not through.
fn initializing(spec: &PodSpec, status: &PodStatus) -> Option<String> {
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let sidecars = sidecars(spec);
    for (i, container) in status.init_container_statuses.iter().flatten().enumerate() {
        let sidecar = sidecars.contains(container.name.as_str());
        let state = container.state.clone().unwrap_or_default();
        match (state.terminated, state.waiting.and_then(|w| w.reason)) {
            (Some(t), _) if t.exit_code == 0 => continue,
            _ if sidecar && container.started == Some(true) => continue,
            (Some(t), _) => {
                return Some(format!("Init:{}", ended(t.reason.as_deref(), t.signal, t.exit_code)));
            }
            (_, Some(w)) if !w.is_empty() && w != "PodInitializing" => return Some(format!("Init:{w}")),
            _ => return Some(format!("Init:{i}/{}", inits.len())),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(status: Value, expected: &str) {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}],
            "initContainers": [{"name": "i"}]}, "status": status});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        assert_eq!(row(&pod)[2], expected);
    }

    #[test]
    fn the_status_column_says_what_kubectl_users_know() {
        check(json!({"phase": "Running"}), "Running");
        let waiting =
            |reason: &str| json!([{"name": "c", "ready": false, "state": {"waiting": {"reason": reason}}}]);
        check(
            json!({"phase": "Running", "containerStatuses": waiting("CrashLoopBackOff")}),
            "CrashLoopBackOff",
        );
        let ended = json!([{"name": "c", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]);
        check(json!({"phase": "Running", "containerStatuses": ended}), "OOMKilled");
        let init = json!([{"name": "i", "state": {"running": {}}}]);
        check(json!({"phase": "Pending", "initContainerStatuses": init}), "Init:0/1");
        let init = json!([{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]);
        check(json!({"phase": "Pending", "initContainerStatuses": init}), "Init:Error");
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        let class = |resources: Value| {
            let spec = json!({"containers": [{"name": "a", "resources": resources}]});
            qos_class(&serde_json::from_value(spec).expect("a spec"))
        };
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(
            class(json!({"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "1"}})),
            "Guaranteed"
        );
    }
}
