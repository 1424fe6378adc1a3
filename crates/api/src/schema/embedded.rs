//! What objects within a custom resource say of themselves: their type and their metadata are as those of every object.

use serde_json::Value;

use super::check::json_kind;
use super::{FieldProblem, Node, OBJECT_META, Schema, Shape, of_model};
use crate::kinds::{Errors, metadata, names};
use crate::meta;
use crate::status::FieldError;

/// What is wrong with the objects in `value`, wherever its schema says that there are some.
pub fn faults(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut found = Vec::new();
    each(schema.node(), value, "", &mut |inner, path| object(inner, path, &mut found));
    found
}

/// What cannot be read as what every object says of itself: the first such fault.
pub fn unreadable(schema: &Schema, value: &Value) -> Option<FieldError> {
    let mut found = Vec::new();
    each(schema.node(), value, "", &mut |object, path| found.extend(misfit(object, path)));
    found.into_iter().next()
}

/// Goes through the objects within a value.
fn each(node: Node<'_>, value: &Value, path: &str, look: &mut dyn FnMut(&Value, &str)) {
    match value {
        Value::Object(map) => {
            if node.rules().is_some_and(|rules| rules.embedded) {
                look(value, path);
            }
            for (name, inner) in map {
                let Some(member) = node.member(name) else { continue };
                let below = match &node.ty.shape {
                    Shape::Map(_) => format!("{path}[{name}]"),
                    _ if path.is_empty() => name.clone(),
                    _ => format!("{path}.{name}"),
                };
                each(member, inner, &below, look);
            }
        }
        Value::Array(items) => {
            let Some(item) = node.item() else { return };
            for (at, inner) in items.iter().enumerate() {
                each(item, inner, &format!("{path}[{at}]"), look);
            }
        }
        _ => {}
    }
}

fn misfit(object: &Value, path: &str) -> Option<FieldError> {
    let at = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
    for field in ["apiVersion", "kind"] {
        if let Some(other) = object.get(field).filter(|value| !value.is_string()) {
            return Some(FieldError::invalid(at(field), other.clone(), "must be a string"));
        }
    }
    let metadata = object.get("metadata")?;
    Some(FieldError::invalid(at("metadata"), metadata.clone(), metadata_fault(metadata)?))
}

/// Why metadata cannot be read.
pub fn metadata_fault(metadata: &Value) -> Option<String> {
    Some(match metadata {
        Value::Null => return None,
        Value::Object(_) => {
            of_model(OBJECT_META)?.check(metadata).into_iter().find_map(|fault| match fault {
                FieldProblem::Type { message } => Some(message),
                _ => None,
            })?
        }
        other => format!("json: cannot unmarshal {} into Go value of type v1.ObjectMeta", json_kind(other)),
    })
}

/// Gives what the objects within a value say of themselves the form that it has everywhere.
pub fn canonicalize(schema: &Schema, value: &mut Value) {
    if let Some(of_itself) = of_model(OBJECT_META) {
        settle(schema.node(), value, &of_itself);
    }
}

fn settle(node: Node<'_>, value: &mut Value, of_itself: &Schema) {
    match value {
        Value::Object(map) => {
            if node.rules().is_some_and(|rules| rules.embedded)
                && let Some(metadata) = map.get_mut("metadata").filter(|metadata| metadata.is_object())
            {
                of_itself.canonicalize(metadata);
            }
            for (name, inner) in map.iter_mut() {
                if let Some(member) = node.member(name) {
                    settle(member, inner, of_itself);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = node.item() else { return };
            items.iter_mut().for_each(|inner| settle(item, inner, of_itself));
        }
        _ => {}
    }
}

fn object(object: &Value, path: &str, found: &mut Vec<FieldError>) {
    let at = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
    for field in ["apiVersion", "kind"] {
        match object.get(field) {
            None => found.push(FieldError::required(at(field), "")),
            Some(Value::String(text)) if text.is_empty() => {
                found.push(FieldError::invalid(at(field), "", "must not be empty"));
            }
            Some(Value::String(text)) => {
                if let Some(fault) = if field == "kind" { kind_fault(text) } else { version_fault(text) } {
                    found.push(FieldError::invalid(at(field), text.as_str(), fault));
                }
            }
            Some(other) => found.push(FieldError::invalid(at(field), other.clone(), "must be a string")),
        }
    }
    if object.get("metadata").is_none_or(|metadata| !metadata.is_object()) {
        return;
    }
    let mut named = object.clone();
    if meta::name(object).is_empty() {
        meta::set(&mut named, "name", "fakename");
    }
    let mut errors = Errors::default();
    let namespaced = !meta::namespace(object).is_empty();
    metadata::check_whole(&named, namespaced, names::Rule::PathSegment, &mut errors);
    if namespaced && let Some(fault) = names::fault(names::Rule::Label, meta::namespace(object)) {
        errors.push(FieldError::invalid("metadata.namespace", meta::namespace(object), fault));
    }
    found.extend(errors.0.into_iter().map(|fault| FieldError { field: at(&fault.field), ..fault }));
}

fn kind_fault(kind: &str) -> Option<String> {
    let fault = names::fault(names::Rule::Label1035, &kind.to_lowercase())?;
    Some(format!("may have mixed case, but should otherwise match: {fault}"))
}

fn version_fault(version: &str) -> Option<String> {
    let parts = version.matches('/').count();
    (parts > 1).then(|| format!("unexpected GroupVersion string: {version}"))
}
