//! EndpointSlices of `Endpoints` that people write themselves: for Services without a selector, whose addresses nobody
//! else knows. Whoever reads slices only then sees them too.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::constants::labels;
use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::{Context, is_namespace_terminating};
use crate::endpoints::{self, Plan};
use crate::expectations::Expectations;
use crate::{meta, pod};

const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Set on objects that elect leaders, which are no endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// What is about the old object alone.
const NOT_MIRRORED: &[&str] =
    &["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
const MAX_PER_SUBSET: usize = 1000;

pub fn start(context: &Context) -> Vec<Controller> {
    let endpoints = context.caches.of::<Endpoints>();
    let services = context.caches.of::<Service>();
    let slices = context.caches.of::<EndpointSlice>();
    let reconciler = Mirrors {
        expectations: Expectations::follow(&slices),
        endpoints: Arc::clone(&endpoints),
        services: Arc::clone(&services),
        slices: Arc::clone(&slices),
        context: context.clone(),
    };
    let controller = Controller::new("endpointslicemirroring", reconciler)
        .owns_kind(&endpoints)
        .watches(&services, |change| vec![Key::of(&**change.object())])
        .watches_owned(&slices, "Endpoints");
    vec![controller]
}

struct Mirrors {
    context: Context,
    endpoints: Arc<Cache<Endpoints>>,
    services: Arc<Cache<Service>>,
    slices: Arc<Cache<EndpointSlice>>,
    expectations: Arc<Expectations>,
}

impl Reconciler for Mirrors {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            // Their slices go with them: they own them.
            let Some(given) = self.endpoints.get(&key) else { return Ok(Next::OnChange) };
            let owner = meta::uid(&given.metadata);
            if let Some(wait) = self.expectations.pending(owner) {
                return Ok(Next::After(wait));
            }
            let service = self.services.get(&key);
            let existing: Vec<_> =
                self.slices.owned_by(&key.namespace, owner).into_iter().filter(|s| is_ours(s)).collect();
            let plan = plan(&given, service.as_deref(), &existing);
            let owner = (key.namespace.as_str(), owner);
            match endpoints::write(&self.context, &self.expectations, owner, &plan).await {
                Err(error) if is_namespace_terminating(&error) => Ok(Next::OnChange),
                done => done.map(|()| Next::OnChange).map_err(Into::into),
            }
        })
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    let managed = meta::labels(&slice.metadata).get(labels::ENDPOINTSLICE_MANAGED_BY);
    managed.map(String::as_str) == Some(MANAGED_BY) && !meta::is_deleting(&slice.metadata)
}

/// One slice for each subset and family of addresses; one that has the ports already is written over.
fn plan(endpoints: &Endpoints, service: Option<&Service>, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<Arc<EndpointSlice>> = existing.to_vec();
    left.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for wanted in wanted(endpoints, service) {
        let at = left.iter().position(|s| s.address_type == wanted.address_type && s.ports == wanted.ports);
        let Some(at) = at else {
            plan.create.push(wanted);
            continue;
        };
        let held = left.remove(at);
        let same = held.endpoints == wanted.endpoints
            && held.metadata.labels == wanted.metadata.labels
            && held.metadata.annotations.clone().unwrap_or_default()
                == wanted.metadata.annotations.clone().unwrap_or_default();
        if !same {
            let mut replaced = (*held).clone();
            replaced.endpoints = wanted.endpoints;
            replaced.metadata.labels = wanted.metadata.labels;
            replaced.metadata.annotations = wanted.metadata.annotations;
            plan.replace.push(replaced);
        }
    }
    plan.delete = left;
    plan
}

fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let selects =
        |s: &Service| s.spec.as_ref().is_some_and(|s| s.selector.as_ref().is_some_and(|s| !s.is_empty()));
    let annotations = endpoints.metadata.annotations.as_ref();
    service.is_some_and(|s| !selects(s))
        && !meta::is_deleting(&endpoints.metadata)
        && meta::labels(&endpoints.metadata).get(SKIP).map(String::as_str) != Some("true")
        && !annotations.is_some_and(|a| a.contains_key(LEADER))
}

fn wanted(endpoints: &Endpoints, service: Option<&Service>) -> Vec<EndpointSlice> {
    if !is_mirrored(endpoints, service) {
        return Vec::new();
    }
    // Subsets with the same ports are one.
    let mut slices: Vec<EndpointSlice> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let mut by_family: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
        for (address, ready) in addresses(subset).take(MAX_PER_SUBSET) {
            let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            by_family.entry(family).or_default().push(endpoint(address, ready));
        }
        let ports = ports(subset);
        for (family, found) in by_family {
            let same =
                slices.iter_mut().find(|s| s.address_type == family && s.ports.as_ref() == Some(&ports));
            match same {
                Some(slice) => slice.endpoints.get_or_insert_default().extend(found),
                None => slices.push(slice(endpoints, family, ports.clone(), found)),
            }
        }
    }
    slices
}

