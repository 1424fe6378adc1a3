//! Validation of services: which fields go with which type, ports, addresses.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::service::wants_node_ports;
use crate::kinds::Errors;
use crate::kinds::names::{self, Rule};
use crate::kinds::network::{self, address_warning};
use crate::kinds::validate::{is_empty, json, new_address, port, qualified, reachable_name};
use crate::status::{FieldError, Problem};

const BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const LONGEST_AFFINITY_SECONDS: i32 = 86_400;

pub fn check(service: &Service, errors: &mut Errors) {
    let spec = service.spec.clone().unwrap_or_default();
    let external = spec.type_.as_deref() == Some("ExternalName");
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    check_ports(&spec, external || headless, errors);
    let selector = spec.selector.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    names::check_labels("spec.selector", selector, errors);
    const AFFINITIES: &[&str] = &["ClientIP", "None"];
    errors.one_of("spec.sessionAffinity", spec.session_affinity.as_deref(), AFFINITIES);
    let timeout = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = timeout.filter(|s| !(1..=LONGEST_AFFINITY_SECONDS).contains(s)) {
        let detail = format!("must be greater than 0 and less than {LONGEST_AFFINITY_SECONDS}");
        errors.push(FieldError::invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            seconds,
            detail,
        ));
    }
    check_addresses(&spec, external, headless, errors);
    const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    errors.one_of("spec.type", spec.type_.as_deref(), TYPES);
    if external {
        match spec.external_name.as_deref().unwrap_or_default().trim_end_matches('.') {
            "" => errors.required("spec.externalName", true),
            name => {
                if let Some(fault) = names::fault(Rule::Subdomain, name) {
                    errors.push(FieldError::invalid("spec.externalName", name, fault));
                }
            }
        }
    }
    if balanced {
        for (i, range) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
            if let Some(fault) = network::fault(range.trim()) {
                let at = format!("spec.LoadBalancerSourceRanges[{i}]");
                errors.push(FieldError::invalid(at, range.as_str(), fault));
            }
        }
        if let Some(class) = spec.load_balancer_class.as_deref() {
            qualified("spec.loadBalancerClass", class, errors);
        }
    } else {
        for (field, given) in [
            (
                "spec.LoadBalancerSourceRanges",
                spec.load_balancer_source_ranges.as_ref().is_some_and(|r| !r.is_empty()),
            ),
            ("spec.allocateLoadBalancerNodePorts", spec.allocate_load_balancer_node_ports.is_some()),
            ("spec.loadBalancerClass", spec.load_balancer_class.is_some()),
        ] {
            if given {
                errors.push(FieldError::forbidden(field, BALANCER_ONLY));
            }
        }
    }
    check_policies(&spec, external, errors);
}

fn check_policies(spec: &ServiceSpec, external_name: bool, errors: &mut Errors) {
    let reachable = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
        || spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    let policy = spec.external_traffic_policy.as_deref();
    if let Some(policy) = policy.filter(|p| !p.is_empty()) {
        match reachable {
            false => {
                let detail = "may only be set for externally-accessible services";
                errors.push(FieldError::invalid("spec.externalTrafficPolicy", policy, detail));
            }
            true => errors.one_of("spec.externalTrafficPolicy", Some(policy), &["Cluster", "Local"]),
        }
    }
    let number = spec.health_check_node_port.unwrap_or(0);
    let wanted = spec.type_.as_deref() == Some("LoadBalancer") && policy == Some("Local");
    if number != 0 && !wanted {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid("spec.healthCheckNodePort", number, detail));
    }
    if !external_name {
        match spec.internal_traffic_policy.as_deref() {
            None => errors.required("spec.internalTrafficPolicy", true),
            policy => errors.one_of("spec.internalTrafficPolicy", policy, &["Cluster", "Local"]),
        }
    }
    const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
    errors.one_of("spec.trafficDistribution", spec.traffic_distribution.as_deref(), DISTRIBUTIONS);
}

