//! A node, what routes to pods and what keeps from them, and an autoscaler in both of its versions.

use serde_json::{Value, json};

use super::subjects::metadata_parts;
use super::wider::{Face, Wide};

fn specs(parts: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let parts = parts.into_iter().map(|spec| json!({"spec": spec}));
    metadata_parts().into_iter().chain(parts).collect()
}

fn statuses(parts: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let more = [json!({"metadata": {"annotations": {"a": "1"}}}), json!({"spec": {"unknown": 1}})];
    parts.into_iter().map(|status| json!({"status": status})).chain(more).collect()
}

pub(super) fn node() -> Wide {
    let taint = |key: &str, effect: &str| json!({"key": key, "effect": effect});
    let parts = specs([
        json!({"unschedulable": true}),
        json!({"unschedulable": false}),
        json!({"taints": [taint("a", "NoSchedule")]}),
        json!({"taints": [taint("b", "NoExecute"), taint("a", "NoSchedule")]}),
        json!({"taints": []}),
        json!({"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24"]}),
        json!({"podCIDRs": ["10.42.2.0/24"]}),
        json!({"providerID": "p://1"}),
        json!({"providerID": "p://2"}),
    ]);
    let places = vec![
        ("/metadata/labels", json!("3")),
        ("/spec/taints", taint("c", "PreferNoSchedule")),
        ("/spec/podCIDRs", json!("10.42.3.0/24")),
        ("/spec/unschedulable", json!(true)),
    ];
    let main = Face::main("v1", "Node", parts, places);
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "r"});
    let address = |kind: &str, address: &str| json!({"type": kind, "address": address});
    let status = Face {
        weight: 5,
        ..main.status(
            statuses([
                json!({"capacity": {"cpu": "4", "memory": "8Gi"}}),
                json!({"capacity": {"cpu": "4000m"}, "allocatable": {"cpu": "3.5"}}),
                json!({"capacity": {"example.com/gpu": "1", "cpu": null}}),
                json!({"conditions": [condition("Ready", "True")]}),
                json!({"conditions": [condition("DiskPressure", "False"), condition("Ready", "False")]}),
                json!({"addresses": [address("InternalIP", "10.0.0.1")]}),
                json!({"addresses": [address("Hostname", "h"), address("InternalIP", "10.0.0.2")]}),
                json!({"images": [{"names": ["a:1"], "sizeBytes": 5}]}),
                json!({"volumesInUse": ["v"]}),
                json!({"nodeInfo": {"kubeletVersion": "v1.36.0"}}),
                json!({"daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}),
            ]),
            vec![
                ("/status/conditions", condition("PIDPressure", "False")),
                ("/status/addresses", address("ExternalIP", "1.2.3.4")),
                ("/status/capacity", json!("7")),
            ],
        )
    };
    Wide {
        label: "node",
        plural: "nodes",
        namespaced: false,
        base: json!({}),
        faces: vec![main, status],
        client_side: false,
    }
}

pub(super) fn ingress() -> Wide {
    let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
    let rule = |host: &str, path: &str| json!({"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend("web")}]}});
    let parts = specs([
        json!({"rules": [rule("a.example.com", "/")]}),
        json!({"rules": [rule("b.example.com", "/b"), rule("a.example.com", "/a")]}),
        json!({"rules": [rule("a.example.com", "no")]}),
        json!({"tls": [{"hosts": ["a.example.com"], "secretName": "s"}]}),
        json!({"tls": []}),
        json!({"defaultBackend": backend("d")}),
        json!({"defaultBackend": null}),
        json!({"ingressClassName": "c"}),
        json!({"ingressClassName": null}),
    ]);
    let places = vec![
        ("/metadata/annotations", json!("3")),
        ("/spec/rules", rule("c.example.com", "/c")),
        ("/spec/rules/0/http/paths", json!({"path": "/x", "pathType": "Exact", "backend": backend("x")})),
        ("/spec/tls", json!({"secretName": "t"})),
        ("/spec/defaultBackend", backend("e")),
    ];
    let main = Face::main("networking.k8s.io/v1", "Ingress", parts, places);
    let status = main.status(
        statuses([
            json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}),
            json!({"loadBalancer": {"ingress": [{"hostname": "h", "ports": [{"port": 80, "protocol": "TCP"}]}]}}),
            json!({"loadBalancer": {}}),
        ]),
        vec![("/status/loadBalancer/ingress", json!({"ip": "1.2.3.5"}))],
    );
    Wide {
        label: "ingress",
        plural: "ingresses",
        namespaced: true,
        base: json!({"spec": {"rules": [rule("a.example.com", "/")]}}),
        faces: vec![main, status],
        client_side: false,
    }
}

pub(super) fn network_policy() -> Wide {
    let from = |peer: Value, port: Value| json!({"from": [peer], "ports": [{"port": port}]});
    let parts = specs([
        json!({"ingress": [from(json!({"podSelector": {}}), json!(80))]}),
        json!({"ingress": [from(json!({"namespaceSelector": {"matchLabels": {"a": "b"}}}), json!("http")), {}]}),
        json!({"ingress": []}),
        json!({"ingress": null}),
        json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]}),
        json!({"egress": [{"ports": [{"port": 80, "endPort": 90, "protocol": "UDP"}]}]}),
        json!({"policyTypes": ["Egress"]}),
        json!({"policyTypes": ["Ingress", "Egress"]}),
        json!({"podSelector": {"matchLabels": {"x": "y"}}}),
        json!({"podSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}}),
        json!({"podSelector": {}}),
    ]);
    let places = vec![
        ("/metadata/labels", json!("3")),
        ("/spec/ingress", json!({"ports": [{"port": 81}]})),
        ("/spec/policyTypes", json!("Ingress")),
        ("/spec/podSelector/matchLabels", json!("z")),
        ("/spec/ingress/0/ports", json!({"port": 82})),
    ];
    Wide {
        label: "networkpolicy",
        plural: "networkpolicies",
        namespaced: true,
        base: json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}, "ingress": [{"ports": [{"port": 80}]}]}}),
        faces: vec![Face::main("networking.k8s.io/v1", "NetworkPolicy", parts, places)],
        client_side: false,
    }
}

