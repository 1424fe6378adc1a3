//! Dropping what a schema does not name, and filling in what it gives a default.

use serde_json::Value;

use super::{Node, Shape};
use crate::patch::size_bytes;

pub(super) fn prune(node: Node<'_>, value: &mut Value) {
    match (&node.ty.shape, value) {
        (Shape::Message(index), Value::Object(map)) => {
            let message = node.table.message(*index);
            if !message.open {
                map.retain(|name, _| message.field(name).is_some());
            }
            for (name, inner) in map.iter_mut() {
                if let Some(field) = message.field(name) {
                    prune(node.at(&field.ty), inner);
                }
            }
        }
        (Shape::Map(member), Value::Object(map)) => {
            map.values_mut().for_each(|inner| prune(node.at(member), inner));
        }
        (Shape::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|item| prune(node.at(&list.item), item));
        }
        // What else is wrong with it is said later.
        (_, value) if node.is_misplaced(value) => forget_fields(value),
        _ => {}
    }
}

/// Takes away what is null where it may not be, unless there is a default for it.
pub(super) fn prune_nulls(node: Node<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, inner| {
                let default = node.field(name).is_some_and(|field| field.default.is_some());
                let nullable = |node: Node<'_>| node.rules().is_none_or(|rules| rules.nullable);
                !inner.is_null() || default || node.member(name).is_none_or(nullable)
            });
            for (name, inner) in map.iter_mut() {
                if let Some(member) = node.member(name) {
                    prune_nulls(member, inner);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = node.item() else { return };
            items.iter_mut().for_each(|inner| prune_nulls(item, inner));
        }
        _ => {}
    }
}

/// Empties the objects in it, in whatever lists they stand.
fn forget_fields(value: &mut Value) {
    match value {
        Value::Object(map) => map.clear(),
        Value::Array(items) => items.iter_mut().for_each(forget_fields),
        _ => {}
    }
}

/// What defaults may add to one object, about, as JSON: more than any object may take that is stored. A large default for
/// each of many elements would fill the memory; past this the rest is left out, and the object refused for its size.
const MAX_ADDED_BYTES: usize = 8 << 20;

pub(super) fn apply_defaults(node: Node<'_>, value: &mut Value) {
    fill(node, value, &mut { MAX_ADDED_BYTES });
}

fn fill(node: Node<'_>, value: &mut Value, left: &mut usize) {
    match (&node.ty.shape, value) {
        (Shape::Message(index), Value::Object(map)) => {
            let message = node.table.message(*index);
            for field in message.defaulted() {
                let Some(default) = &field.default else { continue };
                let nullable = node.at(&field.ty).rules().is_some_and(|rules| rules.nullable);
                match map.get(&*field.name) {
                    None => {}
                    Some(Value::Null) if !nullable => {}
                    Some(_) => continue,
                }
                let bytes = field.name.len() + size_bytes(default);
                if bytes > *left {
                    *left = 0;
                    break;
                }
                *left -= bytes;
                map.insert(field.name.to_string(), default.clone());
            }
            for (name, inner) in map.iter_mut() {
                if let Some(field) = message.field(name) {
                    fill(node.at(&field.ty), inner, left);
                }
            }
        }
        (Shape::Map(member), Value::Object(map)) => {
            map.values_mut().for_each(|inner| fill(node.at(member), inner, left));
        }
        (Shape::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|item| fill(node.at(&list.item), item, left));
        }
        _ => {}
    }
}