fn check_addresses(spec: &ServiceSpec, external: bool, headless: bool, errors: &mut Errors) {
    if headless && wants_node_ports(spec) {
        let kind = spec.type_.as_deref().unwrap_or_default();
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", detail));
    }
    if external && !is_empty(spec.cluster_ip.as_deref()) {
        errors.push(FieldError::forbidden("spec.clusterIPs", "may not be set for ExternalName services"));
    }
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    if let Some(first) = all.first().filter(|_| !external) {
        let fault = match spec.cluster_ip.as_deref().unwrap_or_default() {
            "" => Some("must be empty when `clusterIP` is not specified"),
            own if own != first => Some("first value must match `clusterIP`"),
            _ => None,
        };
        if let Some(fault) = fault {
            errors.push(FieldError::invalid("spec.clusterIPs", json(&all), fault));
        }
    }
    if all.len() > 1 && all.iter().any(|ip| ip == "None") {
        errors.push(FieldError::invalid(
            "spec.clusterIPs",
            json(&all),
            "'None' must be the first and only value",
        ));
        for (i, ip) in all.iter().enumerate().skip(1) {
            new_address(format!("spec.clusterIPs[{i}]"), ip, &[], errors);
        }
    }
    const FAMILIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    errors.one_of("spec.ipFamilyPolicy", spec.ip_family_policy.as_deref(), FAMILIES);
    if spec.ip_family_policy.as_deref() == Some("RequireDualStack") {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", "RequireDualStack", detail));
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        let at = format!("spec.ipFamilies[{i}]");
        match family.as_str() {
            "IPv4" => {}
            "IPv6" => errors.push(FieldError::invalid(at, "IPv6", "not configured on this cluster")),
            other => errors.one_of(at, Some(other), &["IPv4", "IPv6"]),
        }
    }
    for (i, text) in spec.external_ips.iter().flatten().enumerate() {
        let at = format!("spec.externalIPs[{i}]");
        match text.parse::<std::net::IpAddr>() {
            Err(_) => new_address(at, text, &[], errors),
            Ok(ip) if ip.is_loopback() => {
                let detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
                errors.push(FieldError::invalid(at, text.as_str(), detail));
            }
            Ok(ip) if ip.is_unspecified() => {
                let detail = format!("may not be unspecified ({ip})");
                errors.push(FieldError::invalid(at, text.as_str(), detail));
            }
            Ok(_) => {}
        }
    }
}

fn check_ports(spec: &ServiceSpec, may_have_none: bool, errors: &mut Errors) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    errors.required("spec.ports", ports.is_empty() && !may_have_none);
    let inner = matches!(spec.type_.as_deref(), Some("ClusterIP"));
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    for (i, given) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        check_port(&at, given, ports.len() > 1, errors);
        let name = given.name.as_deref().unwrap_or_default();
        if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{at}.name"), name));
        }
        if inner && given.node_port.unwrap_or(0) != 0 {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(format!("{at}.nodePort"), detail));
        }
        if !numbers.insert((given.port, given.protocol.as_deref())) {
            // As the original prints its own type.
            let protocol = given.protocol.clone().unwrap_or_default();
            let message = format!(
                "Duplicate value: {{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                given.port
            );
            errors.push(FieldError { field: at, problem: Problem::Worded("FieldValueDuplicate", message) });
        }
    }
}

