//! `Service`: a stable address in front of pods. Addresses and node ports are given out by the server.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::columns::{age_cell, list_or_none, name_cell, or_none};
use crate::kinds::{Build, Errors, Kind, names};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<Service>::new("services", true)
        .rules(|r| r.answers_deleted = true)
        .short(&["svc"])
        .in_all()
        .prefix("/registry/services/specs")
        .names(names::Rule::Label1035)
        .status()
        .subresource(
            "proxy",
            ("", "v1", "ServiceProxyOptions"),
            &["create", "delete", "get", "patch", "update"],
        )
        .default(default)
        .prepare_create(|service| {
            service.status =
                Some(ServiceStatus { load_balancer: Some(Default::default()), conditions: None });
        })
        .prepare_update(keep_addresses)
        .validate(validate)
        .validate_update(validate_update)
        .row(row)
        .fields(&["spec.clusterIP", "spec.type"], |s| {
            let spec = s.spec.clone().unwrap_or_default();
            vec![
                ("spec.clusterIP", spec.cluster_ip.unwrap_or_default()),
                ("spec.type", spec.type_.unwrap_or_default()),
            ]
        })
        .done()
}

fn default(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    spec.type_.get_or_insert_with(|| "ClusterIP".into());
    spec.session_affinity.get_or_insert_with(|| "None".into());
    let kind = spec.type_.clone().unwrap_or_default();
    if kind != "ExternalName" {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
        spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
        spec.ip_families.get_or_insert_with(|| vec!["IPv4".into()]);
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        spec.external_traffic_policy.get_or_insert_with(|| "Cluster".into());
    }
    if kind == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let client_ip =
            spec.session_affinity_config.get_or_insert_default().client_ip.get_or_insert_default();
        client_ip.timeout_seconds.get_or_insert(10_800);
    }
    for port in spec.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
        let unset = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(text)) => text.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
}

/// An update that leaves addresses and node ports out keeps those that were given.
fn keep_addresses(new: &mut Service, old: &Service) {
    let (Some(new), Some(old)) = (&mut new.spec, &old.spec) else { return };
    let has_address = |kind: &Option<String>| kind.as_deref() != Some("ExternalName");
    if has_address(&new.type_) && has_address(&old.type_) {
        if new.cluster_ip.as_deref().unwrap_or_default().is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if new.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if !wants_node_ports(new) {
        if wants_node_ports(old) {
            // Leaving NodePort gives the ports back.
            new.ports.iter_mut().flatten().for_each(|p| p.node_port = None);
        }
        return;
    }
    for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or(0) == 0) {
        let same = |o: &&ServicePort| o.port == port.port && o.protocol == port.protocol;
        port.node_port = old.ports.iter().flatten().find(same).and_then(|o| o.node_port);
    }
}

