//! What a node is allowed, given what it has to do with. Pure.

use super::graph::Graph;
use super::references::Kind;
use crate::auth::rbac::Attributes;

/// What a node may do wherever it is: verbs, groups, resources. What is its own is decided below, or by admission, which
/// sees the object.
const ANYWHERE: &[(&[&str], &[&str], &[&str])] = &[
    (&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
    (&["create"], &["authorization.k8s.io"], &["subjectaccessreviews", "localsubjectaccessreviews"]),
    (&["get", "list", "watch"], &[""], &["services"]),
    (&["create", "update", "patch"], &["", "events.k8s.io"], &["events"]),
    (&["get"], &[""], &["endpoints"]),
    (&["create", "get", "list", "watch"], &["certificates.k8s.io"], &["certificatesigningrequests"]),
    (&["get", "list", "watch"], &["storage.k8s.io"], &["csidrivers"]),
    (&["get", "list", "watch"], &["node.k8s.io"], &["runtimeclasses"]),
];

const OWN_WRITES: &[&str] = &["get", "create", "update", "patch", "delete"];
const LEASES: &str = "kube-node-lease";

/// Whether a node may do something.
pub fn decide(graph: &Graph, node: &str, what: &Attributes) -> bool {
    if !what.is_resource() {
        return false;
    }
    let (verb, sub, namespace, name) =
        (what.verb.as_str(), what.subresource.as_str(), what.namespace.as_str(), what.name.as_str());
    let whole = sub.is_empty() && !name.is_empty();
    let read = |kind| {
        let reads = matches!(verb, "get" | "list" | "watch");
        whole && reads && !namespace.is_empty() && graph.uses(node, kind, namespace, name)
    };
    let limited = |field: &str| what.fields.iter().any(|(f, value)| f == field && value == node);
    let own = verb == "create" || name == node;
    match (what.group.as_str(), what.resource.as_str()) {
        ("", "secrets") => read(Kind::Secret),
        ("", "configmaps") => read(Kind::ConfigMap),
        ("", "persistentvolumeclaims") => {
            let may = match sub {
                "" => verb == "get",
                "status" => matches!(verb, "update" | "patch"),
                _ => false,
            };
            may && graph.uses(node, Kind::Claim, namespace, name)
        }
        ("", "persistentvolumes") => whole && verb == "get" && graph.uses_volume(node, name),
        ("resource.k8s.io", "resourceclaims") => verb == "get" && read(Kind::ResourceClaim),
        ("storage.k8s.io", "volumeattachments") => {
            whole && verb == "get" && graph.has_own(node, "volumeattachments", name)
        }
        ("", "serviceaccounts") if sub == "token" => {
            verb == "create" && graph.uses(node, Kind::ServiceAccount, namespace, name)
        }
        ("", "serviceaccounts") => verb == "get" && read(Kind::ServiceAccount),
        ("coordination.k8s.io", "leases") => {
            sub.is_empty() && namespace == LEASES && OWN_WRITES.contains(&verb) && own
        }
        ("storage.k8s.io", "csinodes") => sub.is_empty() && OWN_WRITES.contains(&verb) && own,
        ("resource.k8s.io", "resourceslices") => match verb {
            _ if !sub.is_empty() => false,
            "create" => true,
            "get" | "update" | "patch" | "delete" => graph.has_own(node, "resourceslices", name),
            "list" | "watch" | "deletecollection" => limited("spec.nodeName"),
            _ => false,
        },
        ("", "nodes") => match (sub, verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => true,
            ("", "get" | "list" | "watch") => name == node,
            _ => false,
        },
        ("", "pods") => match (sub, verb) {
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => true,
            ("", "get") => graph.has_pod(node, namespace, name),
            ("", "list" | "watch") => {
                limited("spec.nodeName") || !name.is_empty() && graph.has_pod(node, namespace, name)
            }
            _ => false,
        },
        (group, resource) => {
            sub.is_empty()
                && ANYWHERE.iter().any(|(verbs, groups, resources)| {
                    verbs.contains(&verb) && groups.contains(&group) && resources.contains(&resource)
                })
        }
    }
}

/// Why a node was refused, where there is more to say than that it was.
pub fn reason(node: &str, what: &Attributes) -> Option<String> {
    let (verb, sub, name) = (what.verb.as_str(), what.subresource.as_str(), what.name.as_str());
    let reads = matches!(verb, "get" | "list" | "watch");
    Some(match (what.group.as_str(), what.resource.as_str()) {
        ("", "secrets" | "configmaps") if !reads => "can only read resources of this type".into(),
        ("", "secrets" | "configmaps") if !sub.is_empty() => "cannot read subresource".into(),
        ("", "secrets" | "configmaps") if what.namespace.is_empty() => {
            "can only read namespaced object of this type".into()
        }
        ("", "secrets" | "configmaps") if name.is_empty() => "No Object name found".into(),
        ("", "persistentvolumes") | ("storage.k8s.io", "volumeattachments") if verb != "get" => {
            "can only get individual resources of this type".into()
        }
        ("", "nodes") if reads && sub.is_empty() && name.is_empty() => {
            format!("node '{node}' cannot read all nodes, only its own Node object")
        }
        ("", "nodes") if reads && sub.is_empty() => {
            format!("node '{node}' cannot read '{name}', only its own Node object")
        }
        ("", "pods") if matches!(verb, "list" | "watch") && sub.is_empty() && name.is_empty() => {
            "can only list/watch pods with spec.nodeName field selector".into()
        }
        ("coordination.k8s.io", "leases") if what.namespace != LEASES => {
            format!("can only access leases in the {LEASES:?} system namespace")
        }
        ("coordination.k8s.io", "leases") => {
            "can only access node lease with the same name as the requesting node".into()
        }
        ("storage.k8s.io", "csinodes") => {
            "can only access CSINode with the same name as the requesting node".into()
        }
        (
            "",
            "secrets" | "configmaps" | "persistentvolumeclaims" | "persistentvolumes" | "serviceaccounts",
        )
        | ("resource.k8s.io", "resourceclaims")
        | ("storage.k8s.io", "volumeattachments") => {
            format!("no relationship found between node '{node}' and this object")
        }
        ("", "pods") if verb == "get" && sub.is_empty() && name.is_empty() => "No Object name found".into(),
        ("", "pods") if verb == "get" && sub.is_empty() => {
            format!("no relationship found between node '{node}' and this object")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `verb group/resource/subresource namespace name field=value`
    fn check(request: &str, expected: bool) {
        let mut graph = Graph::default();
        let pod = json!({"metadata": {"namespace": "a", "name": "p"}, "spec": {"nodeName": "n1", "containers": [], "serviceAccountName": "sa",
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "persistentVolumeClaim": {"claimName": "c"}}]}});
        graph.set_pod(&serde_json::from_value(pod).expect("a pod"));
        graph.set_own("resourceslices", "slice", Some("n1"));
        let parts: Vec<&str> = request.split(' ').collect();
        let path: Vec<&str> = parts[1].split('/').collect();
        let given = |i: usize| parts.get(i).filter(|p| **p != "-").map_or(String::new(), |p| (*p).to_owned());
        let what = Attributes {
            verb: parts[0].into(),
            group: path[0].into(),
            resource: path[1].into(),
            subresource: path.get(2).map_or(String::new(), |s| (*s).to_owned()),
            namespace: given(2),
            name: given(3),
            fields: parts.get(4).and_then(|f| crate::http::request::equality(f)).into_iter().collect(),
            ..Default::default()
        };
        assert_eq!(decide(&graph, "n1", &what), expected, "{request}");
    }

    #[test]
    fn a_node_is_allowed_what_its_pods_need_and_no_more() {
        check("get /secrets a s", true);
        check("watch /secrets a s", true);
        check("get /secrets a other", false);
        check("list /secrets a -", false);
        check("list /secrets - -", false);
        check("update /secrets a s", false);
        check("get /persistentvolumeclaims a c", true);
        check("update /persistentvolumeclaims/status a c", true);
        check("update /persistentvolumeclaims a c", false);
        check("create /serviceaccounts/token a sa", true);
        check("create /serviceaccounts/token a other", false);
        check("get /serviceaccounts a sa", true);
        check("get /pods a p", true);
        check("get /pods a other", false);
        check("list /pods - - spec.nodeName=n1", true);
        check("list /pods - - spec.nodeName=n2", false);
        check("list /pods - - spec.nodeName!=n1", false);
        check("list /pods - -", false);
        check("create /pods/exec a p", false);
        check("get /nodes - n1", true);
        check("get /nodes - n2", false);
        check("list /nodes - -", false);
        check("delete /nodes - n1", false);
        check("get /nodes/proxy - n1", false);
        check("update coordination.k8s.io/leases kube-node-lease n1", true);
        check("update coordination.k8s.io/leases kube-node-lease n2", false);
        check("update coordination.k8s.io/leases kube-system n1", false);
        check("update storage.k8s.io/csinodes - n1", true);
        check("update storage.k8s.io/csinodes - n2", false);
        check("update resource.k8s.io/resourceslices - slice", true);
        check("update resource.k8s.io/resourceslices - other", false);
        check("deletecollection resource.k8s.io/resourceslices - -", false);
        check("list /services - -", true);
        check("create /events a e", true);
        check("create rbac.authorization.k8s.io/clusterroles - x", false);
        check("update certificates.k8s.io/certificatesigningrequests/approval - x", false);
    }
}