fn check_port(field: &str, given: &ServicePort, name_required: bool, errors: &mut Errors) {
    let name = given.name.as_deref().unwrap_or_default();
    errors.required(format!("{field}.name"), name_required && name.is_empty());
    if !name.is_empty()
        && let Some(fault) = names::fault(Rule::Label, name)
    {
        errors.push(FieldError::invalid(format!("{field}.name"), name, fault));
    }
    port(format!("{field}.port"), given.port, errors);
    errors.not_negative(format!("{field}.nodePort"), given.node_port.map(i64::from));
    errors.one_of(format!("{field}.protocol"), given.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    match &given.target_port {
        Some(IntOrString::Int(target)) => port(format!("{field}.targetPort"), *target, errors),
        Some(IntOrString::String(name)) => check_port_name(&format!("{field}.targetPort"), name, errors),
        None => {}
    }
    if let Some(protocol) = &given.app_protocol {
        qualified(format!("{field}.appProtocol"), protocol, errors);
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

pub fn check_update(new: &Service, old: &Service, errors: &mut Errors) {
    check_balancer(new, old, errors);
    let address = |s: &Service| s.spec.as_ref().and_then(|s| s.cluster_ip.clone()).unwrap_or_default();
    let external = |s: &Service| s.spec.as_ref().is_some_and(|s| s.type_.as_deref() == Some("ExternalName"));
    let kept = address(new) == address(old);
    if !kept && !address(old).is_empty() && !external(new) && !external(old) {
        let all = new.spec.as_ref().and_then(|s| s.cluster_ips.clone()).unwrap_or_default();
        // Where the two do not agree, that is what is told.
        if all.first() == Some(&address(new)) {
            errors.push(FieldError::invalid("spec.clusterIPs[0]", json(&all), "may not change once set"));
        }
    }
}

/// Who balances a service, and where that asks after its health, is settled once.
fn check_balancer(new: &Service, old: &Service, errors: &mut Errors) {
    let (now, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let balanced = |spec: &ServiceSpec| spec.type_.as_deref() == Some("LoadBalancer");
    let class = |spec: &ServiceSpec| spec.load_balancer_class.clone();
    if balanced(&before) && balanced(&now) && class(&before) != class(&now) {
        let shown = json(&now.load_balancer_class);
        errors.push(FieldError::invalid("spec.loadBalancerClass", shown, "may not change once set"));
    }
    if !balanced(&now) && now.load_balancer_class.is_some() && class(&before) != class(&now) {
        errors.push(FieldError::forbidden("spec.loadBalancerClass", BALANCER_ONLY));
    }
    let checked =
        |spec: &ServiceSpec| balanced(spec) && spec.external_traffic_policy.as_deref() == Some("Local");
    let number = |spec: &ServiceSpec| spec.health_check_node_port.unwrap_or(0);
    if checked(&before) && checked(&now) && number(&before) != number(&now) {
        errors.push(FieldError::forbidden("spec.healthCheckNodePort", "field is immutable"));
    }
}

/// Only what is balanced has a balancer's addresses.
pub fn check_status(new: &Service, old: &Service, errors: &mut Errors) {
    let balanced = new.spec.as_ref().is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer"));
    let (now, before) = (places(new), places(old));
    if !balanced && !now.is_empty() {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        return errors.push(FieldError::forbidden("status.loadBalancer.ingress", detail));
    }
    let before: Vec<&str> = before.iter().filter_map(|i| i.ip.as_deref()).collect();
    for (i, place) in now.iter().enumerate() {
        check_place(&format!("status.loadBalancer.ingress[{i}]"), place, &before, errors);
    }
}

/// Where its load balancer is reached.
fn places(service: &Service) -> Vec<LoadBalancerIngress> {
    let status = service.status.as_ref();
    status.and_then(|s| s.load_balancer.as_ref()?.ingress.clone()).unwrap_or_default()
}

/// Addresses that were there before, and are better spelled otherwise.
pub fn status_warnings(service: &Service) -> Vec<String> {
    let places = places(service).into_iter().enumerate();
    let told = places.filter_map(|(i, place)| {
        let ip = place.ip.filter(|ip| !ip.is_empty())?;
        address_warning(&format!("status.loadBalancer.ingress[{i}]"), &ip)
    });
    told.collect()
}

/// One place at which a load balancer is reached.
fn check_place(field: &str, place: &LoadBalancerIngress, before: &[&str], errors: &mut Errors) {
    let ip = place.ip.as_deref().filter(|ip| !ip.is_empty());
    if let Some(ip) = ip {
        new_address(format!("{field}.ip"), ip, before, errors);
    }
    let at = format!("{field}.ipMode");
    match (&place.ip_mode, ip) {
        (None, Some(_)) => errors.push(FieldError::required(at, "must be specified when `ip` is set")),
        (Some(_), None) => {
            errors.push(FieldError::forbidden(at, "may not be specified when `ip` is not set"));
        }
        (mode, _) => errors.one_of(at, mode.as_deref(), &["Proxy", "VIP"]),
    }
    if let Some(name) = place.hostname.as_deref().filter(|name| !name.is_empty()) {
        reachable_name(format!("{field}.hostname"), name, errors);
    }
}

/// What is said and does not count, or will not for long.
pub fn warnings(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let mut out = Vec::new();
    let mut warn = |applies: bool, text: &str| {
        if applies {
            out.push(text.to_owned());
        }
    };
    let annotations = service.metadata.annotations.as_ref();
    let hints = annotations.is_some_and(|a| a.contains_key("service.kubernetes.io/topology-aware-hints"));
    warn(
        hints,
        "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
    );
    let given = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
    let external = spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    let headless = kind == "ClusterIP" && spec.cluster_ip.as_deref() == Some("None");
    if headless {
        warn(given(&spec.load_balancer_ip), "spec.loadBalancerIP is ignored for headless services");
        warn(external, "spec.externalIPs is ignored for headless services");
        let sticky = spec.session_affinity.as_deref().unwrap_or("None") != "None";
        warn(sticky, "spec.SessionAffinity is ignored for headless services");
    }
    warn(
        external && !headless && kind != "ExternalName",
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
    );
    warn(
        external && kind == "ExternalName",
        "spec.externalIPs is ignored when spec.type is \"ExternalName\"",
    );
    warn(
        given(&spec.external_name) && kind != "ExternalName",
        "spec.externalName is ignored when spec.type is not \"ExternalName\"",
    );
    warn(
        spec.traffic_distribution.as_deref() == Some("PreferClose"),
        "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
    );
    out
}
