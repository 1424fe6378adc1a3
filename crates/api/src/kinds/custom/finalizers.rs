//! Finalizers whose names may be another's as well: whoever adds one to a custom resource is warned.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::kinds::names;
use crate::meta;

/// Those that everybody knows.
const STANDARD: &[&str] = &["foregroundDeletion", "kubernetes", "orphan"];
const FIELD: &str = "metadata.finalizers";

pub fn warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let held: Vec<&str> = old.map(meta::finalizers).unwrap_or_default();
    let added: BTreeSet<&str> =
        meta::finalizers(object).into_iter().filter(|name| !held.contains(name)).collect();
    added.into_iter().flat_map(of).collect()
}

fn of(name: &str) -> Vec<String> {
    let mut told: Vec<String> =
        names::key_faults(name).into_iter().map(|fault| format!("{FIELD}: {name:?}: {fault}")).collect();
    if !name.contains('/') && !STANDARD.contains(&name) {
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        told.push(format!(
            "{FIELD}: {name:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    told
}
