//! From a Service and the pods it selects: the endpoints, the slices that hold them, and the `Endpoints` object for
//! clients that read no slices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::constants::labels;
use base::id::fnv1a_32;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as OldPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
    ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{meta, pod};

pub const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const MAX_ENDPOINTS: usize = 100;
/// An `Endpoints` object holds no more addresses than this.
const MAX_OLD_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub replace: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// Ports as one pod resolves them; pods that resolve named ports differently need slices of their own.
type Ports = Vec<ResolvedPort>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ResolvedPort {
    name: String,
    protocol: String,
    port: i32,
    app_protocol: Option<String>,
}

pub fn is_selecting(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() != Some("ExternalName") && spec.selector.as_ref().is_some_and(|s| !s.is_empty())
}

/// Slices of a service: existing ones are kept and filled up before new ones are made, so that a change of one pod
/// writes one slice.
pub fn slices(service: &Service, pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut unused: Vec<Arc<EndpointSlice>> = Vec::new();
    let families = families(service);
    unused.extend(existing.iter().filter(|s| !families.contains(&s.address_type)).cloned());
    for family in families {
        let groups = group(service, pods, &family);
        let mut left: Vec<Arc<EndpointSlice>> =
            existing.iter().filter(|s| s.address_type == family).cloned().collect();
        left.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        for (ports, endpoints) in groups {
            let ports = slice_ports(&ports);
            let (mine, rest) =
                left.into_iter().partition(|slice| slice.ports.clone().unwrap_or_default() == ports);
            left = rest;
            fill(service, &family, ports, endpoints, mine, &mut plan, &mut unused);
        }
        unused.extend(left);
    }
    plan.delete.extend(unused);
    plan
}

fn fill(
    service: &Service,
    family: &str,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    existing: Vec<Arc<EndpointSlice>>,
    plan: &mut Plan,
    unused: &mut Vec<Arc<EndpointSlice>>,
) {
    let identity = |endpoint: &Endpoint| {
        (endpoint.target_ref.as_ref().and_then(|t| t.uid.clone()), endpoint.addresses.clone())
    };
    let mut wanted: BTreeMap<_, Endpoint> = endpoints.into_iter().map(|e| (identity(&e), e)).collect();
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in existing {
        let stay = slice.endpoints.iter().flatten().filter_map(|e| wanted.remove(&identity(e)));
        let stay = stay.collect();
        kept.push((slice, stay));
    }
    let mut new: Vec<Endpoint> = wanted.into_values().collect();
    kept.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, endpoints) in &mut kept {
        let room = MAX_ENDPOINTS.saturating_sub(endpoints.len()).min(new.len());
        endpoints.extend(new.drain(..room));
    }
    // A service without pods keeps one empty slice, which says that it is known and has none.
    let mut any = kept.iter().any(|(_, e)| !e.is_empty()) || !new.is_empty();
    for (slice, endpoints) in kept {
        if endpoints.is_empty() && any {
            unused.push(slice);
            continue;
        }
        any = true;
        let mut wanted = (*slice).clone();
        wanted.endpoints = Some(endpoints);
        wanted.metadata.labels = Some(slice_labels(service));
        if wanted.endpoints.clone().unwrap_or_default() != slice.endpoints.clone().unwrap_or_default()
            || wanted.metadata.labels != slice.metadata.labels
        {
            plan.replace.push(wanted);
        }
    }
    while !new.is_empty() || !any {
        any = true;
        let chunk: Vec<Endpoint> = new.drain(..new.len().min(MAX_ENDPOINTS)).collect();
        plan.create.push(EndpointSlice {
            address_type: family.to_owned(),
            endpoints: Some(chunk),
            ports: Some(ports.clone()),
            metadata: ObjectMeta {
                generate_name: Some(pod::generate_name(meta::name(&service.metadata))),
                namespace: service.metadata.namespace.clone(),
                labels: Some(slice_labels(service)),
                owner_references: Some(vec![meta::controller_ref(service)]),
                ..Default::default()
            },
        });
    }
}

fn families(service: &Service) -> Vec<String> {
    let given = service.spec.as_ref().and_then(|s| s.ip_families.clone()).filter(|f| !f.is_empty());
    given.unwrap_or_else(|| vec!["IPv4".into()])
}

fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut all = meta::labels(&service.metadata).clone();
    all.insert(labels::SERVICE_NAME.into(), meta::name(&service.metadata).into());
    all.insert(labels::ENDPOINTSLICE_MANAGED_BY.into(), MANAGED_BY.into());
    match is_headless(service) {
        true => all.insert(HEADLESS.into(), String::new()),
        false => all.remove(HEADLESS),
    };
    all
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.cluster_ip.as_deref() == Some("None"))
}

