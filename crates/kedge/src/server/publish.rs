//! Ports of load-balanced services on the host's loopback: the node says which there should be, this opens and closes
//! them. A port that something else holds is replaced by a free one, and the service says which.

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
            published.settle(wanted).await;
        }
    });
    Arc::new(move |ports| drop(sender.send_replace(ports)))
}

/// A service (`namespace/name`) and the number of its port.
type Name = (String, u16);

struct Published {
    ports: PublishedPorts,
    client: Client,
    /// What is open: where on the host, and where it leads.
    open: BTreeMap<Name, (SocketAddr, SocketAddr)>,
}

impl Published {
    async fn settle(&mut self, wanted: Vec<LoadBalancerPort>) {
        let order: Vec<Name> = wanted.iter().map(|p| (p.service.clone(), p.port)).collect();
        let wanted: BTreeMap<Name, SocketAddr> =
            wanted.into_iter().map(|p| ((p.service, p.port), p.target)).collect();
        let stale: Vec<Name> = self
            .open
            .iter()
            .filter(|(name, (_, target))| wanted.get(*name) != Some(target))
            .map(|(n, _)| n.clone())
            .collect();
        let mut changed = BTreeSet::new();
        for name in stale {
            if let Some((host, _)) = self.open.remove(&name) {
                self.ports.remove(host);
                changed.insert(name.0.clone());
            }
        }
        for (name, target) in &wanted {
            if self.open.contains_key(name) {
                continue;
            }
            match self.open_port(name.1, *target).await {
                Some(host) => {
                    self.open.insert(name.clone(), (host, *target));
                    changed.insert(name.0.clone());
                }
                None => tracing::warn!(service = name.0, port = name.1, "cannot publish the port"),
            }
        }
        for service in changed {
            let ports = order.iter().filter(|(of, _)| *of == service).filter_map(|name| self.open.get(name));
            let ports: Vec<String> = ports.map(|(host, _)| host.port().to_string()).collect();
            self.tell(&service, &ports.join(",")).await;
        }
    }

    /// The service's own port, or a free one.
    async fn open_port(&self, port: u16, target: SocketAddr) -> Option<SocketAddr> {
        for port in candidates(port, &self.open) {
            match self.ports.add(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), target).await {
                Ok(host) => return Some(host),
                Err(error) => {
                    tracing::info!(%error, port, "the port is taken on the host; looking for a free one")
                }
            }
        }
        None
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

/// Ports of the host to be tried: its own unless another service has it, then whichever is free.
fn candidates(
    port: u16,
    open: &BTreeMap<Name, (SocketAddr, SocketAddr)>,
) -> impl Iterator<Item = u16> + use<> {
    let is_held = open.values().any(|(host, _)| host.port() == port);
    (!is_held).then_some(port).into_iter().chain([0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_service_takes_the_port_of_another() {
        let host = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut open = BTreeMap::new();
        assert_eq!(candidates(8080, &open).collect::<Vec<_>>(), [8080, 0]);
        open.insert(("shop/web".to_owned(), 8080), (host(8080), host(1)));
        assert_eq!(candidates(8080, &open).collect::<Vec<_>>(), [0]);
        assert_eq!(candidates(9090, &open).collect::<Vec<_>>(), [9090, 0]);
    }
}
