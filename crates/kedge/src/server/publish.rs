//! Ports of load-balanced services on the host's loopback: the node says which there should be, this opens and closes
//! them. A port that something else holds is replaced by a free one, and the service says which.
//!
//! A service keeps its port, also over a restart of the server: which it had stands in its annotation. One that had another
//! service's port replaced gets its own when the server starts and nobody else has it any more, and not while it is reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base::constants::annotations::PUBLISHED_PORTS;
use client::kube::Client;
use client::kube::api::{Api, Patch, PatchParams};
use k8s_openapi::api::core::v1::Service;
use net::forward::PublishedPorts;
use net::namespace::Namespace;
use node::services::{LoadBalancerPort, Publish};
use tokio::sync::watch;

/// What the node is given; the work is done by a task, always on the newest set.
pub fn start(namespace: Namespace, client: Client) -> Publish {
    let (sender, mut receiver) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut published =
            Published { ports: PublishedPorts::new(namespace), client, open: BTreeMap::new() };
        while receiver.changed().await.is_ok() {
            let wanted: Vec<LoadBalancerPort> = receiver.borrow_and_update().clone();
            published.settle(&wanted).await;
        }
    });
    Arc::new(move |ports| drop(sender.send_replace(ports)))
}

/// A service (`namespace/name`) and the number of its port.
type Name = (String, u16);
/// Where it is open on the host, and where it leads.
type Open = BTreeMap<Name, (SocketAddr, SocketAddr)>;

struct Published {
    ports: PublishedPorts,
    client: Client,
    open: Open,
}

impl Published {
    async fn settle(&mut self, wanted: &[LoadBalancerPort]) {
        let mut changed = self.close_stale(wanted);
        for turn in TURNS {
            for port in wanted.iter().filter(|port| !self.open.contains_key(&name(port))).collect::<Vec<_>>()
            {
                for candidate in candidates(port, turn, &held(&self.open)) {
                    if let Some(host) = self.open_port(candidate, port.target).await {
                        self.open.insert(name(port), (host, port.target));
                        break;
                    }
                }
            }
        }
        for port in wanted {
            match self.open.get(&name(port)) {
                Some((host, _)) if port.host_port == Some(host.port()) => {}
                Some(_) => drop(changed.insert(port.service.clone())),
                None => {
                    tracing::warn!(service = port.service, port = port.port, "cannot publish the port");
                    changed.insert(port.service.clone());
                }
            }
        }
        for service in changed {
            self.tell(&service, &told(&service, wanted, &self.open)).await;
        }
    }

    /// Closes what is not wanted any more, or leads elsewhere; the services that nothing is left of.
    fn close_stale(&mut self, wanted: &[LoadBalancerPort]) -> BTreeSet<String> {
        let targets: BTreeMap<Name, SocketAddr> = wanted.iter().map(|p| (name(p), p.target)).collect();
        let is_stale =
            |(name, (_, target)): &(&Name, &(SocketAddr, SocketAddr))| targets.get(*name) != Some(target);
        let stale: Vec<Name> = self.open.iter().filter(is_stale).map(|(name, _)| name.clone()).collect();
        let mut left = BTreeSet::new();
        for name in stale {
            if let Some((host, _)) = self.open.remove(&name) {
                self.ports.remove(host);
            }
            if !wanted.iter().any(|port| port.service == name.0) {
                left.insert(name.0);
            }
        }
        left
    }

    async fn open_port(&self, port: u16, target: SocketAddr) -> Option<SocketAddr> {
        let opened = self.ports.add(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), target).await;
        opened.inspect_err(|error| tracing::info!(%error, port, "the port is taken on the host")).ok()
    }

    /// Writes the host's ports into the service's annotation.
    async fn tell(&self, service: &str, ports: &str) {
        let Some((namespace, name)) = service.split_once('/') else { return };
        let patch = serde_json::json!({"metadata": {"annotations": {PUBLISHED_PORTS: ports}}});
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let told = services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        // One that is gone needs no annotation.
        if let Err(error) = told.map(drop).or_else(|e| if client::is_not_found(&e) { Ok(()) } else { Err(e) })
        {
            tracing::warn!(%error, namespace, name, "cannot say which ports are published");
        }
    }
}

fn name(port: &LoadBalancerPort) -> Name {
    (port.service.clone(), port.port)
}