fn addresses(subset: &EndpointSubset) -> impl Iterator<Item = (&EndpointAddress, bool)> {
    let ready = subset.addresses.iter().flatten().map(|a| (a, true));
    ready.chain(subset.not_ready_addresses.iter().flatten().map(|a| (a, false)))
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let one = |port: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    };
    subset.ports.iter().flatten().map(one).collect()
}

fn slice(
    endpoints: &Endpoints,
    family: &str,
    ports: Vec<EndpointPort>,
    found: Vec<Endpoint>,
) -> EndpointSlice {
    let mut all = meta::labels(&endpoints.metadata).clone();
    all.remove(SKIP);
    all.insert(labels::SERVICE_NAME.into(), meta::name(&endpoints.metadata).into());
    all.insert(labels::ENDPOINTSLICE_MANAGED_BY.into(), MANAGED_BY.into());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_MIRRORED.contains(&key.as_str()));
    EndpointSlice {
        address_type: family.to_owned(),
        endpoints: Some(found),
        ports: Some(ports),
        metadata: ObjectMeta {
            generate_name: Some(pod::generate_name(meta::name(&endpoints.metadata))),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(all),
            annotations: Some(annotations).filter(|a| !a.is_empty()),
            owner_references: Some(vec![meta::controller_ref(endpoints)]),
            ..Default::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoints(more: Value) -> Endpoints {
        let object = json!({"metadata": {"name": "db", "namespace": "ns", "uid": "u",
            "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"name": "sql", "port": 5432}]}]});
        serde_json::from_value(api::patch::merge(&object, &more)).expect("endpoints")
    }

    fn service(selector: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "db"}, "spec": {"selector": selector}}))
            .expect("a service")
    }

    fn told(plan: &Plan) -> (usize, usize, usize) {
        (plan.create.len(), plan.replace.len(), plan.delete.len())
    }

    #[test]
    fn each_family_of_a_subset_becomes_a_slice() {
        let made = plan(&endpoints(json!({})), Some(&service(Value::Null)), &[]).create;
        let shown: Vec<_> =
            made.iter().map(|s| (s.address_type.as_str(), s.endpoints.iter().flatten().count())).collect();
        assert_eq!(shown, [("IPv4", 2), ("IPv6", 1)]);
        let slice = serde_json::to_value(&made[0]).expect("JSON");
        assert_eq!(slice["endpoints"][1], json!({"addresses": ["10.0.0.2"], "conditions": {"ready": false}}));
        assert_eq!(slice["ports"], json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]));
        assert_eq!(slice["metadata"]["annotations"], json!({"a": "b"}));
        assert_eq!(slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], MANAGED_BY);
        assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
    }

    #[test]
    fn what_has_a_maker_of_its_own_is_not_mirrored() {
        let plain = endpoints(json!({}));
        let count = |e: &Endpoints, s: Option<&Service>| plan(e, s, &[]).create.len();
        assert_eq!(count(&plain, None), 0);
        assert_eq!(count(&plain, Some(&service(json!({"app": "db"})))), 0);
        let skipped = endpoints(json!({"metadata": {"labels": {SKIP: "true"}}}));
        assert_eq!(count(&skipped, Some(&service(Value::Null))), 0);
        let leader = endpoints(json!({"metadata": {"annotations": {LEADER: "{}"}}}));
        assert_eq!(count(&leader, Some(&service(Value::Null))), 0);
    }

    #[test]
    fn slices_follow_their_endpoints() {
        let before = endpoints(json!({}));
        let service = service(Value::Null);
        let held: Vec<_> = plan(&before, Some(&service), &[]).create.into_iter().map(Arc::new).collect();
        assert_eq!(told(&plan(&before, Some(&service), &held)), (0, 0, 0));
        let moved = endpoints(
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"name": "sql", "port": 5432}]}]}),
        );
        assert_eq!(told(&plan(&moved, Some(&service), &held)), (0, 1, 1));
        let other = endpoints(
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"name": "sql", "port": 5433}]}]}),
        );
        assert_eq!(told(&plan(&other, Some(&service), &held)), (1, 0, 2));
        assert_eq!(told(&plan(&endpoints(json!({"subsets": null})), Some(&service), &held)), (0, 0, 2));
        assert_eq!(told(&plan(&before, None, &held)), (0, 0, 2));
    }
}