/// Endpoints by the ports they resolve. With no pod at all, one group without endpoints.
fn group(service: &Service, pods: &[Arc<Pod>], family: &str) -> BTreeMap<Ports, Vec<Endpoint>> {
    let mut groups: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods {
        let Some(endpoint) = endpoint(service, pod, family) else { continue };
        let ports = resolve_ports(service, pod);
        if ports.is_empty() && !is_headless(service) {
            continue;
        }
        groups.entry(ports).or_default().push(endpoint);
    }
    if groups.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    groups
}

fn endpoint(service: &Service, pod: &Pod, family: &str) -> Option<Endpoint> {
    if pod::has_ended(pod) {
        return None;
    }
    let address = address(pod, family)?;
    let publish = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true);
    let (serving, terminating) = (pod::is_ready(pod), meta::is_deleting(&pod.metadata));
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: pod::node_name(pod).map(str::to_owned),
        target_ref: Some(target(pod)),
        ..Default::default()
    })
}

fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone());
    let mut all = listed.chain(status.pod_ip.clone()).filter(|ip| !ip.is_empty());
    all.find(|ip| ip.contains(':') == (family == "IPv6"))
}

/// A pod's own name in DNS, if it asks for one below this very service.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let below = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname
        .clone()
        .filter(|h| !h.is_empty() && below && pod.metadata.namespace == service.metadata.namespace)
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

