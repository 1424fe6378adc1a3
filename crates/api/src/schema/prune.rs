//! Dropping what a schema does not name, and filling in what it gives a default.

use serde_json::Value;

use super::{Node, Shape};

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

/// Empties the objects in it, in whatever lists they stand.
fn forget_fields(value: &mut Value) {
    match value {
        Value::Object(map) => map.clear(),
        Value::Array(items) => items.iter_mut().for_each(forget_fields),
        _ => {}
    }
}

pub(super) fn apply_defaults(node: Node<'_>, value: &mut Value) {
    match (&node.ty.shape, value) {
        (Shape::Message(index), Value::Object(map)) => {
            let message = node.table.message(*index);
            for field in &message.fields {
                let Some(default) = &field.default else { continue };
                let nullable = node.at(&field.ty).rules().is_some_and(|rules| rules.nullable);
                match map.get(&*field.name) {
                    None => {}
                    Some(Value::Null) if !nullable => {}
                    Some(_) => continue,
                }
                map.insert(field.name.to_string(), default.clone());
            }
            for (name, inner) in map.iter_mut() {
                if let Some(field) = message.field(name) {
                    apply_defaults(node.at(&field.ty), inner);
                }
            }
        }
        (Shape::Map(member), Value::Object(map)) => {
            map.values_mut().for_each(|inner| apply_defaults(node.at(member), inner));
        }
        (Shape::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|item| apply_defaults(node.at(&list.item), item));
        }
        _ => {}
    }
}
