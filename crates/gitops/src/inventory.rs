//! What a Kustomization has applied, as its status keeps it, and what is to be done to get from there to what is
//! wanted. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::types::{Inventory, InventoryEntry};

/// One object by kind and place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl Id {
    pub fn of(object: &Value) -> Self {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let api_version = text("/apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }

    pub fn entry(&self) -> InventoryEntry {
        // Names of RBAC objects may hold colons, which the field separates by.
        let name = self.name.replace(':', "__");
        InventoryEntry {
            id: format!("{}_{name}_{}_{}", self.namespace, self.group, self.kind),
            v: self.version.clone(),
        }
    }

    pub fn parse(entry: &InventoryEntry) -> Option<Self> {
        let (namespace, rest) = entry.id.split_once('_')?;
        let (rest, kind) = rest.rsplit_once('_')?;
        let (name, group) = rest.rsplit_once('_')?;
        Some(Self {
            group: group.to_owned(),
            version: entry.v.clone(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.replace("__", ":"),
        })
    }

    /// `Deployment/shop/web`, as events and conditions name objects.
    pub fn label(&self) -> String {
        match self.namespace.as_str() {
            "" => format!("{}/{}", self.kind, self.name),
            namespace => format!("{}/{namespace}/{}", self.kind, self.name),
        }
    }

    /// The same object in whatever version.
    fn place(&self) -> (&str, &str, &str, &str) {
        (&self.group, &self.kind, &self.namespace, &self.name)
    }
}

pub fn of<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Inventory {
    let entries: BTreeSet<InventoryEntry> = objects.into_iter().map(|o| Id::of(o).entry()).collect();
    Inventory { entries: entries.into_iter().collect() }
}

/// What is in either.
pub fn union(one: &Inventory, other: &Inventory) -> Inventory {
    let entries: BTreeSet<InventoryEntry> = one.entries.iter().chain(&other.entries).cloned().collect();
    Inventory { entries: entries.into_iter().collect() }
}

/// What was applied before and is no longer wanted, in the order of deletion: the reverse of applying.
pub fn stale(before: &Inventory, now: &[Value]) -> Vec<Id> {
    let wanted: BTreeSet<Id> = now.iter().map(Id::of).collect();
    let gone = before.entries.iter().filter_map(Id::parse);
    let mut gone: Vec<Id> = gone.filter(|id| !wanted.iter().any(|w| w.place() == id.place())).collect();
    let rank = |id: &Id| match id.kind.as_str() {
        "Namespace" => 2,
        "CustomResourceDefinition" => 1,
        _ => 0,
    };
    gone.sort_by_key(rank);
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_round_trip_and_what_is_gone_is_found() {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:x_y"}});
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}});
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
        for object in [&role, &map, &space] {
            let id = Id::of(object);
            assert_eq!(Id::parse(&id.entry()), Some(id));
        }
        assert_eq!(Id::of(&map).entry().id, "n_a__ConfigMap");
        let before = of([&role, &map, &space]);
        let labels: Vec<String> = stale(&before, &[role]).iter().map(Id::label).collect();
        assert_eq!(labels, ["ConfigMap/n/a", "Namespace/n"]);
    }
}
