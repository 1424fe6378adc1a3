//! Load-balanced services: where each is reached. One address and port of the node serve one service. A service keeps what
//! it was told; where two want the same, the older one has it, and the other is reached at the address that is its own in any
//! case, its cluster IP, so that what the cluster shows as a service's address leads to that service and to no other. (Where
//! the original has one load balancer on one machine, the younger service waits for ever.) Pure.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base::constants::annotations::PUBLISHED_PORTS;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::ResourceExt;
use net::rules::Protocol;

use super::translate::{cluster_ip, protocol};
use super::{LoadBalancerPort, World};

/// Load-balanced by us: no other implementation is asked for.
pub fn is_balanced(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer") && s.load_balancer_class.is_none())
}

/// The addresses that a service's status tells.
pub fn ingress(service: &Service) -> impl Iterator<Item = Ipv4Addr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
}

/// Those that are load-balanced, by precedence: who was told the node's address before, then the older, then by uid.
fn by_precedence(services: &[Arc<Service>], node: Ipv4Addr) -> Vec<&Arc<Service>> {
    let mut balanced: Vec<&Arc<Service>> = services.iter().filter(|service| is_balanced(service)).collect();
    balanced.sort_by_cached_key(|service| {
        let is_new = !ingress(service).any(|address| address == node);
        let created = service.creation_timestamp().map(|time| time.0);
        (is_new, created, service.uid(), service.namespace(), service.name_any())
    });
    balanced
}

/// Services that have all their ports at the node's address, as `(namespace, name)`.
pub fn holders(services: &[Arc<Service>], node: Ipv4Addr) -> BTreeSet<(String, String)> {
    let mut taken = BTreeSet::new();
    let mut holders = BTreeSet::new();
    for service in by_precedence(services, node) {
        let spec = service.spec.as_ref();
        let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
        let wanted: Vec<(String, i32)> =
            ports.map(|port| (port.protocol.clone().unwrap_or_else(|| "TCP".into()), port.port)).collect();
        if !wanted.iter().any(|port| taken.contains(port)) {
            taken.extend(wanted);
            holders.insert((service.namespace().unwrap_or_default(), service.name_any()));
        }
    }
    holders
}

/// Whom to tell another address than it has been told, and which. One that somebody else has told stays.
pub fn announcements(
    services: &[Arc<Service>],
    node: Ipv4Addr,
    published: bool,
) -> Vec<(&Arc<Service>, Ipv4Addr)> {
    let holders = holders(services, node);
    let mut all = Vec::new();
    for service in services.iter().filter(|service| is_balanced(service)) {
        let Some(own) = cluster_ip(service) else { continue };
        let holds = holders.contains(&(service.namespace().unwrap_or_default(), service.name_any()));
        let wanted = if holds { node } else { own };
        let told: Vec<Ipv4Addr> = ingress(service).collect();
        let is_told = service
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref())
            .is_some_and(|ingress| !ingress.is_empty());
        let is_due = match told.as_slice() {
            [] => !is_told && (!published || is_published(service)),
            [one] => *one != wanted && (*one == node || *one == own),
            _ => false,
        };
        if is_due {
            all.push((service, wanted));
        }
    }
    all
}

fn tcp_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    ports.filter(|port| protocol(port.protocol.as_deref()) == Some(Protocol::Tcp))
}

/// The ports of the host, in the order of the service's own.
fn host_ports(service: &Service) -> Vec<Option<u16>> {
    let text = service.annotations().get(PUBLISHED_PORTS).map(String::as_str).unwrap_or_default();
    text.split(',').map(|port| port.trim().parse().ok().filter(|port| *port > 0)).collect()
}

fn is_published(service: &Service) -> bool {
    let text = service.annotations().get(PUBLISHED_PORTS).map(String::as_str).unwrap_or_default();
    let told = text.split(',').filter(|port| !port.is_empty()).count();
    told >= tcp_ports(service).count()
}

/// The TCP ports of load-balanced services, by precedence.
pub fn published(world: &World<'_>) -> Vec<LoadBalancerPort> {
    let mut all = Vec::new();
    for service in by_precedence(world.services, world.node_address) {
        let Some(address) = cluster_ip(service) else { continue };
        let before = host_ports(service);
        let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
        for (index, port) in tcp_ports(service).enumerate() {
            let Some(own) = number(port.port) else { continue };
            all.push(LoadBalancerPort {
                service: format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any()),
                port: own,
                target: SocketAddr::from((address, own)),
                host_port: before.get(index).copied().flatten(),
                node_port: port.node_port.and_then(number),
            });
        }
    }
    all
}
