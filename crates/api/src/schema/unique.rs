//! Elements of sets and maps are there once.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{List, ListKind, Node, Schema, Shape};
use crate::status::FieldError;

/// The elements that are there twice. Whoever had some may keep them.
pub fn faults(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let found = of(schema, value);
    match old {
        Some(old) if !found.is_empty() && !of(schema, old).is_empty() => Vec::new(),
        _ => found,
    }
}

fn of(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut found = Vec::new();
    walk(schema.node(), value, "", &mut found);
    found
}

fn walk(node: Node<'_>, value: &Value, path: &str, found: &mut Vec<FieldError>) {
    match (value, &node.ty.shape) {
        (Value::Object(map), _) => {
            for (name, inner) in map {
                let Some(member) = node.member(name) else { continue };
                let below = match &node.ty.shape {
                    Shape::Map(_) => format!("{path}[{name}]"),
                    _ if path.is_empty() => name.clone(),
                    _ => format!("{path}.{name}"),
                };
                walk(member, inner, &below, found);
            }
        }
        (Value::Array(items), Shape::List(list)) => {
            elements(list, items, path, found);
            for (at, item) in items.iter().enumerate() {
                walk(node.at(&list.item), item, &format!("{path}[{at}]"), found);
            }
        }
        _ => {}
    }
}

fn elements(list: &List, items: &[Value], path: &str, found: &mut Vec<FieldError>) {
    if matches!(list.kind, ListKind::Map(_))
        && let Some(at) = items.iter().position(|item| !(item.is_object() || item.is_null()))
    {
        let detail = "must be an object for an array of list-type map";
        return found.push(FieldError::invalid(format!("{path}[{at}]"), items[at].clone(), detail));
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (at, item) in items.iter().enumerate() {
        let key = match &list.kind {
            ListKind::Atomic => return,
            ListKind::Set => item.clone(),
            ListKind::Map(keys) => keyed(keys, item),
        };
        let times = seen.entry(key.to_string()).or_default();
        *times += 1;
        // However often it is there, it is told once.
        if *times == 2 {
            found.push(FieldError::duplicate(format!("{path}[{at}]"), key));
        }
    }
}

fn keyed(keys: &[Box<str>], item: &Value) -> Value {
    let held = |key: &str| Some((key.to_owned(), item.get(key)?.clone()));
    Value::Object(keys.iter().filter_map(|key| held(key)).collect::<Map<_, _>>())
}

/// The fields by which an element of a list is known, if it is.
pub(super) fn key_of(list: &List, item: &Value) -> Option<Value> {
    let ListKind::Map(keys) = &list.kind else { return None };
    item.as_object()?;
    Some(keyed(keys, item)).filter(|key| key.as_object().is_some_and(|map| !map.is_empty()))
}
