//! Each filter by itself, in tables.

use super::*;
use crate::testing::*;
use k8s_openapi::api::core::v1::{
    ContainerPort, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume, VolumeNodeAffinity,
};

fn info(pod: PodBuilder) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(pod.arc()))
}

fn on(node: NodeBuilder, pods: Vec<PodBuilder>) -> NodeInfo {
    let mut snapshot = crate::snapshot::Snapshot::default();
    let name = node.0.metadata.name.clone().unwrap_or_default();
    snapshot.set_node(node.arc());
    pods.into_iter().for_each(|pod| snapshot.set_pod(pod.arc(), &name));
    snapshot.node(&name).cloned().expect("just set")
}

fn verdicts(pod: PodBuilder, nodes: &[NodeInfo], world: &World) -> Vec<String> {
    match Cycle::new(&info(pod), nodes.iter(), world) {
        Ok(cycle) => nodes
            .iter()
            .map(|n| cycle.filter(n).map_or_else(|r| r.reasons.join("; "), |()| "ok".into()))
            .collect(),
        Err(rejection) => rejection.reasons,
    }
}

fn verdict(pod: PodBuilder, node: NodeInfo) -> String {
    verdicts(pod, &[node], &World::default()).remove(0)
}

#[test]
fn resources() {
    let full = || on(node("n"), vec![pod("x").cpu("800m")]);
    assert_eq!(verdict(pod("a").cpu("200m"), full()), "ok");
    assert_eq!(verdict(pod("a").cpu("201m"), full()), "Insufficient cpu");
    let crowd = (0..10).map(|n| pod(&n.to_string())).collect();
    assert_eq!(verdict(pod("a"), on(node("n"), crowd)), "Too many pods");
    let asks = |cpu: &str| {
        let cycle = Cycle::new(&info(pod("a").cpu(cpu)), std::iter::empty(), &World::default()).ok();
        cycle.and_then(|c| c.filter(&full()).err()).map(|r| r.preemption_helps)
    };
    assert_eq!((asks("900m"), asks("2")), (Some(true), Some(false)));
}

#[test]
fn taints_and_cordons() {
    assert_eq!(verdict(pod("a"), on(node("n").cordoned(), vec![])), "node(s) were unschedulable");
    let tainted = || on(node("n").tainted("k", "v", "NoSchedule"), vec![]);
    assert_eq!(verdict(pod("a"), tainted()), "node(s) had untolerated taint {k: v}");
    let tolerant = pod("a").with(|p| {
        let toleration =
            k8s_openapi::api::core::v1::Toleration { operator: Some("Exists".into()), ..Default::default() };
        p.spec.get_or_insert_default().tolerations = Some(vec![toleration]);
    });
    assert_eq!(verdict(tolerant, tainted()), "ok");
    assert_eq!(verdict(pod("a"), on(node("n").tainted("k", "v", "PreferNoSchedule"), vec![])), "ok");
}

#[test]
fn node_selectors_and_affinity() {
    let refused = "node(s) didn't match Pod's node affinity/selector";
    let selecting = |value: &str| {
        let value = value.to_owned();
        pod("a").with(move |p| {
            p.spec.get_or_insert_default().node_selector = Some([("disk".to_owned(), value)].into())
        })
    };
    let ssd = || on(node("n").labelled("disk", "ssd"), vec![]);
    assert_eq!(verdict(selecting("ssd"), ssd()), "ok");
    assert_eq!(verdict(selecting("hdd"), ssd()), refused);
    let requiring = |operator: &str, values: &[&str]| {
        let requirement = NodeSelectorRequirement {
            key: "disk".into(),
            operator: operator.into(),
            values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
        };
        let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), ..Default::default() };
        let affinity = NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            ..Default::default()
        };
        pod("a").with(|p| {
            p.spec.get_or_insert_default().affinity.get_or_insert_default().node_affinity = Some(affinity)
        })
    };
    let cases = [
        ("In", vec!["ssd"], true),
        ("NotIn", vec!["ssd"], false),
        ("Exists", vec![], true),
        ("DoesNotExist", vec![], false),
    ];
    for (operator, values, fine) in cases {
        assert_eq!(
            verdict(requiring(operator, &values), ssd()),
            if fine { "ok" } else { refused },
            "{operator}"
        );
    }
}

#[test]
fn host_ports() {
    let on_port = |name: &str, ip: &str| {
        let port = ContainerPort {
            container_port: 80,
            host_port: Some(80),
            host_ip: Some(ip.into()),
            ..Default::default()
        };
        pod(name).with(|p| p.spec.get_or_insert_default().containers[0].ports = Some(vec![port]))
    };
    let taken = |ip: &str| on(node("n"), vec![on_port("x", ip)]);
    let refused = "node(s) didn't have free ports for the requested pod ports";
    assert_eq!(verdict(on_port("a", ""), taken("127.0.0.1")), refused);
    assert_eq!(verdict(on_port("a", "127.0.0.2"), taken("127.0.0.1")), "ok");
    assert_eq!(verdict(pod("a"), taken("")), "ok");
}

