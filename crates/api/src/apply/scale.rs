//! Who owns the replicas of an object as its scale shows it, and back: a scale has one field that can be owned.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::managed::{Entry, read_entries, written};
use super::{FieldSet, PathElement};

const REPLICAS: &[&str] = &["spec.replicas"];

fn elements(path: &[String]) -> Vec<PathElement> {
    path.iter().map(|name| PathElement::Field(name.clone())).collect()
}

/// The `managedFields` of a scale: of those who own the replicas, which are where `path` says.
pub fn to_scale(object: &Value, path: &[String], api_version: &str) -> Value {
    let path = elements(path);
    let owners =
        read_entries(object).unwrap_or_default().into_iter().filter(|entry| entry.fields.contains(&path));
    let scale =
        |entry| Entry { api_version: api_version.to_owned(), fields: FieldSet::of(REPLICAS), ..entry };
    written(owners.map(scale).collect())
}

/// The `managedFields` of the object that `scale` is of. Whoever updated the replicas in the object's version is not known
/// again in that of the scale: the replicas are taken from the one and given to the other, who has no time.
pub fn to_parent(object: &Value, scale: &Value, path: &[String], api_version: &str) -> Value {
    let path = elements(path);
    let mut replicas = FieldSet::new();
    replicas.insert(&path);
    let mut scales = read_entries(scale).unwrap_or_default();
    let parents = read_entries(object).unwrap_or_default();
    let times: HashMap<String, Option<String>> =
        parents.iter().map(|parent| (parent.identity(), parent.time.clone())).collect();
    for scale in &mut scales {
        scale.time = times.get(&scale.identity()).cloned().flatten();
    }
    let mut known: HashSet<String> = scales.iter().map(Entry::identity).collect();
    let mut out = Vec::new();
    for mut parent in parents {
        if parent.fields.contains(&path) && !known.remove(&parent.identity()) {
            parent.fields = parent.fields.without(&replicas);
        }
        out.push(parent);
    }
    // Those that no parent has: what both have stays as the parent has it.
    scales.retain(|scale| known.contains(&scale.identity()));
    let applied = out.iter().enumerate().filter(|(_, entry)| entry.apply);
    let mut applied: HashMap<String, usize> = applied.map(|(at, entry)| (entry.identity(), at)).collect();
    let owners =
        scales.into_iter().filter(|scale| !scale.fields.intersection(&FieldSet::of(REPLICAS)).is_empty());
    for scale in owners {
        let given = Entry { api_version: api_version.to_owned(), fields: replicas.clone(), ..scale };
        match applied.get(&given.identity()) {
            Some(at) => out[*at] = given,
            None => {
                if given.apply {
                    applied.insert(given.identity(), out.len());
                }
                out.push(given);
            }
        }
    }
    written(out)
}
