//! Validation of a pod's spec, shared by Pod and every kind that holds a pod template.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Probe, ResourceRequirements};

use super::service::check_port_number;
use crate::kinds::{Errors, names};
use crate::quantity::Quantity;
use crate::status::FieldError;

pub fn check_template(field: &str, template: &PodTemplateSpec, errors: &mut Errors) {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let labels = labels.into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    names::check_labels(&format!("{field}.metadata.labels"), labels, errors);
    match &template.spec {
        Some(spec) => check_spec(&format!("{field}.spec"), spec, errors),
        None => errors.required(format!("{field}.spec.containers"), true),
    }
}

pub fn check_spec(field: &str, spec: &PodSpec, errors: &mut Errors) {
    let volumes = check_volumes(field, spec, errors);
    errors.required(format!("{field}.containers"), spec.containers.is_empty());
    let mut seen = HashSet::new();
    let inits = spec
        .init_containers
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, c)| (format!("{field}.initContainers[{i}]"), c));
    let mains = spec.containers.iter().enumerate().map(|(i, c)| (format!("{field}.containers[{i}]"), c));
    for (path, container) in inits.chain(mains) {
        check_container(&path, container, &volumes, errors);
        if !container.name.is_empty() && !seen.insert(container.name.as_str()) {
            errors.push(FieldError::duplicate(format!("{path}.name"), container.name.as_str()));
        }
    }
    errors.one_of(
        format!("{field}.restartPolicy"),
        spec.restart_policy.as_deref(),
        &["Always", "Never", "OnFailure"],
    );
    const DNS: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    errors.one_of(format!("{field}.dnsPolicy"), spec.dns_policy.as_deref(), DNS);
    errors.not_negative(
        format!("{field}.terminationGracePeriodSeconds"),
        spec.termination_grace_period_seconds,
    );
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| *s < 1) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(format!("{field}.activeDeadlineSeconds"), seconds, detail));
    }
    if let Some(name) = spec.node_name.as_deref().filter(|n| !n.is_empty())
        && let Some(fault) = names::fault(names::Rule::Subdomain, name)
    {
        errors.push(FieldError::invalid(format!("{field}.nodeName"), name, fault));
    }
}

fn check_volumes<'a>(field: &str, spec: &'a PodSpec, errors: &mut Errors) -> HashSet<&'a str> {
    let mut volumes = HashSet::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("{field}.volumes[{i}]");
        check_name(&format!("{path}.name"), &volume.name, errors);
        if !volumes.insert(volume.name.as_str()) {
            errors.push(FieldError::duplicate(format!("{path}.name"), volume.name.as_str()));
        }
        if let Some(secret) = &volume.secret {
            errors.required(
                format!("{path}.secret.secretName"),
                secret.secret_name.as_deref().unwrap_or_default().is_empty(),
            );
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            errors.required(format!("{path}.persistentVolumeClaim.claimName"), claim.claim_name.is_empty());
        }
        if let Some(host_path) = &volume.host_path {
            errors.required(format!("{path}.hostPath.path"), host_path.path.is_empty());
            if host_path.path.split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(
                    format!("{path}.hostPath.path"),
                    host_path.path.as_str(),
                    "must not contain '..'",
                ));
            }
        }
    }
    volumes
}

fn check_name(field: &str, name: &str, errors: &mut Errors) {
    errors.required(field, name.is_empty());
    if !name.is_empty()
        && let Some(fault) = names::fault(names::Rule::Label, name)
    {
        errors.push(FieldError::invalid(field, name, fault));
    }
}