fn resolve_ports(service: &Service, pod: &Pod) -> Ports {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let mut resolved: Ports = ports
        .filter_map(|port| {
            Some(ResolvedPort {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port).to_owned(),
                port: target_port(port, pod)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    resolved.sort();
    resolved
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    // Sidecars (init containers that go on running) may serve too.
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let found = ports.find(|p| {
        p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol(port)
    });
    found.map(|p| p.container_port)
}

fn slice_ports(ports: &Ports) -> Vec<EndpointPort> {
    let one = |port: &ResolvedPort| EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(one).collect()
}

/// The `Endpoints` object that says the same for the first family, for clients that read no slices.
pub fn mirror(service: &Service, pods: &[Arc<Pod>]) -> Endpoints {
    let family = families(service).remove(0);
    let mut subsets = Vec::new();
    let mut room = MAX_OLD_ADDRESSES;
    let mut over = false;
    for (ports, endpoints) in group(service, pods, &family) {
        let mut ready = BTreeSet::new();
        let mut not_ready = BTreeSet::new();
        let mut by_ip = BTreeMap::new();
        for endpoint in endpoints {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            if conditions.terminating == Some(true) && conditions.ready != Some(true) {
                continue;
            }
            if room == 0 {
                over = true;
                break;
            }
            room -= 1;
            let ip = endpoint.addresses.first().cloned().unwrap_or_default();
            match conditions.ready {
                Some(true) => ready.insert(ip.clone()),
                _ => not_ready.insert(ip.clone()),
            };
            let (hostname, node_name, target_ref) =
                (endpoint.hostname, endpoint.node_name, endpoint.target_ref);
            by_ip.insert(ip.clone(), EndpointAddress { ip, hostname, node_name, target_ref });
        }
        let pick = |ips: BTreeSet<String>| -> Option<Vec<EndpointAddress>> {
            let list: Vec<_> = ips.iter().filter_map(|ip| by_ip.get(ip).cloned()).collect();
            (!list.is_empty()).then_some(list)
        };
        let (addresses, not_ready_addresses) = (pick(ready), pick(not_ready));
        if addresses.is_some() || not_ready_addresses.is_some() {
            subsets.push(EndpointSubset {
                addresses,
                not_ready_addresses,
                ports: Some(old_ports(&ports)).filter(|p| !p.is_empty()),
            });
        }
    }
    let mut all_labels = meta::labels(&service.metadata).clone();
    all_labels.insert("endpoints.kubernetes.io/managed-by".into(), "endpoint-controller".into());
    if is_headless(service) {
        all_labels.insert(HEADLESS.into(), String::new());
    }
    // Slices exist already: nobody must make them from this object a second time.
    all_labels.insert(SKIP_MIRROR.into(), "true".into());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(all_labels),
            annotations: over.then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into()),
            ..Default::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

fn old_ports(ports: &Ports) -> Vec<OldPort> {
    let one = |port: &ResolvedPort| OldPort {
        name: Some(port.name.clone()).filter(|n| !n.is_empty()),
        protocol: Some(port.protocol.clone()),
        port: port.port,
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(one).collect()
}

/// A mark of what slices should hold, to tell whether anything a service cares for changed about a pod.
pub fn pod_mark(pod: &Pod) -> u32 {
    let spec = pod.spec.as_ref();
    let parts = (
        meta::labels(&pod.metadata),
        pod.status.as_ref().map(|s| (&s.pod_ip, &s.pod_ips)),
        pod::is_ready(pod),
        pod::has_ended(pod),
        meta::is_deleting(&pod.metadata),
        spec.map(|s| (&s.node_name, &s.hostname, &s.subdomain)),
        &pod.metadata.uid,
    );
    fnv1a_32(format!("{parts:?}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, pod_named};
    use k8s_openapi::api::core::v1::{Container, ContainerPort};

    fn service(target: IntOrString) -> Service {
        let mut service = Service::default();
        service.metadata.name = Some("web".into());
        service.metadata.namespace = Some("ns".into());
        let spec = service.spec.get_or_insert_default();
        spec.selector = Some([("app".to_owned(), "web".to_owned())].into());
        spec.ports = Some(vec![ServicePort { port: 80, target_port: Some(target), ..Default::default() }]);
        service
    }

    fn serving(name: &str, ip: &str, port: i32) -> Arc<Pod> {
        let mut pod = pod_named(name).ready(at(0)).ip(ip).on("n1").0;
        let port = ContainerPort { name: Some("http".into()), container_port: port, ..Default::default() };
        pod.spec.get_or_insert_default().containers =
            vec![Container { ports: Some(vec![port]), ..Default::default() }];
        Arc::new(pod)
    }

    fn conditions(slice: &EndpointSlice, at: usize) -> (bool, bool, bool) {
        let c = slice.endpoints.as_ref().expect("it has some")[at].conditions.clone().expect("set");
        (c.ready == Some(true), c.serving == Some(true), c.terminating == Some(true))
    }

    #[test]
    fn named_ports_resolve_by_pod_and_split_slices() {
        let pods = [serving("a", "10.0.0.1", 8080), serving("b", "10.0.0.2", 9090)];
        let plan = slices(&service(IntOrString::String("http".into())), &pods, &[]);
        let ports: Vec<_> = plan.create.iter().map(|s| s.ports.as_ref().expect("set")[0].port).collect();
        assert_eq!(ports, [Some(8080), Some(9090)]);
        let labels = plan.create[0].metadata.labels.clone().expect("set");
        assert_eq!(labels["kubernetes.io/service-name"], "web");
        assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], MANAGED_BY);
    }

    #[test]
    fn conditions_tell_ready_serving_terminating() {
        let mut dying = (*serving("c", "10.0.0.3", 80)).clone();
        dying.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
        let pods = [
            serving("a", "10.0.0.1", 80),
            pod_named("b").phase("Running").ip("10.0.0.2").arc(),
            Arc::new(dying),
            pod_named("d").phase("Succeeded").ip("10.0.0.4").arc(),
            pod_named("e").arc(),
        ];
        let mut service = service(IntOrString::Int(80));
        let plan = slices(&service, &pods, &[]);
        let slice = &plan.create[0];
        assert_eq!(slice.endpoints.as_ref().map(Vec::len), Some(3));
        let all = [conditions(slice, 0), conditions(slice, 1), conditions(slice, 2)];
        assert_eq!(all, [(true, true, false), (false, false, false), (false, true, true)]);
        service.spec.get_or_insert_default().publish_not_ready_addresses = Some(true);
        assert!(conditions(&slices(&service, &pods, &[]).create[0], 1).0);
        let old = mirror(&self::service(IntOrString::Int(80)), &pods);
        let subset = &old.subsets.expect("it has one")[0];
        assert_eq!(subset.addresses.as_ref().map(Vec::len), Some(1));
        assert_eq!(subset.not_ready_addresses.as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn slices_hold_a_hundred_and_are_kept() {
        let pods: Vec<_> =
            (0..150).map(|n| serving(&format!("p{n:03}"), &format!("10.0.1.{n}"), 80)).collect();
        let service = service(IntOrString::Int(80));
        let made = slices(&service, &pods, &[]).create;
        assert_eq!(
            made.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).collect::<Vec<_>>(),
            [100, 50]
        );
        let mut existing = Vec::new();
        for (at, mut slice) in made.into_iter().enumerate() {
            slice.metadata.name = Some(format!("web-{at}"));
            existing.push(Arc::new(slice));
        }
        let same = slices(&service, &pods, &existing);
        assert!(same.create.is_empty() && same.replace.is_empty() && same.delete.is_empty());
        let fewer = slices(&service, &pods[..149], &existing);
        assert_eq!((fewer.create.len(), fewer.replace.len(), fewer.delete.len()), (0, 1, 0));
        let none = slices(&service, &[], &existing);
        assert_eq!((none.create.len(), none.delete.len()), (1, 2));
        assert_eq!(none.create[0].endpoints, Some(vec![]));
    }
}
