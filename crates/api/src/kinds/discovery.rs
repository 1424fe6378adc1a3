//! `discovery.k8s.io/v1`: which addresses stand behind a service.

use std::collections::HashSet;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{Build, Errors, Kind, names};
use crate::columns::{age_cell, list_or_none, name_cell};
use crate::status::FieldError;

pub fn kinds() -> Vec<Kind> {
    let slice = Build::<EndpointSlice>::new("endpointslices", true)
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
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(format!("{at}.name"), name));
                }
                errors.one_of(format!("{at}.protocol"), given.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
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

/// At least one address, of the slice's type.
fn check_endpoint(field: &str, address_type: &str, endpoint: &Endpoint, errors: &mut Errors) {
    let at = format!("{field}.addresses");
    if endpoint.addresses.is_empty() {
        errors.push(FieldError::required(at.as_str(), "must contain at least 1 address"));
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        let parsed = address.parse::<std::net::IpAddr>();
        match (address_type, parsed) {
            ("IPv4" | "IPv6", Err(_)) => {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.push(FieldError::invalid(format!("{at}[{i}]"), address.as_str(), detail));
            }
            ("IPv4", Ok(ip)) if ip.is_ipv6() => {
                errors.push(FieldError::invalid(at.as_str(), address.as_str(), "must be an IPv4 address"));
            }
            ("IPv6", Ok(ip)) if ip.is_ipv4() => {
                errors.push(FieldError::invalid(at.as_str(), address.as_str(), "must be an IPv6 address"));
            }
            _ => {}
        }
    }
    if let Some(name) = endpoint.hostname.as_deref()
        && let Some(fault) = names::fault(names::Rule::Label, name)
    {
        errors.push(FieldError::invalid(format!("{field}.hostname"), name, fault));
    }
}
