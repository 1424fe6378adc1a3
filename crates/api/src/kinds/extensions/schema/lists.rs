//! How lists and maps are merged: what may be said of that, and by which fields the elements of a list are known.

use std::collections::HashSet;

use serde_json::Value;

use super::{inner, is_set, list, text};
use crate::status::FieldError;

const MAP_TYPE: &str = "x-kubernetes-map-type";
const LIST_TYPE: &str = "x-kubernetes-list-type";
const KEYS: &str = "x-kubernetes-list-map-keys";

pub fn faults(schema: &Value, field: &str, found: &mut Vec<FieldError>) {
    let own = text(schema, "type");
    of_type(schema, field, (MAP_TYPE, "object", &["atomic", "granular"]), found);
    let map_type = schema.get(MAP_TYPE).and_then(Value::as_str);
    if let Some(unknown) = map_type.filter(|kind| !["atomic", "granular"].contains(kind)) {
        found.push(FieldError::not_supported(
            format!("{field}.{MAP_TYPE}"),
            unknown,
            &["atomic", "granular"],
        ));
    }
    let list_type = schema.get(LIST_TYPE).and_then(Value::as_str);
    of_type(schema, field, (LIST_TYPE, "array", &[]), found);
    if own == "array" && list_type == Some("set") {
        set(schema, field, found);
    }
    if let Some(unknown) = list_type.filter(|kind| !["atomic", "set", "map"].contains(kind)) {
        let known = ["atomic", "set", "map"];
        found.push(FieldError::not_supported(format!("{field}.{LIST_TYPE}"), unknown, &known));
    }
    if !list(schema, KEYS).is_empty() && list_type != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        let at = format!("{field}.{LIST_TYPE}");
        found.push(match list_type {
            None => FieldError::required(at, detail),
            Some(other) => FieldError::invalid(at, other, detail),
        });
    }
    if list_type == Some("map") {
        map(schema, field, found);
    }
    if let (Some(kind @ ("set" | "map")), Some(items)) = (list_type, inner(schema, "items")) {
        told_apart(schema, items, kind, field, found);
    }
}

/// A type of merging is of values of one type.
fn of_type(
    schema: &Value,
    field: &str,
    (key, wanted, _): (&str, &str, &[&str]),
    found: &mut Vec<FieldError>,
) {
    let own = text(schema, "type");
    if schema.get(key).is_none() || own == wanted {
        return;
    }
    let (at, detail) = (format!("{field}.type"), format!("must be {wanted} if {key} is specified"));
    found.push(match own {
        "" => FieldError::required(at, detail),
        own => FieldError::invalid(at, own, detail),
    });
}

/// The elements of a set are each a whole.
fn set(schema: &Value, field: &str, found: &mut Vec<FieldError>) {
    let Some(items) = inner(schema, "items") else { return };
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let list_type = items.get(LIST_TYPE).cloned().unwrap_or_default();
    match text(items, "type") {
        "array" if !matches!(list_type.as_str(), None | Some("atomic")) => {
            found.push(FieldError::invalid(format!("{field}.items.{LIST_TYPE}"), list_type, detail));
        }
        // The value told is that of the list type, in the original as well.
        "object" if text(items, MAP_TYPE) != "atomic" => {
            found.push(FieldError::invalid(format!("{field}.items.{MAP_TYPE}"), list_type, detail));
        }
        _ => {}
    }
}

/// A list of objects that are known by some of their fields.
fn map(schema: &Value, field: &str, found: &mut Vec<FieldError>) {
    let keys = list(schema, KEYS);
    let at = format!("{field}.{KEYS}");
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        found.push(FieldError::required(at.as_str(), detail));
    }
    let Some(given) = schema.get("items") else {
        let detail = "must have a schema if x-kubernetes-list-type is map";
        return found.push(FieldError::required(format!("{field}.items"), detail));
    };
    let Some(items) = inner(schema, "items") else {
        let detail = "must only have a single schema if x-kubernetes-list-type is map";
        return found.push(FieldError::invalid(format!("{field}.items"), given.clone(), detail));
    };
    let own = text(items, "type");
    if own != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        return found.push(FieldError::invalid(format!("{field}.items.type"), own, detail));
    }
    let mut seen = HashSet::new();
    for key in keys.iter().filter_map(Value::as_str) {
        match items.get("properties").and_then(|properties| properties.get(key)) {
            Some(property) if matches!(text(property, "type"), "array" | "object") => {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                found.push(FieldError::invalid(format!("{field}.items.properties[{key}].type"), own, detail));
            }
            Some(_) => {}
            None => {
                let detail = "entries must all be names of item properties";
                found.push(FieldError::invalid(at.as_str(), keys.to_vec(), detail));
            }
        }
        if !seen.insert(key) {
            let detail = "must not contain duplicate entries";
            found.push(FieldError::invalid(at.as_str(), keys.to_vec(), detail));
        }
    }
}

/// Elements that are told apart are there, and so are the fields that tell them apart.
fn told_apart(schema: &Value, items: &Value, kind: &str, field: &str, found: &mut Vec<FieldError>) {
    if is_set(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        found.push(FieldError::forbidden(format!("{field}.items.nullable"), detail));
    }
    let required: HashSet<&str> = list(items, "required").iter().filter_map(Value::as_str).collect();
    for key in list(schema, KEYS).iter().filter_map(Value::as_str).filter(|_| kind == "map") {
        let Some(property) = items.get("properties").and_then(|properties| properties.get(key)) else {
            continue;
        };
        let at = format!("{field}.items.properties[{key}]");
        if !required.contains(key) && property.get("default").is_none() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            found.push(FieldError::required(format!("{at}.default"), detail));
        }
        if is_set(property, "nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            found.push(FieldError::forbidden(format!("{at}.nullable"), detail));
        }
    }
}
