//! Who owns the replicas of an object as its scale shows it, and back: a scale has one field that can be owned.

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
    let times: Vec<_> = scales
        .iter()
        .map(|scale| parents.iter().find(|parent| parent.is_of(scale)).and_then(|parent| parent.time.clone()))
        .collect();
    for (scale, time) in scales.iter_mut().zip(times) {
        scale.time = time;
    }
    let mut out = Vec::new();
    for mut parent in parents {
        if parent.fields.contains(&path) {
            match scales.iter().position(|scale| scale.is_of(&parent)) {
                Some(at) => drop(scales.remove(at)),
                None => parent.fields = parent.fields.without(&replicas),
            }
        }
        out.push(parent);
    }
    let owners =
        scales.into_iter().filter(|scale| !scale.fields.intersection(&FieldSet::of(REPLICAS)).is_empty());
    for scale in owners {
        let given = Entry { api_version: api_version.to_owned(), fields: replicas.clone(), ..scale };
        match out.iter_mut().find(|entry| entry.apply && entry.is_of(&given)) {
            Some(held) => *held = given,
            None => out.push(given),
        }
    }
    written(out)
}
