//! Validation of one container: ports, environment, mounts, probes, resources, rights.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource, LifecycleHandler, ObjectFieldSelector,
    ResourceFieldSelector, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::probe_validate::{self, Handlers};
use super::resources_validate::check_resources;
use super::service_validate::check_port_name;
use super::volume_validate::{check_local_path, no_backsteps};
use crate::kinds::validate::{is_empty, json, named, port, range};
use crate::kinds::{Errors, names};
use crate::status::{FieldError, Problem};

pub const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// What a container's place in the pod says of it.
pub struct Place<'a> {
    pub volumes: &'a HashSet<&'a str>,
    pub claims: &'a HashSet<&'a str>,
    pub grace_seconds: i64,
    pub host_network: bool,
}

pub fn check(field: &str, container: &Container, place: &Place<'_>, errors: &mut Errors) {
    let image = container.image.as_deref().unwrap_or_default();
    super::pod_validate::check_name(&format!("{field}.name"), &container.name, errors);
    errors.required(format!("{field}.image"), image.is_empty());
    if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(format!("{field}.image"), image, detail));
    }
    let policy = container.termination_message_policy.as_deref();
    errors.one_of(format!("{field}.terminationMessagePolicy"), policy, &["File", "FallbackToLogsOnError"]);
    check_ports(&format!("{field}.ports"), container.ports.as_deref(), place.host_network, errors);
    check_env(&format!("{field}.env"), container.env.as_deref(), errors);
    check_env_from(&format!("{field}.envFrom"), container.env_from.as_deref(), errors);
    check_mounts(field, container, place, errors);
    let policy = container.image_pull_policy.as_deref();
    errors.one_of(format!("{field}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    if let Some(resources) = &container.resources {
        check_resources(&format!("{field}.resources"), resources, place.claims, errors);
    }
    for resize in container.resize_policy.iter().flatten() {
        let at = || format!("{field}.resizePolicy");
        errors.one_of(at(), Some(&resize.resource_name), &["cpu", "memory"]);
        errors.one_of(at(), Some(&resize.restart_policy), &["NotRequired", "RestartContainer"]);
    }
    if let Some(context) = &container.security_context {
        check_security(&format!("{field}.securityContext"), context, errors);
    }
    let policy = container.restart_policy.as_deref();
    errors.one_of(format!("{field}.restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
}

/// Probes and hooks of a container that may have them.
pub fn check_life(field: &str, container: &Container, place: &Place<'_>, errors: &mut Errors) {
    if let Some(lifecycle) = &container.lifecycle {
        for (part, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            if let Some(handler) = handler {
                check_handler(&format!("{field}.lifecycle.{part}"), handler, place.grace_seconds, errors);
            }
        }
    }
    for (part, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        if let Some(probe) = probe {
            probe_validate::check(&format!("{field}.{part}"), probe, part, errors);
        }
    }
}

fn check_handler(field: &str, handler: &LifecycleHandler, grace_seconds: i64, errors: &mut Errors) {
    let handlers = Handlers {
        exec: handler.exec.as_ref(),
        http_get: handler.http_get.as_ref(),
        tcp_socket: handler.tcp_socket.as_ref(),
        grpc: None,
        sleep: handler.sleep.as_ref().map(|s| s.seconds),
    };
    handlers.check(field, grace_seconds, errors);
}

fn check_ports(field: &str, ports: Option<&[ContainerPort]>, host_network: bool, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, given) in ports.unwrap_or_default().iter().enumerate() {
        let at = format!("{field}[{i}]");
        if let Some(name) = given.name.as_deref().filter(|n| !n.is_empty()) {
            check_port_name(&format!("{at}.name"), name, errors);
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), name));
            }
        }
        match given.container_port {
            0 => errors.required(format!("{at}.containerPort"), true),
            number => port(format!("{at}.containerPort"), number, errors),
        }
        let host_port = given.host_port.unwrap_or(0);
        if host_port != 0 {
            port(format!("{at}.hostPort"), host_port, errors);
        }
        if host_network && host_port != 0 && host_port != given.container_port {
            let detail = "must match `containerPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(format!("{at}.hostPort"), host_port, detail));
        }
        match given.protocol.as_deref() {
            None | Some("") => errors.required(format!("{at}.protocol"), true),
            protocol => errors.one_of(format!("{at}.protocol"), protocol, &["SCTP", "TCP", "UDP"]),
        }
    }
}

/// Printable ASCII but `=`.
fn check_variable(field: &str, name: &str, errors: &mut Errors) {
    if !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        let detail = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        errors.push(FieldError::invalid(field, name, detail));
    }
}