fn held(open: &Open) -> BTreeSet<u16> {
    open.values().map(|(host, _)| host.port()).collect()
}

/// The ports of a service in the order of its own; 0 stands for one that could not be opened.
fn told(service: &str, wanted: &[LoadBalancerPort], open: &Open) -> String {
    let own = wanted.iter().filter(|port| port.service == service);
    let hosts = own.map(|port| open.get(&name(port)).map_or(0, |(host, _)| host.port()).to_string());
    hosts.collect::<Vec<_>>().join(",")
}

/// Who opens what when; in each turn, who has precedence comes first.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Who had its own port has it again.
    Own,
    /// Who gave way to one of these keeps what it got instead.
    Replaced,
    Rest,
}

const TURNS: [Turn; 3] = [Turn::Own, Turn::Replaced, Turn::Rest];

/// Ports of the host to be tried. Instead of one that is taken: the one of before, the node's (no other service has it, and
/// it is seen in the service), whichever is free.
fn candidates(port: &LoadBalancerPort, turn: Turn, held: &BTreeSet<u16>) -> Vec<u16> {
    let (own, before) = (Some(port.port), port.host_port);
    let tried = match turn {
        Turn::Own => vec![own.filter(|_| before == own)],
        Turn::Replaced => vec![before.filter(|_| held.contains(&port.port))],
        Turn::Rest => vec![own, before, port.node_port, Some(0)],
    };
    tried.into_iter().flatten().filter(|port| !held.contains(port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(service: &str, port: u16, host_port: Option<u16>) -> LoadBalancerPort {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        LoadBalancerPort {
            service: service.into(),
            port,
            target,
            host_port,
            node_port: Some(30_000 + port % 1000),
        }
    }

    /// What each would have on a host where some ports are taken by others.
    fn check(wanted: &[LoadBalancerPort], taken: &[u16], hosts: &[u16]) {
        let mut open = Open::new();
        for turn in TURNS {
            for port in wanted {
                let tried = candidates(port, turn, &held(&open)).into_iter().find(|p| !taken.contains(p));
                if let (Some(host), false) = (tried, open.contains_key(&name(port))) {
                    open.insert(name(port), (SocketAddr::from((Ipv4Addr::LOCALHOST, host)), port.target));
                }
            }
        }
        let found: Vec<u16> =
            wanted.iter().map(|port| open.get(&name(port)).map_or(0, |o| o.0.port())).collect();
        assert_eq!(found, hosts, "{wanted:?}");
    }

    #[test]
    fn a_service_keeps_its_port_and_takes_nobody_elses() {
        let (a, b) = ("shop/a", "shop/b");
        check(&[port(a, 8080, None), port(b, 8080, None)], &[], &[8080, 30_080]);
        // Another server, the same ports, whoever comes first.
        check(&[port(a, 8080, Some(8080)), port(b, 8080, Some(30_080))], &[], &[8080, 30_080]);
        check(&[port(b, 8080, Some(30_080)), port(a, 8080, Some(8080))], &[], &[30_080, 8080]);
        // Both say that they had it.
        check(&[port(a, 8080, Some(8080)), port(b, 8080, Some(8080))], &[], &[8080, 30_080]);
        // What one got instead is no other's by being its own.
        let third = port("shop/c", 30_080, None);
        let wanted = [third.clone(), port(a, 8080, Some(8080)), port(b, 8080, Some(30_080))];
        check(&wanted, &[], &[0, 8080, 30_080]);
        // Something else on the host has it, and then not any more.
        check(&[port(a, 8080, Some(30_080))], &[8080], &[30_080]);
        check(&[port(a, 8080, Some(30_080))], &[], &[8080]);
        check(&[port(a, 8080, None)], &[8080, 30_080], &[0]);
    }

    #[test]
    fn all_ports_of_a_service_are_told_in_their_order() {
        let wanted = [port("shop/a", 90, None), port("shop/b", 70, None), port("shop/a", 80, None)];
        let host = |port: u16| (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), wanted[0].target);
        let open = Open::from([(name(&wanted[2]), host(8080)), (name(&wanted[1]), host(70))]);
        assert_eq!(told("shop/a", &wanted, &open), "0,8080");
        assert_eq!(told("shop/gone", &wanted, &open), "");
    }
}
