//! Validation of a pod's spec, shared by Pod and every kind that holds a pod template. Containers, volumes and scheduling
//! have a file each.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, PodTemplateSpec};

use super::container_validate::{self, Place};
use super::scheduling_validate::{check_affinity, check_spreading, check_tolerations};
use super::volume_validate::check_volumes;
use crate::kinds::names::Rule;
use crate::kinds::validate::{qualified, range};
use crate::kinds::{Errors, names};
use crate::status::FieldError;

pub fn check_template(field: &str, template: &PodTemplateSpec, errors: &mut Errors) {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let labels = labels.into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    names::check_labels(&format!("{field}.labels"), labels, errors);
    let annotations = template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
    for key in annotations.into_iter().flatten().map(|(key, _)| key) {
        for fault in names::key_faults(&key.to_lowercase()) {
            errors.push(FieldError::invalid(format!("{field}.annotations"), key.as_str(), fault));
        }
    }
    match &template.spec {
        Some(spec) => check_spec(&format!("{field}.spec"), spec, errors),
        None => errors.required(format!("{field}.spec.containers"), true),
    }
    let ephemeral = template.spec.as_ref().and_then(|s| s.ephemeral_containers.as_ref());
    if ephemeral.is_some_and(|e| !e.is_empty()) {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(format!("{field}.spec.ephemeralContainers"), detail));
    }
}

pub fn check_spec(field: &str, spec: &PodSpec, errors: &mut Errors) {
    let volumes = check_volumes(field, spec, errors);
    let claims: HashSet<&str> = spec.resource_claims.iter().flatten().map(|c| c.name.as_str()).collect();
    let place = Place {
        volumes: &volumes,
        claims: &claims,
        grace_seconds: spec.termination_grace_period_seconds.unwrap_or(0),
        host_network: spec.host_network == Some(true),
    };
    check_containers(field, spec, &place, errors);
    check_inits(field, spec, &place, errors);
    check_ephemeral(field, spec, errors);
    const POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
    errors.one_of(format!("{field}.restartPolicy"), spec.restart_policy.as_deref(), POLICIES);
    const DNS: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.one_of(format!("{field}.dnsPolicy"), spec.dns_policy.as_deref(), DNS);
    let selector = spec.node_selector.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    names::check_labels(&format!("{field}.nodeSelector"), selector, errors);
    if let Some(context) = &spec.security_context {
        check_security(&format!("{field}.securityContext"), context, errors);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        let at = format!("{field}.securityContext.shareProcessNamespace");
        errors.push(FieldError::invalid(at, true, detail));
    }
    if let Some(affinity) = &spec.affinity {
        check_affinity(&format!("{field}.affinity"), affinity, errors);
    }
    check_dns(field, spec, errors);
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        qualified(format!("{field}.readinessGates[{i}].conditionType"), &gate.condition_type, errors);
    }
    check_gates(field, spec, errors);
    check_spreading(
        &format!("{field}.topologySpreadConstraints"),
        spec.topology_spread_constraints.as_deref(),
        errors,
    );
    check_names(field, spec, errors);
    check_tolerations(&format!("{field}.tolerations"), spec.tolerations.as_deref(), errors);
    check_aliases(field, spec, errors);
    let policy = spec.preemption_policy.as_deref();
    errors.one_of(format!("{field}.preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    if let Some(os) = &spec.os {
        match os.name.as_str() {
            "" => errors.required(format!("{field}.os.name"), true),
            name => errors.one_of(format!("{field}.os"), Some(name), &["linux", "windows"]),
        }
    }
}

fn check_containers(field: &str, spec: &PodSpec, place: &Place<'_>, errors: &mut Errors) {
    errors.required(format!("{field}.containers"), spec.containers.is_empty());
    let mut seen = HashSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        let at = format!("{field}.containers[{i}]");
        container_validate::check(&at, container, place, errors);
        if !container.name.is_empty() && !seen.insert(container.name.as_str()) {
            errors.push(FieldError::duplicate(format!("{at}.name"), container.name.as_str()));
        }
        container_validate::check_life(&at, container, place, errors);
    }
    check_host_ports(field, &spec.containers, errors);
}