#[test]
fn pods_together_and_apart() {
    let zone = |name: &str, zone: &str| node(name).labelled("zone", zone);
    let nodes = [
        on(zone("n1", "a"), vec![pod("db").labelled("app", "db")]),
        on(zone("n2", "a"), vec![]),
        on(zone("n3", "b"), vec![pod("loner").labelled("app", "loner").apart("app", "web", "zone")]),
    ];
    let world = World::default();
    let near = verdicts(pod("x").near("app", "db", "zone"), &nodes, &world);
    assert_eq!(near, ["ok", "ok", "node(s) didn't match pod affinity rules"]);
    let apart = verdicts(pod("x").apart("app", "db", "kubernetes.io/hostname"), &nodes, &world);
    assert_eq!(apart, ["node(s) didn't match pod anti-affinity rules", "ok", "ok"]);
    let unwanted = verdicts(pod("x").labelled("app", "web"), &nodes, &world);
    assert_eq!(unwanted[2], "node(s) didn't satisfy existing pods anti-affinity rules");
    let first = verdicts(pod("x").labelled("app", "new").near("app", "new", "zone"), &nodes, &world);
    assert_eq!(first, ["ok", "ok", "ok"]);
}

#[test]
fn spread_over_zones() {
    let mate = |name: &str| pod(name).labelled("app", "web");
    let nodes = [
        on(node("n1").labelled("zone", "a"), vec![mate("1"), mate("2")]),
        on(node("n2").labelled("zone", "b"), vec![mate("3")]),
        on(node("n3"), vec![]),
    ];
    let constrained = mate("x").with(|p| {
        let constraint = TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "zone".into(),
            when_unsatisfiable: "DoNotSchedule".into(),
            label_selector: Some(label_selector("app", "web")),
            ..Default::default()
        };
        p.spec.get_or_insert_default().topology_spread_constraints = Some(vec![constraint]);
    });
    let reason = "node(s) didn't match pod topology spread constraints";
    let all = verdicts(constrained, &nodes, &World::default());
    assert_eq!(all, [reason.to_owned(), "ok".to_owned(), format!("{reason} (missing required label)")]);
}

fn claiming(pod_: PodBuilder) -> PodBuilder {
    pod_.with(|p: &mut Pod| {
        let source = PersistentVolumeClaimVolumeSource { claim_name: "data".into(), ..Default::default() };
        let volume = Volume { name: "v".into(), persistent_volume_claim: Some(source), ..Default::default() };
        p.spec.get_or_insert_default().volumes = Some(vec![volume]);
    })
}

#[test]
fn volumes_say_where() {
    let nodes = [on(node("n1"), vec![]), on(node("n2"), vec![])];
    let mut world = World::default();
    assert_eq!(verdicts(claiming(pod("a")), &nodes, &world), ["persistentvolumeclaim \"data\" not found"]);
    let mut claim = PersistentVolumeClaim::default();
    claim.metadata.name = Some("data".into());
    claim.spec.get_or_insert_default().storage_class_name = Some("local".into());
    world.claims.insert("data".into(), Arc::new(claim.clone()));
    assert_eq!(
        verdicts(claiming(pod("a")), &nodes, &world),
        ["pod has unbound immediate PersistentVolumeClaims"]
    );
    let class = k8s_openapi::api::storage::v1::StorageClass {
        provisioner: "x/y".into(),
        volume_binding_mode: Some("WaitForFirstConsumer".into()),
        ..Default::default()
    };
    world.classes.insert("local".into(), Arc::new(class));
    assert_eq!(verdicts(claiming(pod("a")), &nodes, &world), ["ok", "ok"]);
    let notes = claim.metadata.annotations.get_or_insert_default();
    notes.insert("volume.kubernetes.io/selected-node".into(), "n2".into());
    world.claims.insert("data".into(), Arc::new(claim.clone()));
    assert_eq!(verdicts(claiming(pod("a")), &nodes, &world), [volumes::NONE_TO_BIND, "ok"]);
    let notes = claim.metadata.annotations.get_or_insert_default();
    notes.insert("pv.kubernetes.io/bind-completed".into(), "yes".into());
    claim.spec.get_or_insert_default().volume_name = Some("pv".into());
    world.claims.insert("data".into(), Arc::new(claim));
    let requirement = NodeSelectorRequirement {
        key: "kubernetes.io/hostname".into(),
        operator: "In".into(),
        values: Some(vec!["n1".into()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), ..Default::default() };
    let mut volume = k8s_openapi::api::core::v1::PersistentVolume::default();
    volume.spec.get_or_insert_default().node_affinity =
        Some(VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) });
    world.volumes.insert("pv".into(), Arc::new(volume));
    assert_eq!(verdicts(claiming(pod("a")), &nodes, &world), ["ok", volumes::CONFLICT]);
}

#[test]
fn reasons_are_counted() {
    let one = |reason: &str| Rejection {
        plugin: Plugin::NodeName,
        reasons: vec![reason.into()],
        preemption_helps: false,
    };
    let all = [("a", one("Insufficient cpu")), ("b", one("Insufficient cpu")), ("c", one("Too many pods"))];
    let all = all.map(|(n, r)| (n.to_owned(), r)).into();
    assert_eq!(explain(&all), "0/3 nodes are available: 1 Too many pods, 2 Insufficient cpu.");
}
