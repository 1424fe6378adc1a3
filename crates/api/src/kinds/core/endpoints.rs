//! `Endpoints`: the older form of EndpointSlices, kept for clients that still read it.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};

use crate::columns::{age_cell, list_or_none, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::names::{self, Rule};
use crate::kinds::network;
use crate::kinds::validate::{is_empty, named, port, qualified};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<Endpoints>::new("endpoints", true)
        .metadata_on_update(&[Change, Whole])
        .short(&["ep"])
        .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        .prefix("/registry/services/endpoints")
        .default(|endpoints| {
            let ports = endpoints.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten());
            for port in ports {
                port.protocol.get_or_insert_with(|| "TCP".into());
            }
        })
        .validate(|endpoints, errors| {
            for (i, subset) in endpoints.subsets.iter().flatten().enumerate() {
                check_subset(&format!("subsets[{i}]"), subset, errors);
            }
        })
        .row(|e| {
            let addresses = e.subsets.iter().flatten().flat_map(|subset| {
                subset.ports.iter().flatten().flat_map(move |port| {
                    let addresses = subset.addresses.iter().flatten();
                    addresses.map(move |address| format!("{}:{}", address.ip, port.port))
                })
            });
            vec![name_cell(&e.metadata), list_or_none(addresses), age_cell(&e.metadata)]
        })
        .done()
}

fn check_subset(field: &str, subset: &EndpointSubset, errors: &mut Errors) {
    let ready = subset.addresses.as_deref().unwrap_or_default();
    let waiting = subset.not_ready_addresses.as_deref().unwrap_or_default();
    if ready.is_empty() && waiting.is_empty() {
        let detail = "must specify `addresses` or `notReadyAddresses`";
        errors.push(FieldError::required(field, detail));
    }
    for (part, addresses) in [("addresses", ready), ("notReadyAddresses", waiting)] {
        for (i, address) in addresses.iter().enumerate() {
            check_address(&format!("{field}.{part}[{i}]"), address, errors);
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (i, given) in ports.iter().enumerate() {
        let at = format!("{field}.ports[{i}]");
        errors.required(format!("{at}.name"), ports.len() > 1 && is_empty(given.name.as_deref()));
        port(format!("{at}.port"), given.port, errors);
        if let Some(name) = given.name.as_deref().filter(|name| !name.is_empty()) {
            named(format!("{at}.name"), name, Rule::Label, errors);
        }
        errors.one_of(format!("{at}.protocol"), given.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
        if let Some(protocol) = given.app_protocol.as_deref() {
            qualified(format!("{at}.appProtocol"), protocol, errors);
        }
    }
}

fn check_address(field: &str, address: &EndpointAddress, errors: &mut Errors) {
    let at = format!("{field}.ip");
    let ip = address.ip.as_str();
    if let Some(fault) = network::address_fault(ip) {
        errors.push(FieldError::invalid(at.as_str(), ip, fault));
    }
    if let Some(name) = address.hostname.as_deref().filter(|name| !name.is_empty()) {
        named(format!("{field}.hostname"), name, Rule::Label, errors);
    }
    if let Some(name) = &address.node_name
        && let Some(fault) = names::fault(Rule::Subdomain, name)
    {
        errors.push(FieldError::invalid(format!("{field}.nodeName"), name.as_str(), fault));
    }
    // What is no address is told of by both checks of the original.
    network::unreachable(&at, ip, errors);
}