fn check_env(field: &str, variables: Option<&[EnvVar]>, errors: &mut Errors) {
    for (i, variable) in variables.unwrap_or_default().iter().enumerate() {
        let at = format!("{field}[{i}]");
        match variable.name.as_str() {
            "" => errors.required(format!("{at}.name"), true),
            name => check_variable(&format!("{at}.name"), name, errors),
        }
        if let Some(source) = &variable.value_from {
            check_env_source(&format!("{at}.valueFrom"), source, variable.value.as_deref(), errors);
        }
    }
}

fn check_env_source(field: &str, source: &EnvVarSource, value: Option<&str>, errors: &mut Errors) {
    let given = [
        source.field_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.config_map_key_ref.is_some(),
        source.secret_key_ref.is_some(),
        source.file_key_ref.is_some(),
    ];
    if let Some(reference) = &source.field_ref {
        check_field_ref(&format!("{field}.fieldRef"), reference, ENV_FIELDS, errors);
    }
    if let Some(reference) = &source.resource_field_ref {
        check_resource_ref(&format!("{field}.resourceFieldRef"), reference, errors);
    }
    if let Some(reference) = &source.config_map_key_ref {
        check_key(&format!("{field}.configMapKeyRef"), &reference.name, &reference.key, errors);
    }
    if let Some(reference) = &source.secret_key_ref {
        check_key(&format!("{field}.secretKeyRef"), &reference.name, &reference.key, errors);
    }
    let count = given.iter().filter(|g| **g).count();
    if count == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(FieldError::invalid(field, "", detail));
    } else if !is_empty(value) {
        errors.push(FieldError::invalid(field, "", "may not be specified when `value` is not empty"));
    } else if count > 1 {
        errors.push(FieldError::invalid(field, "", "may not have more than one field specified at a time"));
    }
}

fn check_key(field: &str, name: &str, key: &str, errors: &mut Errors) {
    if let Some(fault) = names::fault(names::Rule::Subdomain, name) {
        errors.push(FieldError::invalid(format!("{field}.name"), name, fault));
    }
    errors.required(format!("{field}.key"), key.is_empty());
}

pub fn check_field_ref(field: &str, reference: &ObjectFieldSelector, known: &[&str], errors: &mut Errors) {
    let path = reference.field_path.as_str();
    errors.required(format!("{field}.apiVersion"), is_empty(reference.api_version.as_deref()));
    if path.is_empty() {
        return errors.required(format!("{field}.fieldPath"), true);
    }
    let subscript = path.strip_suffix("']").and_then(|p| p.split_once("['"));
    match subscript {
        Some(("metadata.labels" | "metadata.annotations", key)) => {
            if let Some(fault) = names::key_fault(key) {
                errors.push(FieldError::invalid(format!("{field}.fieldPath"), key, fault));
            }
        }
        _ if known.contains(&path) => {}
        _ if ENV_FIELDS.contains(&path) || FILE_FIELDS.contains(&path) => {
            errors.push(FieldError::not_supported(format!("{field}.fieldPath"), path, known));
        }
        _ => {
            let detail = format!("error converting fieldPath: field label not supported: {path}");
            errors.push(FieldError::invalid(format!("{field}.fieldPath"), path, detail));
        }
    }
}

pub fn check_resource_ref(field: &str, reference: &ResourceFieldSelector, errors: &mut Errors) {
    match reference.resource.as_str() {
        "" => errors.required(format!("{field}.resource"), true),
        huge if huge.starts_with("limits.hugepages-") || huge.starts_with("requests.hugepages-") => {}
        other => errors.one_of(format!("{field}.resource"), Some(other), RESOURCES),
    }
}

fn check_env_from(field: &str, sources: Option<&[EnvFromSource]>, errors: &mut Errors) {
    for (i, source) in sources.unwrap_or_default().iter().enumerate() {
        let at = format!("{field}[{i}]");
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            check_variable(&format!("{at}.prefix"), prefix, errors);
        }
        match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), None) => {
                named(format!("{at}.configMapRef.name"), &map.name, names::Rule::Subdomain, errors)
            }
            (None, Some(secret)) => {
                named(format!("{at}.secretRef.name"), &secret.name, names::Rule::Subdomain, errors)
            }
            (None, None) => {
                errors.push(FieldError::invalid(
                    field,
                    "",
                    "must specify one of: `configMapRef` or `secretRef`",
                ));
            }
            (Some(_), Some(_)) => {
                errors.push(FieldError::invalid(
                    field,
                    "",
                    "may not have more than one field specified at a time",
                ));
            }
        }
    }
}

