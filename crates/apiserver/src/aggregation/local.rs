//! The groups and versions that we answer for ourselves are APIServices too, so that whoever lists them sees all there
//! is: those of built-in kinds from the start, those of CustomResourceDefinitions while they exist.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{GROUP, automanaged, available, condition, path};
use crate::catalog::Kinds;

pub const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const OF_BUILTIN: &str = "onstart";
const OF_DEFINITION: &str = "true";

/// Priorities of the built-in groups in discovery, of the group and of each version.
const PRIORITIES: &[(&str, i32, i32)] = &[
    ("", 18000, 1),
    ("apps", 17800, 15),
    ("events.k8s.io", 17750, 15),
    ("authentication.k8s.io", 17700, 15),
    ("authorization.k8s.io", 17600, 15),
    ("autoscaling", 17500, 15),
    ("batch", 17400, 15),
    ("certificates.k8s.io", 17300, 15),
    ("networking.k8s.io", 17200, 15),
    ("policy", 17100, 15),
    ("rbac.authorization.k8s.io", 17000, 15),
    ("storage.k8s.io", 16800, 15),
    ("apiextensions.k8s.io", 16700, 15),
    ("admissionregistration.k8s.io", 16700, 15),
    ("scheduling.k8s.io", 16600, 15),
    ("coordination.k8s.io", 16500, 15),
    ("node.k8s.io", 16300, 15),
    ("discovery.k8s.io", 16200, 15),
    ("resource.k8s.io", 16200, 21),
    ("flowcontrol.apiserver.k8s.io", 16100, 21),
];
/// Of groups that users define.
const CUSTOM: (i32, i32) = (1000, 100);
/// A second version of a built-in group comes before the first.
const NEWER: i32 = 15;

/// A group and version, and whether it is built in.
type Served = BTreeMap<(String, String), bool>;

#[derive(Debug, PartialEq)]
pub enum Action {
    Create(Value),
    /// An APIService of ours whose status does not say so yet.
    Status(String, Value),
    Delete(String),
}

fn served(kinds: &Kinds) -> Served {
    let mut served = Served::new();
    for kind in kinds.all().iter().filter(|k| k.group != GROUP) {
        served.entry((kind.group.to_string(), kind.version.to_string())).or_insert(kind.custom.is_none());
    }
    served
}

/// What makes the APIServices those of the kinds that are served; `now` is the time of new conditions.
pub fn plan(kinds: &Kinds, existing: &[Value], now: &str) -> Vec<Action> {
    let served = served(kinds);
    let mut actions = Vec::new();
    let mut known = BTreeSet::new();
    for service in existing {
        let spec = &service["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let key = (text("group"), text("version"));
        let name = api::meta::name(service);
        if spec.get("service").is_none_or(Value::is_null) {
            if automanaged(service).is_some() && !served.contains_key(&key) {
                actions.push(Action::Delete(path(name)));
            } else if available(service).is_none() {
                actions.push(Action::Status(path(name), status(now)));
            }
        }
        known.insert(key);
    }
    for ((group, version), builtin) in &served {
        if !known.contains(&(group.clone(), version.clone())) {
            actions.push(Action::Create(object(group, version, *builtin)));
        }
    }
    actions
}

pub fn status(now: &str) -> Value {
    json!({"status": {"conditions": [condition(true, "Local", "Local APIServices are always available", now)]}})
}

fn object(group: &str, version: &str, builtin: bool) -> Value {
    let known = PRIORITIES.iter().find(|(g, _, _)| *g == group && builtin);
    let (group_priority, version_priority) = known.map_or(CUSTOM, |(_, of_group, of_version)| {
        (*of_group, if version == "v2" { of_version + NEWER } else { *of_version })
    });
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"),
            "labels": {AUTOMANAGED: if builtin { OF_BUILTIN } else { OF_DEFINITION }}},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn what_is_served_is_listed_and_nothing_twice() {
        let catalog = Catalog::default();
        catalog.rebuild(&[]);
        let kinds = catalog.snapshot();
        let actions = plan(&kinds, &[], "now");
        let mut existing: Vec<Value> = actions
            .into_iter()
            .map(|action| match action {
                Action::Create(service) => service,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(
            existing
                .iter()
                .any(|s| s["metadata"]["name"] == "v1.apps" && s["spec"]["groupPriorityMinimum"] == 17800)
        );
        assert!(existing.iter().any(|s| s["metadata"]["name"] == "v1."), "the core group");
        let again = plan(&kinds, &existing, "now");
        assert_eq!(again.len(), existing.len());
        assert!(again.iter().all(|a| matches!(a, Action::Status(..))), "{again:?}");
        for service in &mut existing {
            service["status"] = status("now")["status"].clone();
        }
        assert_eq!(plan(&kinds, &existing, "now"), []);

        // What a definition brought goes with it; what a user made stays.
        let mut of_user = object("shop.example", "v1", false);
        let of_definition = of_user.clone();
        of_user["metadata"]["name"] = "v2.shop.example".into();
        of_user["spec"]["service"] = json!({"name": "a", "namespace": "b"});
        existing.extend([of_definition, of_user]);
        assert_eq!(plan(&kinds, &existing, "now"), [Action::Delete(path("v1.shop.example"))]);
    }
}