/// Written in its two versions by turns: who owns what is known by the names of each.
pub(super) fn autoscaler() -> Wide {
    let common = [
        json!({"minReplicas": 2}),
        json!({"minReplicas": null}),
        json!({"maxReplicas": 4}),
        json!({"scaleTargetRef": {"kind": "Deployment", "name": "other", "apiVersion": "apps/v1"}}),
    ];
    let cpu = |target: i64| json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}});
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1000m"}}});
    let own = [
        json!({"metrics": [cpu(50)]}),
        json!({"metrics": [cpu(70)]}),
        json!({"metrics": [pods, cpu(50)]}),
        json!({"metrics": []}),
        json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}),
        json!({"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}]}}}),
    ];
    let places = vec![
        ("/metadata/labels", json!("3")),
        ("/spec/metrics", cpu(30)),
        ("/spec/maxReplicas", json!(5)),
        ("/spec/behavior", json!({"scaleDown": {"selectPolicy": "Disabled"}})),
    ];
    let v2 = Face::main(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        specs(common.iter().cloned().chain(own)),
        places,
    );
    let old = [
        json!({"targetCPUUtilizationPercentage": 50}),
        json!({"targetCPUUtilizationPercentage": 60}),
        json!({"targetCPUUtilizationPercentage": null}),
    ];
    let places = vec![
        ("/metadata/annotations", json!("3")),
        ("/spec/targetCPUUtilizationPercentage", json!(40)),
        ("/spec/minReplicas", json!(1)),
    ];
    let v1 =
        Face::main("autoscaling/v1", "HorizontalPodAutoscaler", specs(common.into_iter().chain(old)), places);
    let current = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 10, "averageValue": "100m"}}});
    let condition = |status: &str| json!({"type": "AbleToScale", "status": status});
    let v2_status = v2.status(
        statuses([
            json!({"currentReplicas": 1, "desiredReplicas": 2}),
            json!({"desiredReplicas": 2, "currentMetrics": [current]}),
            json!({"desiredReplicas": 3, "conditions": [condition("True")]}),
        ]),
        vec![("/status/conditions", condition("False"))],
    );
    let v1_status = v1.status(
        statuses([
            json!({"currentReplicas": 1, "desiredReplicas": 2}),
            json!({"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 12}),
        ]),
        vec![("/status/desiredReplicas", json!(4))],
    );
    Wide {
        label: "autoscaler",
        plural: "horizontalpodautoscalers",
        namespaced: true,
        base: json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
        faces: vec![v2, v1, Face { weight: 1, ..v2_status }, Face { weight: 1, ..v1_status }],
        client_side: false,
    }
}