fn check_mounts(field: &str, container: &Container, place: &Place<'_>, errors: &mut Errors) {
    let privileged = container.security_context.as_ref().and_then(|c| c.privileged) == Some(true);
    let mut paths = HashSet::new();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        // Some faults are laid to the list, not to its item.
        let (list, at) = (format!("{field}.volumeMounts"), format!("{field}.volumeMounts[{i}]"));
        errors.required(format!("{at}.name"), mount.name.is_empty());
        if !place.volumes.contains(mount.name.as_str()) {
            let problem = Problem::NotFound(mount.name.as_str().into());
            errors.push(FieldError { field: format!("{at}.name"), problem });
        }
        errors.required(format!("{at}.mountPath"), mount.mount_path.is_empty());
        if !paths.insert(mount.mount_path.as_str()) {
            let detail = "must be unique";
            errors.push(FieldError::invalid(format!("{at}.mountPath"), mount.mount_path.as_str(), detail));
        }
        check_sub_paths(&list, &at, mount, errors);
        if let Some(propagation) = mount.mount_propagation.as_deref() {
            let at = format!("{list}.mountPropagation");
            errors.one_of(at.as_str(), Some(propagation), &["Bidirectional", "HostToContainer", "None"]);
            if propagation == "Bidirectional" && !privileged {
                let detail = "Bidirectional mount propagation is available only to privileged containers";
                errors.push(FieldError::forbidden(at, detail));
            }
        }
    }
    for (i, device) in container.volume_devices.iter().flatten().enumerate() {
        let at = format!("{field}.volumeDevices[{i}]");
        errors.required(format!("{at}.name"), device.name.is_empty());
        if !place.volumes.contains(device.name.as_str()) {
            let problem = Problem::NotFound(device.name.as_str().into());
            errors.push(FieldError { field: format!("{at}.name"), problem });
        }
        errors.required(format!("{at}.devicePath"), device.device_path.is_empty());
        no_backsteps(&format!("{at}.devicePath"), &device.device_path, errors);
    }
}

fn check_sub_paths(list: &str, at: &str, mount: &VolumeMount, errors: &mut Errors) {
    let (path, expression) =
        (mount.sub_path.as_deref().unwrap_or_default(), mount.sub_path_expr.as_deref().unwrap_or_default());
    if !path.is_empty() {
        check_local_path(&format!("{list}.subPath"), path, errors);
    }
    if !expression.is_empty() {
        if !path.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(format!("{at}.subPathExpr"), expression, detail));
        }
        check_local_path(&format!("{list}.subPathExpr"), expression, errors);
    }
}

fn check_security(field: &str, context: &SecurityContext, errors: &mut Errors) {
    for (part, id) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        if let Some(id) = id {
            range(format!("{field}.{part}"), id, 0, i64::from(i32::MAX), errors);
        }
    }
    errors.one_of(format!("{field}.procMount"), context.proc_mount.as_deref(), &["Default", "Unmasked"]);
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(shown(field, context, detail));
        }
        let added = context.capabilities.as_ref().and_then(|c| c.add.as_ref());
        if added.is_some_and(|a| a.iter().any(|c| c == "CAP_SYS_ADMIN")) {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(shown(field, context, detail));
        }
    }
}

/// The value as the original's message shows it: its own type's field names, all of them, in their order.
fn shown(field: &str, context: &SecurityContext, detail: &str) -> FieldError {
    let object = |fields: &[(&str, serde_json::Value)]| {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let capabilities = context.capabilities.as_ref();
    let capabilities = capabilities.map(|c| object(&[("Add", json(&c.add)), ("Drop", json(&c.drop))]));
    let rest = object(&[
        ("Privileged", json(&context.privileged)),
        ("SELinuxOptions", json(&context.se_linux_options)),
        ("WindowsOptions", json(&context.windows_options)),
        ("RunAsUser", json(&context.run_as_user)),
        ("RunAsGroup", json(&context.run_as_group)),
        ("RunAsNonRoot", json(&context.run_as_non_root)),
        ("ReadOnlyRootFilesystem", json(&context.read_only_root_filesystem)),
        ("AllowPrivilegeEscalation", json(&context.allow_privilege_escalation)),
        ("ProcMount", json(&context.proc_mount)),
        ("SeccompProfile", json(&context.seccomp_profile)),
        ("AppArmorProfile", json(&context.app_armor_profile)),
    ]);
    let capabilities = capabilities.unwrap_or_else(|| "null".into());
    let message = format!("Invalid value: {{\"Capabilities\":{capabilities},{}: {detail}", &rest[1..]);
    FieldError { field: field.into(), problem: Problem::Worded("FieldValueInvalid", message) }
}

/// A port by number or by name.
pub fn check_port_reference(field: &str, reference: &IntOrString, errors: &mut Errors) {
    match reference {
        IntOrString::Int(number) => port(field, *number, errors),
        IntOrString::String(name) => check_port_name(field, name, errors),
    }
}