/// One host port is one container's.
fn check_host_ports(field: &str, containers: &[Container], errors: &mut Errors) {
    let mut taken = HashSet::new();
    for (c, container) in containers.iter().enumerate() {
        for (p, port) in container.ports.iter().flatten().enumerate() {
            let Some(number) = port.host_port.filter(|n| *n != 0) else { continue };
            let protocol = port.protocol.as_deref().unwrap_or_default();
            let text = format!("{protocol}/{}/{number}", port.host_ip.as_deref().unwrap_or_default());
            if !taken.insert(text.clone()) {
                let at = format!("{field}.containers[{c}].ports[{p}].hostPort");
                errors.push(FieldError::duplicate(at, text));
            }
        }
    }
}

fn check_inits(field: &str, spec: &PodSpec, place: &Place<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let at = format!("{field}.initContainers[{i}]");
        container_validate::check(&at, container, place, errors);
        if !container.name.is_empty() && !seen.insert(container.name.as_str()) {
            errors.push(FieldError::duplicate(format!("{at}.name"), container.name.as_str()));
        }
        if container.restart_policy.as_deref() == Some("Always") {
            container_validate::check_life(&at, container, place, errors);
            continue;
        }
        for (part, given) in [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ] {
            if given {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(format!("{at}.{part}"), detail));
            }
        }
    }
}

