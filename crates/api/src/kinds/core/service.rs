//! `Service`: a stable address in front of pods. Addresses and node ports are given out by the server.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::service_validate;
use crate::columns::{age_cell, list_or_none, name_cell, or_none};
use crate::kinds::{Build, Kind, names};

pub fn kind() -> Kind {
    Build::<Service>::new("services", true)
        .rules(|r| r.answers_deleted = true)
        .short(&["svc"])
        .in_all()
        .prefix("/registry/services/specs")
        .names(names::Rule::Label)
        .status()
        .subresource(
            "proxy",
            ("", "v1", "ServiceProxyOptions"),
            &["create", "delete", "get", "patch", "update"],
        )
        .default(default)
        .prepare_create(|service| {
            settle_families(service);
            service.status =
                Some(ServiceStatus { load_balancer: Some(Default::default()), conditions: None });
        })
        .prepare_update(keep_addresses)
        .validate(service_validate::check)
        .warnings(service_validate::warnings)
        .validate_update(service_validate::check_update)
        .validate_status(service_validate::check_status)
        .status_warnings(service_validate::status_warnings)
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
    let balancer = service.status.as_mut().and_then(|s| s.load_balancer.as_mut());
    for place in balancer.into_iter().flat_map(|b| b.ingress.iter_mut().flatten()) {
        if place.ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
            place.ip_mode.get_or_insert_with(|| "VIP".into());
        }
    }
    let spec = service.spec.get_or_insert_default();
    spec.type_.get_or_insert_with(|| "ClusterIP".into());
    spec.session_affinity.get_or_insert_with(|| "None".into());
    if spec.session_affinity.as_deref() == Some("None") {
        spec.session_affinity_config = None;
    }
    let kind = spec.type_.clone().unwrap_or_default();
    if kind != "ExternalName" {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
    }
    if is_reached_from_outside(spec) {
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

/// One family, as long as the cluster has one; whoever names another is told in validation.
fn settle_families(service: &mut Service) {
    let Some(spec) = &mut service.spec else { return };
    if spec.type_.as_deref() != Some("ExternalName") {
        spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
        spec.ip_families.get_or_insert_with(|| vec!["IPv4".into()]);
    }
}

/// An update that leaves addresses and node ports out keeps those that were given.
fn keep_addresses(new: &mut Service, old: &Service) {
    settle_families(new);
    let (Some(new), Some(old)) = (&mut new.spec, &old.spec) else { return };
    let has_address = |kind: &Option<String>| kind.as_deref() != Some("ExternalName");
    // What it was given for its address goes with that.
    if !has_address(&new.type_)
        && has_address(&old.type_)
        && new.internal_traffic_policy == old.internal_traffic_policy
    {
        new.internal_traffic_policy = None;
    }
    if has_address(&new.type_) && has_address(&old.type_) {
        if new.cluster_ip.as_deref().unwrap_or_default().is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if new.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
        // Who knows of one address alone means the first of them.
        if new.cluster_ip != old.cluster_ip && new.cluster_ips == old.cluster_ips {
            let first = new.cluster_ips.as_mut().and_then(|all| all.first_mut());
            first.zip(new.cluster_ip.clone()).into_iter().for_each(|(first, own)| *first = own);
        }
    }
    leave_type(new, old);
    // What only is of use to who comes from outside goes when nobody does any more.
    if !is_reached_from_outside(new) && new.external_traffic_policy == old.external_traffic_policy {
        new.external_traffic_policy = None;
    }
    if !wants_node_ports(new) {
        if wants_node_ports(old) {
            // Leaving NodePort gives the ports back.
            new.ports.iter_mut().flatten().for_each(|p| p.node_port = None);
        }
        return;
    }
    // Of several old ones alike the first counts.
    let held = old.ports.iter().flatten().rev();
    let held: HashMap<_, _> = held.map(|o| ((o.port, o.protocol.as_deref()), o.node_port)).collect();
    for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or(0) == 0) {
        port.node_port = held.get(&(port.port, port.protocol.as_deref())).copied().flatten();
    }
}

/// What the type that is left alone has, and what may have been filled in for it, goes with it unless it was changed too:
/// whoever did not write it could not take it away.
fn leave_type(new: &mut ServiceSpec, old: &ServiceSpec) {
    let is = |spec: &ServiceSpec, kind: &str| spec.type_.as_deref() == Some(kind);
    if is(old, "LoadBalancer") && !is(new, "LoadBalancer") {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    let is_checked = |spec: &ServiceSpec| {
        is(spec, "LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local")
    };
    if is_checked(old) && !is_checked(new) && new.health_check_node_port == old.health_check_node_port {
        new.health_check_node_port = None;
    }
    if !is(old, "ExternalName") && is(new, "ExternalName") {
        if new.cluster_ip == old.cluster_ip && new.cluster_ips == old.cluster_ips {
            (new.cluster_ip, new.cluster_ips) = (None, None);
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
}

fn is_reached_from_outside(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort" | "LoadBalancer") => true,
        Some("ClusterIP") => spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}

pub(super) fn wants_node_ports(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_address_is_the_one() {
        let service = |value: Value| -> Service {
            serde_json::from_value(json!({"metadata": {}, "spec": value})).expect("a service")
        };
        let old =
            service(json!({"type": "ClusterIP", "clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"]}));
        let kept = |changed: Value| {
            let mut new = service(changed);
            new.spec.as_mut().expect("a spec").type_ = Some("ClusterIP".into());
            keep_addresses(&mut new, &old);
            let spec = new.spec.expect("a spec");
            (spec.cluster_ip.unwrap_or_default(), spec.cluster_ips.unwrap_or_default().concat())
        };
        let both = |one: &str, all: &str| (one.to_owned(), all.to_owned());
        assert_eq!(kept(json!({})), both("10.43.0.7", "10.43.0.7"));
        assert_eq!(kept(json!({"clusterIP": "10.43.0.8"})), both("10.43.0.8", "10.43.0.8"));
        assert_eq!(kept(json!({"clusterIP": "None", "clusterIPs": ["10.43.0.7"]})), both("None", "None"));
        assert_eq!(
            kept(json!({"clusterIP": "10.43.0.8", "clusterIPs": ["10.43.0.9"]})),
            both("10.43.0.8", "10.43.0.9")
        );
    }

    #[test]
    fn what_belongs_to_a_type_goes_with_it() {
        let spec = |value: Value| serde_json::from_value::<ServiceSpec>(value).expect("a spec");
        let balanced = spec(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": true,
            "loadBalancerClass": "c", "healthCheckNodePort": 30001, "externalTrafficPolicy": "Local",
            "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "ipFamilies": ["IPv4"]}));
        let left = |kind: &str, changed: Value| {
            let mut new = serde_json::to_value(&balanced).expect("JSON");
            new["type"] = kind.into();
            changed.as_object().expect("fields").iter().for_each(|(k, v)| new[k] = v.clone());
            let mut new = spec(new);
            leave_type(&mut new, &balanced);
            new
        };
        let inside = left("ClusterIP", json!({}));
        assert_eq!((inside.allocate_load_balancer_node_ports, inside.load_balancer_class), (None, None));
        assert_eq!((inside.health_check_node_port, inside.cluster_ip.as_deref()), (None, Some("10.43.0.9")));
        // Who changes it as well is told of it.
        let changed = left("NodePort", json!({"allocateLoadBalancerNodePorts": false}));
        assert_eq!(changed.allocate_load_balancer_node_ports, Some(false));
        let named = left("ExternalName", json!({}));
        assert_eq!((named.cluster_ip, named.cluster_ips, named.ip_families), (None, None, None));
    }
}
