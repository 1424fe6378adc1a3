//! The roles that every cluster begins with, and who has them: tables, beside what is our own.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::object;

const ROLES: &str = include_str!("roles.tsv");
const BINDINGS: &str = include_str!("bindings.tsv");
const API: &str = "rbac.authorization.k8s.io/v1";
const GROUP: &str = "rbac.authorization.k8s.io";
/// In the tables, the cluster itself as a place, and nothing as a list.
const NONE: &str = "-";

/// Paths and objects.
pub type Made = Vec<(String, Value)>;

pub fn all() -> Made {
    let mut all: Made = [roles(), bindings(), own()].into_iter().flatten().collect();
    for (name, into) in [("admin", None), ("edit", Some("admin")), ("view", Some("edit"))] {
        all.push(gathering(name, into));
    }
    all
}

fn path(place: &str, plural: &str) -> String {
    match place {
        NONE => format!("/apis/{API}/cluster{plural}"),
        namespace => format!("/apis/{API}/namespaces/{namespace}/{plural}"),
    }
}

pub(super) fn lines(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}

pub(super) fn list(text: &str) -> Vec<&str> {
    let named = |name| if name == "core" { "" } else { name };
    text.split(',').filter(|_| text != NONE).map(named).collect()
}

fn marked(kind: &str, place: &str, name: &str) -> Value {
    let kind = if place == NONE { format!("Cluster{kind}") } else { kind.to_owned() };
    let mut object = object(API, &kind, name);
    object["metadata"]["labels"] = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    object["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
    object
}

fn gathered_by(role: &mut Value, into: &str) {
    role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{into}")] = "true".into();
}

fn roles() -> Made {
    let mut all: BTreeMap<(&str, &str), Value> = BTreeMap::new();
    for line in lines(ROLES) {
        let [place, name, into, verbs, groups, resources, names, paths] = line.as_slice() else { continue };
        let role = all.entry((place, name)).or_insert_with(|| {
            let mut role = marked("Role", place, name);
            list(into).into_iter().for_each(|into| gathered_by(&mut role, into));
            role["rules"] = json!([]);
            role
        });
        let mut rule = Map::from_iter([("verbs".to_owned(), json!(list(verbs)))]);
        let parts = [
            ("apiGroups", groups),
            ("resources", resources),
            ("resourceNames", names),
            ("nonResourceURLs", paths),
        ];
        for (field, text) in parts.into_iter().filter(|(_, text)| **text != NONE) {
            rule.insert(field.to_owned(), json!(list(text)));
        }
        if let Some(rules) = role["rules"].as_array_mut() {
            rules.push(Value::Object(rule));
        }
    }
    all.into_iter().map(|((place, _), role)| (path(place, "roles"), role)).collect()
}

fn bindings() -> Made {
    let made = lines(BINDINGS).filter_map(|line| {
        let [place, name, role, subjects] = line.as_slice() else { return None };
        let mut binding = marked("RoleBinding", place, name);
        let kind = if *place == NONE { "ClusterRole" } else { "Role" };
        binding["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": role});
        let subjects: Vec<Value> = list(subjects).into_iter().filter_map(subject).collect();
        if !subjects.is_empty() {
            binding["subjects"] = json!(subjects);
        }
        Some((path(place, "rolebindings"), binding))
    });
    made.collect()
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    Some(match (kind, name.split_once('/')) {
        ("ServiceAccount", Some((namespace, name))) => {
            json!({"kind": kind, "namespace": namespace, "name": name})
        }
        _ => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
    })
}

/// A role that others are folded into by label, and that may be folded into a wider one itself.
fn gathering(name: &str, into: Option<&str>) -> (String, Value) {
    let mut role = marked("Role", NONE, name);
    let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
    role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    if let Some(into) = into {
        gathered_by(&mut role, into);
    }
    (path(NONE, "roles"), role)
}

/// What this server's own parts need beyond that.
fn own() -> Made {
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let role = |name: &str, rules: Value| {
        let mut role = marked("Role", NONE, name);
        role["rules"] = rules;
        (path(NONE, "roles"), role)
    };
    let bind = |name: &str, role: &str, user: &str| {
        let mut binding = marked("RoleBinding", NONE, name);
        binding["roleRef"] = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": role});
        binding["subjects"] = json!([{"apiGroup": GROUP, "kind": "User", "name": user}]);
        (path(NONE, "rolebindings"), binding)
    };
    let sources =
        rule(&["source.toolkit.fluxcd.io", "kustomize.toolkit.fluxcd.io"], &["*"], &["get", "list", "watch"]);
    let mut view = role("kedge:aggregate-to-view", json!([sources]));
    gathered_by(&mut view.1, "view");
    vec![
        view,
        // The garbage collector and the namespace controller delete whatever there is.
        role("system:kube-controller-manager", json!([rule(&["*"], &["*"], &["*"])])),
        role("system:service-publisher", json!([rule(&[""], &["services"], &["patch"])])),
        bind("system:service-publisher", "system:service-publisher", "system:service-publisher"),
        // It tells where a load-balanced service is reached.
        role("kedge:load-balancer", json!([rule(&[""], &["services/status"], &["patch", "update"])])),
        bind("kedge:load-balancer", "kedge:load-balancer", "system:kube-proxy"),
        bind("kedge:gitops", "cluster-admin", "system:gitops"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::MASTERS;

    #[test]
    fn the_tables_are_read_as_they_are_written() {
        let all = all();
        assert_eq!((roles().len(), bindings().len()), (73, 58), "a line is lost");
        let find = |at: &str, name: &str| {
            let found = all.iter().find(|(path, o)| path.ends_with(at) && api::meta::name(o) == name);
            found.map(|(_, object)| object.clone()).unwrap_or_default()
        };
        let admin = find("/clusterroles", "cluster-admin");
        assert_eq!(
            admin["rules"],
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]}])
        );
        let masters = find("/clusterrolebindings", "cluster-admin");
        assert_eq!(masters["subjects"][0]["name"], MASTERS);
        assert!(find("/clusterrolebindings", "system:node")["subjects"].is_null(), "nodes have no role");
        let account = find("/kube-system/rolebindings", "system:controller:token-cleaner");
        assert_eq!(
            account["subjects"],
            json!([{"kind": "ServiceAccount", "namespace": "kube-system", "name": "token-cleaner"}])
        );
    }
}