fn wants_node_ports(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn validate(service: &Service, errors: &mut Errors) {
    let spec = service.spec.clone().unwrap_or_default();
    const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    errors.one_of("spec.type", spec.type_.as_deref(), TYPES);
    errors.one_of("spec.sessionAffinity", spec.session_affinity.as_deref(), &["ClientIP", "None"]);
    let ports = spec.ports.as_deref().unwrap_or_default();
    let external = spec.type_.as_deref() == Some("ExternalName");
    let headless = spec.cluster_ip.as_deref() == Some("None");
    errors.required("spec.ports", ports.is_empty() && !external && !headless);
    if external {
        errors.required("spec.externalName", spec.external_name.as_deref().unwrap_or_default().is_empty());
    }
    if headless && wants_node_ports(&spec) {
        let detail =
            format!("may not be set to 'None' for {} services", spec.type_.as_deref().unwrap_or_default());
        errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", detail));
    }
    for (i, port) in ports.iter().enumerate() {
        check_port(&format!("spec.ports[{i}]"), port, ports.len() > 1, errors);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() && ports[..i].iter().any(|p| p.name.as_deref() == Some(name)) {
            errors.push(FieldError::duplicate(format!("spec.ports[{i}].name"), name));
        }
        if ports[..i].iter().any(|p| p.port == port.port && p.protocol == port.protocol) {
            let shown = serde_json::json!({"port": port.port, "protocol": port.protocol});
            errors.push(FieldError::duplicate(format!("spec.ports[{i}]"), shown));
        }
    }
    let selector = spec.selector.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    names::check_labels("spec.selector", selector, errors);
}

fn check_port(field: &str, port: &ServicePort, name_required: bool, errors: &mut Errors) {
    let name = port.name.as_deref().unwrap_or_default();
    errors.required(format!("{field}.name"), name_required && name.is_empty());
    if !name.is_empty()
        && let Some(fault) = names::fault(names::Rule::Label, name)
    {
        errors.push(FieldError::invalid(format!("{field}.name"), name, fault));
    }
    check_port_number(&format!("{field}.port"), port.port, errors);
    errors.not_negative(format!("{field}.nodePort"), port.node_port.map(i64::from));
    errors.one_of(format!("{field}.protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    if let Some(IntOrString::Int(target)) = port.target_port {
        check_port_number(&format!("{field}.targetPort"), target, errors);
    }
}

/// 1 to 65535.
pub(super) fn check_port_number(field: &str, port: i32, errors: &mut Errors) {
    if !(1..=65_535).contains(&port) {
        errors.push(FieldError::invalid(field, port, "must be between 1 and 65535, inclusive"));
    }
}

/// The name of a port: letters, digits and single hyphens, with a letter among them.
pub(in crate::kinds) fn check_port_name(field: &str, name: &str, errors: &mut Errors) {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let mut fault = |detail: &str| errors.push(FieldError::invalid(field, name, detail));
    if name.len() > 15 {
        fault("must be no more than 15 characters");
    }
    if !name.bytes().all(allowed) {
        fault("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        fault("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        fault("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        fault("must not begin or end with a hyphen");
    }
}

fn validate_update(new: &Service, old: &Service, errors: &mut Errors) {
    let address = |s: &Service| s.spec.as_ref().and_then(|s| s.cluster_ip.clone()).unwrap_or_default();
    let external = |s: &Service| s.spec.as_ref().is_some_and(|s| s.type_.as_deref() == Some("ExternalName"));
    let kept = address(new) == address(old);
    if !kept && !address(old).is_empty() && !external(new) && !external(old) {
        let detail = "may not change once set";
        errors.push(FieldError::invalid("spec.clusterIPs[0]", address(new), detail));
    }
}

fn row(service: &Service) -> Vec<Value> {
    let spec = service.spec.clone().unwrap_or_default();
    let kind = spec.type_.clone().unwrap_or_default();
    let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
    let balanced = ingress.into_iter().flatten().filter_map(|i| i.ip.clone().or(i.hostname.clone()));
    let externals: Vec<String> = balanced.chain(spec.external_ips.iter().flatten().cloned()).collect();
    let external = match kind.as_str() {
        "ExternalName" => or_none(spec.external_name.as_deref()),
        "LoadBalancer" if externals.is_empty() => "<pending>".into(),
        _ => list_or_none(&externals),
    };
    let ports = spec.ports.iter().flatten().map(|p| {
        let protocol = p.protocol.as_deref().unwrap_or("TCP");
        match p.node_port.filter(|n| *n > 0) {
            Some(node_port) => format!("{}:{node_port}/{protocol}", p.port),
            None => format!("{}/{protocol}", p.port),
        }
    });
    let selector = spec.selector.iter().flatten().map(|(k, v)| format!("{k}={v}"));
    vec![
        name_cell(&service.metadata),
        kind.into(),
        or_none(spec.cluster_ip.as_deref()),
        external,
        list_or_none(ports),
        age_cell(&service.metadata),
        list_or_none(selector),
    ]
}
