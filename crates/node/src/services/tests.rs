//! Services and slices as data, and what is made of them.

use net::rules::{Desired, Options, compile};
use serde_json::{Value, json};

use super::*;

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("a well-formed object"))
}

fn service(spec: Value) -> Arc<Service> {
    typed(json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec}))
}

fn slice(endpoints: Value) -> Arc<EndpointSlice> {
    typed(
        json!({"metadata": {"name": "web-1", "namespace": "ns"}, "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}),
    )
}

fn world<'a>(services: &'a [Arc<Service>], slices: Vec<Arc<EndpointSlice>>) -> World<'a> {
    World {
        services,
        slices: BTreeMap::from([(("ns".into(), "web".into()), slices)]),
        pods: Vec::new(),
        node_name: "n",
        node_address: Ipv4Addr::new(10, 44, 0, 1),
        dns_address: Ipv4Addr::new(10, 43, 0, 10),
        domain: "cluster.local",
    }
}

fn ports(node_port: Option<u16>) -> Value {
    json!([{"name": "http", "port": 80, "protocol": "TCP", "nodePort": node_port}])
}

/// Frontends as `address:port -> backends` words.
fn shown(world: &World<'_>) -> Vec<String> {
    let options = Options { node_addresses: vec![world.node_address], ..Options::default() };
    let desired = compile(&translate::frontends(world), &options, &Desired::default());
    let served = desired.frontends.keys().map(|tuple| {
        let targets: Vec<String> =
            desired.targets(*tuple).map(|(_, (ip, port))| format!("{ip}:{port}")).collect();
        format!("{}:{} {}", tuple.address, tuple.port, targets.join(" "))
    });
    let refused = desired.rejects.iter().map(|tuple| format!("{}:{} refused", tuple.address, tuple.port));
    served.chain(refused).collect()
}

