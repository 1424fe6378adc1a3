//! From services and endpoint slices to names, by the Kubernetes DNS specification (schema version 1.1.0). Pure.

use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use net::dns::Records;

use super::World;
use super::translate::{cluster_ip, conditions};

const SCHEMA_VERSION: &str = "1.1.0";

pub fn records(world: &World<'_>) -> Records {
    let domain = world.domain;
    let mut records = Records::new(domain);
    records.add_txt(&format!("dns-version.{domain}"), SCHEMA_VERSION);
    records.echo_addresses_below(&format!("pod.{domain}"));
    for service in world.services {
        let name = format!("{}.{}.svc.{domain}", service.name_any(), service.namespace().unwrap_or_default());
        let Some(spec) = &service.spec else { continue };
        if spec.type_.as_deref() == Some("ExternalName") {
            if let Some(target) = &spec.external_name {
                records.add_cname(&name, target);
            }
        } else if let Some(ip) = cluster_ip(service) {
            add_virtual(&mut records, service, &name, ip);
        } else {
            add_headless(&mut records, &name, world.slices_of(service), spec.publish_not_ready_addresses);
        }
    }
    records
}

fn add_virtual(records: &mut Records, service: &Service, name: &str, ip: Ipv4Addr) {
    records.add_name(name, [IpAddr::V4(ip)]);
    records.add_ptr(IpAddr::V4(ip), name);
    for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
        if let (Some(port_name), Ok(number)) = (&port.name, u16::try_from(port.port)) {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
            records.add_srv(&format!("_{port_name}._{protocol}.{name}"), number, name);
        }
    }
}

fn add_headless(
    records: &mut Records,
    name: &str,
    slices: &[std::sync::Arc<EndpointSlice>],
    unready_too: Option<bool>,
) {
    // It exists even while nobody serves it.
    records.add_name(name, []);
    for slice in slices {
        for endpoint in slice.endpoints.iter().flatten() {
            if !conditions(endpoint).0 && unready_too != Some(true) {
                continue;
            }
            for ip in endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
                let host =
                    endpoint.hostname.clone().unwrap_or_else(|| ip.to_string().replace(['.', ':'], "-"));
                let target = format!("{host}.{name}");
                records.add_name(name, [ip]);
                records.add_name(&target, [ip]);
                records.add_ptr(ip, &target);
                for port in slice.ports.iter().flatten() {
                    let port_name = port.name.as_deref().filter(|name| !name.is_empty());
                    let number = port.port.and_then(|port| u16::try_from(port).ok());
                    if let (Some(port_name), Some(number)) = (port_name, number) {
                        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
                        records.add_srv(&format!("_{port_name}._{protocol}.{name}"), number, &target);
                    }
                }
            }
        }
    }
}