fn check_ephemeral(field: &str, spec: &PodSpec, errors: &mut Errors) {
    let inits = spec.init_containers.iter().flatten();
    let mut seen: HashSet<&str> = spec.containers.iter().chain(inits).map(|c| c.name.as_str()).collect();
    let targets: HashSet<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (i, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let at = format!("{field}.ephemeralContainers[{i}]");
        check_name(&format!("{at}.name"), &container.name, errors);
        errors.required(format!("{at}.image"), container.image.as_deref().unwrap_or_default().is_empty());
        if !container.name.is_empty() && !seen.insert(container.name.as_str()) {
            errors.push(FieldError::duplicate(format!("{at}.name"), container.name.as_str()));
        }
        let resources = container.resources.clone().unwrap_or_default();
        for (part, given) in [
            ("ports", container.ports.as_ref().is_some_and(|ports| !ports.is_empty())),
            ("resources", resources != Default::default()),
            ("resizePolicy", container.resize_policy.as_ref().is_some_and(|policies| !policies.is_empty())),
            ("restartPolicy", container.restart_policy.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
            ("lifecycle", container.lifecycle.is_some()),
        ] {
            if given {
                let detail = "cannot be set for an Ephemeral Container";
                errors.push(FieldError::forbidden(format!("{at}.{part}"), detail));
            }
        }
        if let Some(target) = container.target_container_name.as_deref().filter(|t| !t.is_empty())
            && !targets.contains(target)
        {
            let problem = crate::status::Problem::NotFound(target.into());
            errors.push(FieldError { field: format!("{at}.targetContainerName"), problem });
        }
    }
}

fn check_security(field: &str, context: &PodSecurityContext, errors: &mut Errors) {
    let highest = i64::from(i32::MAX);
    for (part, id) in [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ] {
        if let Some(id) = id {
            range(format!("{field}.{part}"), id, 0, highest, errors);
        }
    }
    for (i, id) in context.supplemental_groups.iter().flatten().enumerate() {
        range(format!("{field}.supplementalGroups[{i}]"), *id, 0, highest, errors);
    }
    for (i, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let at = format!("{field}.sysctls[{i}].name");
        let name = sysctl.name.as_str();
        let part = |p: &str| {
            let b = p.as_bytes();
            let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
            let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            !b.is_empty() && b.iter().all(inner) && edge(b[0]) && edge(b[b.len() - 1])
        };
        if name.is_empty() {
            errors.required(at, true);
        } else if name.len() > 253 || !name.split(['.', '/']).all(part) {
            let detail = "must have at most 253 characters and match regex \
                          ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(FieldError::invalid(at, name, detail));
        }
    }
    let policy = context.fs_group_change_policy.as_deref();
    errors.one_of(format!("{field}.fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    if let Some(profile) = &context.seccomp_profile {
        let local = profile.localhost_profile.as_deref();
        let at = format!("{field}.seccompProfile");
        match profile.type_.as_str() {
            "Localhost" if local.is_none() => {
                let detail = "must be set when seccomp type is Localhost";
                errors.push(FieldError::required(format!("{at}.localhostProfile"), detail));
            }
            "Localhost" | "RuntimeDefault" | "Unconfined" => {}
            other => errors.one_of(
                format!("{at}.type"),
                Some(other),
                &["Localhost", "RuntimeDefault", "Unconfined"],
            ),
        }
    }
}

fn check_dns(field: &str, spec: &PodSpec, errors: &mut Errors) {
    let own = spec.dns_policy.as_deref() == Some("None");
    let servers = spec.dns_config.as_ref().and_then(|c| c.nameservers.as_ref());
    if own && spec.dns_config.is_none() {
        let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{field}.dnsConfig"), detail));
    } else if own && servers.is_none_or(Vec::is_empty) {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{field}.dnsConfig.nameservers"), detail));
    }
    for (i, server) in servers.into_iter().flatten().enumerate() {
        if let Some(fault) = names::fault(Rule::Address, server) {
            errors.push(FieldError::invalid(
                format!("{field}.dnsConfig.nameservers[{i}]"),
                server.as_str(),
                fault,
            ));
        }
    }
}

fn check_gates(field: &str, spec: &PodSpec, errors: &mut Errors) {
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    let mut seen = HashSet::new();
    for (i, gate) in gates.iter().enumerate() {
        let at = format!("{field}.schedulingGates[{i}]");
        qualified(at.as_str(), &gate.name, errors);
        if !seen.insert(gate.name.as_str()) {
            errors.push(FieldError::duplicate(at, gate.name.as_str()));
        }
    }
}

fn check_names(field: &str, spec: &PodSpec, errors: &mut Errors) {
    for (part, name, rule) in [
        ("serviceAccountName", &spec.service_account_name, Rule::Subdomain),
        ("nodeName", &spec.node_name, Rule::Subdomain),
        ("hostname", &spec.hostname, Rule::Label),
        ("subdomain", &spec.subdomain, Rule::Label),
        ("priorityClassName", &spec.priority_class_name, Rule::Subdomain),
        ("runtimeClassName", &spec.runtime_class_name, Rule::Subdomain),
    ] {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty())
            && let Some(fault) = names::fault(rule, name)
        {
            errors.push(FieldError::invalid(format!("{field}.{part}"), name, fault));
        }
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        range(format!("{field}.activeDeadlineSeconds"), seconds, 1, i64::from(i32::MAX), errors);
    }
}

fn check_aliases(field: &str, spec: &PodSpec, errors: &mut Errors) {
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = format!("{field}.hostAliases[{i}]");
        if let Some(fault) = names::fault(Rule::Address, &alias.ip) {
            errors.push(FieldError::invalid(format!("{at}.ip"), alias.ip.as_str(), fault));
        }
        for (h, host) in alias.hostnames.iter().flatten().enumerate() {
            if let Some(fault) = names::fault(Rule::Subdomain, host) {
                errors.push(FieldError::invalid(format!("{at}.hostnames[{h}]"), host.as_str(), fault));
            }
        }
    }
}

pub fn check_name(field: &str, name: &str, errors: &mut Errors) {
    errors.required(field, name.is_empty());
    if !name.is_empty()
        && let Some(fault) = names::fault(Rule::Label, name)
    {
        errors.push(FieldError::invalid(field, name, fault));
    }
}
