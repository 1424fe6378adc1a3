//! `discovery.k8s.io/v1`: which addresses stand behind a service.

use std::collections::HashSet;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::validate::qualified;
use super::{Build, Errors, Kind, names, network};
use crate::columns::{age_cell, list_or_none, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::status::FieldError;

pub fn kinds() -> Vec<Kind> {
    let slice = Build::<EndpointSlice>::new("endpointslices", true)
        .metadata_on_update(&[Whole])
        .generation()
        .rules(|r| {
            r.create_on_update = true;
            r.labels_count = true;
        })
        .default(|slice| {
            for port in slice.ports.iter_mut().flatten() {
                port.protocol.get_or_insert_with(|| "TCP".into());
                port.name.get_or_insert_default();
            }
        })
        .prepare_create(drop_topology)
        .prepare_update(|new, _| drop_topology(new))
        .warnings(|slice| {
            let named = slice.address_type == "FQDN";
            named.then(|| "spec.addressType: FQDN endpoints are deprecated".to_owned()).into_iter().collect()
        })
        .validate(|slice, errors| {
            errors.required("addressType", slice.address_type.is_empty());
            if !slice.address_type.is_empty() {
                errors.one_of("addressType", Some(&slice.address_type), &["FQDN", "IPv4", "IPv6"]);
            }
            for (i, endpoint) in slice.endpoints.iter().flatten().enumerate() {
                check_endpoint(&format!("endpoints[{i}]"), &slice.address_type, endpoint, errors);
            }
            let ports = slice.ports.as_deref().unwrap_or_default();
            let mut seen = HashSet::new();
            for (i, given) in ports.iter().enumerate() {
                let (at, name) = (format!("ports[{i}]"), given.name.as_deref().unwrap_or_default());
                if !name.is_empty()
                    && let Some(fault) = names::fault(names::Rule::Label, name)
                {
                    errors.push(FieldError::invalid(format!("{at}.name"), name, fault));
                }
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(format!("{at}.name"), name));
                }
                errors.one_of(format!("{at}.protocol"), given.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
                if let Some(protocol) = given.app_protocol.as_deref() {
                    qualified(format!("{at}.appProtocol"), protocol, errors);
                }
            }
        })
        .validate_update(|new, old, errors| {
            errors.immutable("addressType", &new.address_type, &old.address_type)
        })
        .row(|s| {
            let ports = s.ports.iter().flatten().filter_map(|p| p.port).map(|p| p.to_string());
            let ports = match list_or_none(ports) {
                none if none == "<none>" => "<unset>".into(),
                ports => ports,
            };
            let addresses = s.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().cloned());
            vec![
                name_cell(&s.metadata),
                s.address_type.clone().into(),
                ports,
                match list_or_none(addresses) {
                    none if none == "<none>" => "<unset>".into(),
                    addresses => addresses,
                },
                age_cell(&s.metadata),
            ]
        })
        .done();
    vec![slice]
}

/// What the first form had for nodes and zones is kept no longer.
fn drop_topology(slice: &mut EndpointSlice) {
    for endpoint in slice.endpoints.iter_mut().flatten() {
        endpoint.deprecated_topology = None;
    }
}

/// At least one address, of the slice's type.
fn check_endpoint(field: &str, address_type: &str, endpoint: &Endpoint, errors: &mut Errors) {
    let at = format!("{field}.addresses");
    if endpoint.addresses.is_empty() {
        errors.push(FieldError::required(at.as_str(), "must contain at least 1 address"));
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        let one = format!("{at}[{i}]");
        if address_type == "FQDN" {
            errors.0.extend(
                names::fault(names::Rule::Subdomain, address)
                    .map(|fault| FieldError::invalid(one, address.as_str(), fault)),
            );
            continue;
        }
        if !matches!(address_type, "IPv4" | "IPv6") {
            continue;
        }
        if let Some(fault) = network::address_fault(address) {
            errors.push(FieldError::invalid(one.as_str(), address.as_str(), fault));
        }
        let Ok(ip) = address.parse::<std::net::IpAddr>() else { continue };
        if ip.is_ipv4() != (address_type == "IPv4") {
            let detail = format!("must be an {address_type} address");
            errors.push(FieldError::invalid(at.as_str(), address.as_str(), detail));
        }
        network::unreachable(&one, address, errors);
    }
    let mut named = |part: String, name: &str, rule| {
        if let Some(fault) = names::fault(rule, name) {
            errors.push(FieldError::invalid(format!("{field}.{part}"), name, fault));
        }
    };
    if let Some(name) = endpoint.node_name.as_deref() {
        named("nodeName".into(), name, names::Rule::Subdomain);
    }
    if let Some(name) = endpoint.hostname.as_deref() {
        named("hostname".into(), name, names::Rule::Label);
    }
    let hints = endpoint.hints.clone().unwrap_or_default();
    let mut seen = HashSet::new();
    for (i, zone) in hints.for_zones.iter().flatten().enumerate() {
        let at = format!("{field}.hints.forZones[{i}].name");
        if !seen.insert(zone.name.as_str()) {
            errors.push(FieldError::duplicate(at.as_str(), zone.name.as_str()));
        }
        if let Some(fault) = names::label_value_fault(&zone.name) {
            errors.push(FieldError::invalid(at, zone.name.as_str(), fault));
        }
    }
    let mut seen = HashSet::new();
    for (i, node) in hints.for_nodes.iter().flatten().enumerate() {
        let at = format!("{field}.hints.forNodes[{i}].name");
        if !seen.insert(node.name.as_str()) {
            errors.push(FieldError::duplicate(at.as_str(), node.name.as_str()));
        }
        if let Some(fault) = names::fault(names::Rule::Subdomain, &node.name) {
            errors.push(FieldError::invalid(at, node.name.as_str(), fault));
        }
    }
}
