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
        for port in [port, 0] {
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
        if let Err(error) = services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            tracing::warn!(%error, namespace, name, "cannot say which ports are published");
        }
    }
}
