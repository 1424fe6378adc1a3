//! Services on this node: translated (pure) into address translation and names, and performed whenever something changed.

mod balanced;
mod names;
mod translate;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use net::dns::Publisher;
use net::rules::{Rules, RulesError};
use serde_json::json;

use crate::cluster::Cache;
use crate::pods::Context;

/// Changes come in bursts (a rollout, a first list); what comes within this time is one transaction.
const BURST: Duration = Duration::from_millis(15);
const RETRY: Duration = Duration::from_secs(2);

/// One port of a load-balanced service, to be reachable from outside of the node's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerPort {
    /// `namespace/name`
    pub service: String,
    pub port: u16,
    /// Where it is served inside the node's namespace.
    pub target: SocketAddr,
    /// The port of the host that it had the last time, as its annotation tells.
    pub host_port: Option<u16>,
    pub node_port: Option<u16>,
}

/// Is told the whole set whenever it changes: where two want one port, whose it is comes first.
pub type Publish = Arc<dyn Fn(Vec<LoadBalancerPort>) + Send + Sync>;

/// What a translation is made from.
pub(crate) struct World<'a> {
    pub services: &'a [Arc<Service>],
    /// Of each service, by `(namespace, name)`.
    pub slices: BTreeMap<(String, String), Vec<Arc<EndpointSlice>>>,
    /// The pods of this node with their addresses.
    pub pods: Vec<(Arc<Pod>, Ipv4Addr)>,
    pub node_name: &'a str,
    pub node_address: Ipv4Addr,
    pub dns_address: Ipv4Addr,
    pub domain: &'a str,
}

impl<'a> World<'a> {
    fn new(services: &'a [Arc<Service>], slices: Vec<Arc<EndpointSlice>>, context: &'a Context) -> Self {
        let mut by_service: BTreeMap<(String, String), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in slices {
            let label = slice.labels().get(base::constants::labels::SERVICE_NAME).cloned();
            if let Some(name) = label {
                by_service.entry((slice.namespace().unwrap_or_default(), name)).or_default().push(slice);
            }
        }
        let pods =
            context.directory.list().into_iter().filter_map(|entry| Some((entry.pod.clone(), entry.pod_ip?)));
        Self {
            services,
            slices: by_service,
            pods: pods.collect(),
            node_name: &context.config.name,
            node_address: context.config.address,
            dns_address: context.config.dns_address,
            domain: &context.config.cluster_domain,
        }
    }

    fn slices_of(&self, service: &Service) -> &[Arc<EndpointSlice>] {
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        self.slices.get(&key).map(Vec::as_slice).unwrap_or_default()
    }
}

pub(crate) struct Parts {
    pub slices: Cache<EndpointSlice>,
    pub rules: Rules,
    pub names: Publisher,
    pub publish: Option<Publish>,
}

/// Keeps rules, names and published ports in step for as long as it is polled.
pub(crate) async fn run(context: Arc<Context>, parts: Parts) {
    let Parts { slices, mut rules, names, publish } = parts;
    let (mut services_changed, mut slices_changed) = (context.services.changes(), slices.changes());
    let mut pods_changed = context.directory.changes();
    // Before both lists are complete, rules of an earlier run serve better than half of new ones.
    for changes in [&mut services_changed, &mut slices_changed] {
        if changes.wait_for(|changes| *changes > 0).await.is_err() {
            return;
        }
    }
    let mut published = Vec::new();
    loop {
        services_changed.mark_unchanged();
        slices_changed.mark_unchanged();
        pods_changed.mark_unchanged();
        let services = context.services.list();
        let world = World::new(&services, slices.list(), &context);
        let frontends = translate::frontends(&world);
        names.publish(names::records(&world));
        if let Some(publish) = &publish {
            let wanted = balanced::published(&world);
            if wanted != published {
                publish(wanted.clone());
                published = wanted;
            }
        }
        let applied;
        (rules, applied) = apply(rules, frontends).await;
        if let Err(error) = &applied {
            tracing::error!(%error, "apply service rules");
        }
        announce(&context, &services, publish.is_some()).await;
        tokio::select! {
            Ok(()) = services_changed.changed() => {}
            Ok(()) = slices_changed.changed() => {}
            Ok(()) = pods_changed.changed() => {}
            () = tokio::time::sleep(RETRY), if applied.is_err() => {}
        }
        tokio::time::sleep(BURST).await;
    }
}

/// The kernel may take a while over many rules, so a worker thread is not held up.
async fn apply(rules: Rules, frontends: Vec<net::rules::Frontend>) -> (Rules, Result<(), RulesError>) {
    let applied = tokio::task::spawn_blocking(move || {
        let mut rules = rules;
        let applied = rules.apply(&frontends);
        (rules, applied)
    });
    applied.await.expect("applying rules does not panic")
}

/// A load-balanced service is told the address it is reached at; not before the host's ports are known, so that who waits
/// for the address finds them.
async fn announce(context: &Context, services: &[Arc<Service>], published: bool) {
    for (service, address) in balanced::announcements(services, context.config.address, published) {
        let api: Api<Service> =
            Api::namespaced(context.proxy.clone(), &service.namespace().unwrap_or_default());
        let ingress = json!([{"ip": address, "ipMode": "VIP"}]);
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
        if let Err(error) = api.patch_status(&service.name_any(), &PatchParams::default(), &patch).await {
            tracing::warn!(%error, service = %service.name_any(), "announce a load balancer");
        }
    }
}

#[cfg(test)]
mod tests;
