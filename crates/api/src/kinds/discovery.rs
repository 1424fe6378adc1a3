//! `discovery.k8s.io/v1`: which addresses stand behind a service.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{Build, Kind};
use crate::columns::{age_cell, list_or_none, name_cell};

pub fn kinds() -> Vec<Kind> {
    let slice = Build::<EndpointSlice>::new("endpointslices", true)
        .generation()
        .rules(|r| r.create_on_update = true)
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
                errors.required(format!("endpoints[{i}].addresses"), endpoint.addresses.is_empty());
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