fn check_container(field: &str, container: &Container, volumes: &HashSet<&str>, errors: &mut Errors) {
    check_name(&format!("{field}.name"), &container.name, errors);
    let image = container.image.as_deref().unwrap_or_default();
    errors.required(format!("{field}.image"), image.is_empty());
    if image.trim() != image {
        errors.push(FieldError::invalid(
            format!("{field}.image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    let policy = container.image_pull_policy.as_deref();
    errors.one_of(format!("{field}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    for (i, port) in container.ports.iter().flatten().enumerate() {
        check_port_number(&format!("{field}.ports[{i}].containerPort"), port.container_port, errors);
        errors.one_of(
            format!("{field}.ports[{i}].protocol"),
            port.protocol.as_deref(),
            &["SCTP", "TCP", "UDP"],
        );
    }
    for (i, variable) in container.env.iter().flatten().enumerate() {
        errors.required(format!("{field}.env[{i}].name"), variable.name.is_empty());
        if variable.value.as_deref().is_some_and(|v| !v.is_empty()) && variable.value_from.is_some() {
            let detail = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(format!("{field}.env[{i}].valueFrom"), "", detail));
        }
    }
    check_mounts(field, container, volumes, errors);
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (name, probe) in probes {
        if let Some(probe) = probe {
            check_probe(&format!("{field}.{name}"), probe, name != "readinessProbe", errors);
        }
    }
    if let Some(resources) = &container.resources {
        check_resources(&format!("{field}.resources"), resources, errors);
    }
}

fn check_mounts(field: &str, container: &Container, volumes: &HashSet<&str>, errors: &mut Errors) {
    let mut paths = HashSet::new();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = format!("{field}.volumeMounts[{i}]");
        if !volumes.contains(mount.name.as_str()) {
            let problem = crate::status::Problem::NotFound(mount.name.as_str().into());
            errors.push(FieldError { field: format!("{path}.name"), problem });
        }
        errors.required(format!("{path}.mountPath"), mount.mount_path.is_empty());
        if !paths.insert(mount.mount_path.as_str()) {
            let detail = "must be unique";
            errors.push(FieldError::invalid(format!("{path}.mountPath"), mount.mount_path.as_str(), detail));
        }
        let escapes = |p: &str| p.starts_with('/') || p.split('/').any(|part| part == "..");
        if let Some(sub_path) = mount.sub_path.as_deref().filter(|p| escapes(p)) {
            let detail =
                if sub_path.starts_with('/') { "must be a relative path" } else { "must not contain '..'" };
            errors.push(FieldError::invalid(format!("{path}.subPath"), sub_path, detail));
        }
    }
}

fn check_probe(field: &str, probe: &Probe, one_success: bool, errors: &mut Errors) {
    let handlers =
        [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
    match handlers.iter().filter(|h| **h).count() {
        0 => errors.push(FieldError::required(field, "must specify a handler type")),
        1 => {}
        _ => errors.push(FieldError::forbidden(field, "may not specify more than 1 handler type")),
    }
    for (name, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        errors.not_negative(format!("{field}.{name}"), value.map(i64::from));
    }
    if one_success && probe.success_threshold.is_some_and(|t| t != 1) {
        let value = probe.success_threshold.unwrap_or(0);
        errors.push(FieldError::invalid(format!("{field}.successThreshold"), value, "must be 1"));
    }
}

fn check_resources(field: &str, resources: &ResourceRequirements, errors: &mut Errors) {
    let parse = |text: &str| text.parse::<Quantity>().ok();
    let sides = [("limits", &resources.limits), ("requests", &resources.requests)];
    for (side, map) in sides {
        for (name, quantity) in map.iter().flatten() {
            let path = format!("{field}.{side}.{name}");
            match parse(&quantity.0) {
                None => {
                    errors.push(FieldError::invalid(path, quantity.0.as_str(), "must be a valid quantity"))
                }
                Some(q) if q.is_negative() => {
                    let detail = "must be greater than or equal to 0";
                    errors.push(FieldError::invalid(path, quantity.0.as_str(), detail));
                }
                Some(_) => {}
            }
        }
    }
    for (name, request) in resources.requests.iter().flatten() {
        let limit = resources.limits.as_ref().and_then(|l| l.get(name));
        if let (Some(limit), Some(request)) = (limit.and_then(|l| parse(&l.0)), parse(&request.0))
            && request > limit
        {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(format!("{field}.requests"), request.to_string(), detail));
        }
    }
}
