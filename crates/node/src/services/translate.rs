//! From services and endpoint slices to frontends. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use net::rules::{Backend, Frontend, Protocol};

use super::World;
use super::balanced::{self, is_balanced};

const AFFINITY_SECONDS_DEFAULT: u64 = 10_800;

pub fn frontends(world: &World<'_>) -> Vec<Frontend> {
    let holders = balanced::holders(world.services, world.node_address);
    let mut all: Vec<Frontend> =
        // The address of DNS is the node's own: it is answered here, not translated.
        world.services.iter().filter(|s| cluster_ip(s) != Some(world.dns_address)).flat_map(|service| of_service(world, service, &holders)).collect();
    all.extend(host_ports(world));
    all
}

/// The virtual address of a service that has one.
pub fn cluster_ip(service: &Service) -> Option<Ipv4Addr> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.cluster_ip.as_deref()?.parse().ok()
}

fn of_service(world: &World<'_>, service: &Service, holders: &BTreeSet<(String, String)>) -> Vec<Frontend> {
    let (Some(spec), Some(address)) = (&service.spec, cluster_ip(service)) else { return Vec::new() };
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        let seconds = config.and_then(|c| c.timeout_seconds).and_then(|s| u64::try_from(s).ok());
        Duration::from_secs(seconds.unwrap_or(AFFINITY_SECONDS_DEFAULT))
    });
    let mut external: Vec<Ipv4Addr> =
        spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
    if is_balanced(service) {
        let holds = holders.contains(&(service.namespace().unwrap_or_default(), service.name_any()));
        external.extend(holds.then_some(world.node_address));
        // Its status may still tell an address that another has by now; its own is served already.
        let is_of_others = |told: &Ipv4Addr| *told == address || (*told == world.node_address && !holds);
        external.extend(balanced::ingress(service).filter(|told| !is_of_others(told)));
    }
    external.sort();
    external.dedup();
    let ports = spec.ports.iter().flatten();
    let frontend = |port: &ServicePort| {
        Some(Frontend {
            address: Some(address),
            port: u16::try_from(port.port).ok()?,
            protocol: protocol(port.protocol.as_deref())?,
            node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0),
            external_addresses: external.clone(),
            affinity,
            internal_local: local(&spec.internal_traffic_policy),
            external_local: local(&spec.external_traffic_policy),
            backends: backends(world, world.slices_of(service), port),
        })
    };
    ports.filter_map(frontend).collect()
}

pub fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// Ready ones. If there is none, those that end but still serve: better than refusing.
fn backends(world: &World<'_>, slices: &[std::sync::Arc<EndpointSlice>], port: &ServicePort) -> Vec<Backend> {
    let (mut ready, mut ending) = (Vec::new(), Vec::new());
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let Some(number) = slice_port(slice, port.name.as_deref()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let (is_ready, is_serving, is_terminating) = conditions(endpoint);
            let local = endpoint.node_name.as_deref() == Some(world.node_name);
            let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
            let all = addresses.map(|address| Backend { address, port: number, local });
            if is_ready {
                ready.extend(all);
            } else if is_serving && is_terminating {
                ending.extend(all);
            }
        }
    }
    if ready.is_empty() { ending } else { ready }
}

/// Ready, serving, terminating; what is not said is the harmless case.
pub fn conditions(endpoint: &Endpoint) -> (bool, bool, bool) {
    let said = endpoint.conditions.as_ref();
    let ready = said.and_then(|c| c.ready).unwrap_or(true);
    (ready, said.and_then(|c| c.serving).unwrap_or(ready), said.and_then(|c| c.terminating).unwrap_or(false))
}

fn slice_port(slice: &EndpointSlice, name: Option<&str>) -> Option<u16> {
    let name = name.unwrap_or_default();
    let port = slice.ports.iter().flatten().find(|port| port.name.as_deref().unwrap_or_default() == name)?;
    u16::try_from(port.port?).ok()
}

/// Ports of the node that lead to its own pods.
fn host_ports(world: &World<'_>) -> Vec<Frontend> {
    let mut all = Vec::new();
    for (pod, ip) in &world.pods {
        let Some(spec) = &pod.spec else { continue };
        let over = pod
            .status
            .as_ref()
            .and_then(|s| s.phase.as_deref())
            .is_some_and(|p| p == "Succeeded" || p == "Failed");
        if spec.host_network == Some(true) || over {
            continue;
        }
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        for port in containers.flat_map(|container| container.ports.iter().flatten()) {
            let host_port = port.host_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
            let (Some(host_port), Some(protocol)) = (host_port, protocol(port.protocol.as_deref())) else {
                continue;
            };
            let chosen = port.host_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
            let address = chosen.filter(|ip| !ip.is_unspecified()).unwrap_or(world.node_address);
            let Ok(target) = u16::try_from(port.container_port) else { continue };
            let backends = vec![Backend { address: *ip, port: target, local: true }];
            all.push(Frontend { backends, ..Frontend::new(address, host_port, protocol) });
        }
    }
    all
}