#[test]
fn only_endpoints_that_should_get_connections_are_backends() {
    let services =
        [service(json!({"clusterIP": "10.43.0.5", "type": "NodePort", "ports": ports(Some(30080)),
        "externalTrafficPolicy": "Local"}))];
    let endpoints = json!([
        {"addresses": ["10.42.0.2"], "conditions": {"ready": true}, "nodeName": "n"},
        {"addresses": ["10.42.1.2"], "conditions": {"ready": true}, "nodeName": "other"},
        {"addresses": ["10.42.0.3"], "conditions": {"ready": false}},
        {"addresses": ["10.42.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
    ]);
    assert_eq!(
        shown(&world(&services, vec![slice(endpoints)])),
        ["10.43.0.5:80 10.42.0.2:8080 10.42.1.2:8080", "10.44.0.1:30080 10.42.0.2:8080"]
    );
    let ending = json!([{"addresses": ["10.42.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}}]);
    assert_eq!(
        shown(&world(&services, vec![slice(ending)])),
        ["10.43.0.5:80 10.42.0.4:8080", "10.44.0.1:30080 refused"]
    );
}

#[test]
fn load_balancers_are_served_at_the_node_and_published() {
    let services = [service(json!({"clusterIP": "10.43.0.5", "type": "LoadBalancer", "ports": ports(None)}))];
    let world = world(&services, vec![]);
    assert_eq!(shown(&world), ["10.43.0.5:80 refused", "10.44.0.1:80 refused"]);
    let published = balanced::published(&world);
    assert_eq!((published[0].port, published[0].target.to_string().as_str()), (80, "10.43.0.5:80"));
}

/// A load-balanced service with one port, of an age in seconds of a minute, with what it was told before.
fn balanced_service(name: &str, ip: &str, born: u8, told: Option<&str>, published: &str) -> Arc<Service> {
    let ingress: Vec<Value> = told.into_iter().map(|ip| json!({"ip": ip})).collect();
    typed(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": format!("2026-01-01T00:00:{born:02}Z"),
            "annotations": {"kedge.dev/published": published}},
        "spec": {"clusterIP": ip, "type": "LoadBalancer", "ports": ports(None)},
        "status": {"loadBalancer": {"ingress": ingress}},
    }))
}

#[test]
fn one_service_alone_has_a_port_of_the_node() {
    const NODE: &str = "10.44.0.1";
    let check = |services: &[Arc<Service>], holder: &str, told: &[(&str, &str)]| {
        let node = NODE.parse().expect("an address");
        let holders = balanced::holders(services, node);
        assert_eq!(holders.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), [holder]);
        let announced = balanced::announcements(services, node, true);
        let shown: Vec<(String, String)> =
            announced.iter().map(|(service, ip)| (service.name_any(), ip.to_string())).collect();
        let wanted: Vec<(String, String)> =
            told.iter().map(|(name, ip)| ((*name).to_owned(), (*ip).to_owned())).collect();
        assert_eq!(shown, wanted);
        let world = world(services, vec![]);
        assert_eq!(balanced::published(&world)[0].service, format!("ns/{holder}"));
        let at_node = translate::frontends(&world)
            .iter()
            .filter(|frontend| frontend.external_addresses.contains(&node))
            .count();
        assert_eq!(at_node, 1, "its rules say the same");
    };
    let (old, young) = ("10.43.0.5", "10.43.0.6");
    // The older has it, whatever it is called.
    let services =
        [balanced_service("z", old, 1, None, "80"), balanced_service("a", young, 2, None, "41000")];
    check(&services, "z", &[("z", NODE), ("a", young)]);
    // Nothing is told before the host's ports are known.
    let services = [balanced_service("z", old, 1, None, ""), balanced_service("a", young, 2, None, "41000")];
    check(&services, "z", &[("a", young)]);
    // Who has it keeps it, also from an older one that wants it later.
    let services =
        [balanced_service("z", old, 1, None, "41000"), balanced_service("a", young, 2, Some(NODE), "80")];
    check(&services, "a", &[("z", old)]);
    // Both were told it, by a server of before.
    let both =
        [balanced_service("z", old, 1, Some(NODE), "80"), balanced_service("a", young, 1, Some(NODE), "80")];
    check(&both, "a", &[("z", old)]);
    // It is free again.
    let services = [balanced_service("a", young, 2, Some(young), "41000")];
    check(&services, "a", &[("a", NODE)]);
    // What somebody else has told is theirs.
    let services = [balanced_service("a", young, 2, Some("192.0.2.1"), "80")];
    check(&services, "a", &[]);
}

#[test]
fn host_ports_lead_to_the_pod() {
    let pod: Arc<Pod> = typed(json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "ports": [{"containerPort": 80, "hostPort": 8888}]}]}}));
    let mut world = world(&[], vec![]);
    world.pods = vec![(pod, Ipv4Addr::new(10, 42, 0, 9))];
    assert_eq!(shown(&world), ["10.44.0.1:8888 10.42.0.9:80"]);
}

#[test]
fn every_kind_of_service_has_its_kind_of_names() {
    let endpoints = json!([
        {"addresses": ["10.42.0.2"], "hostname": "web-0", "conditions": {"ready": true}},
        {"addresses": ["10.42.0.3"], "conditions": {"ready": false}},
    ]);
    let has = |spec: Value, expected: &[&str]| {
        let services = [service(spec)];
        let text = format!("{:?}", names::records(&world(&services, vec![slice(endpoints.clone())])));
        for part in expected {
            assert!(text.contains(part), "{part} in {text}");
        }
        text
    };
    has(
        json!({"clusterIP": "10.43.0.5", "ports": ports(None)}),
        &[
            "web.ns.svc.cluster.local",
            "_http._tcp.web.ns.svc.cluster.local",
            "5.0.43.10.in-addr.arpa",
            "port: 80",
        ],
    );
    let headless = json!({"clusterIP": "None", "ports": ports(None)});
    let text = has(headless, &["web-0.web.ns.svc.cluster.local", "2.0.42.10.in-addr.arpa", "port: 8080"]);
    assert!(!text.contains("10-42-0-3"), "{text}");
    has(
        json!({"clusterIP": "None", "publishNotReadyAddresses": true}),
        &["10-42-0-3.web.ns.svc.cluster.local"],
    );
    has(json!({"type": "ExternalName", "externalName": "example.com"}), &["cname: Some(\"example.com\")"]);
}
