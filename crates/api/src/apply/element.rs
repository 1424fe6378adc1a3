//! How a list's elements are named in paths, and where in a schema a value's members are.

use serde_json::Value;

use super::PathElement;
use crate::schema::{List, ListKind, Node};

/// How ownership sees a value.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    /// Owned as one: scalars, atomic lists and maps.
    Leaf,
    Object,
    List(Node<'a>, &'a List),
}

/// Without a schema objects are granular and lists atomic.
pub(super) fn kind<'a>(node: Option<Node<'a>>, value: &Value) -> Kind<'a> {
    match (value, node) {
        (Value::Object(_), Some(node)) if node.is_atomic() => Kind::Leaf,
        (Value::Object(_), _) => Kind::Object,
        (Value::Array(_), Some(node)) => match node.list() {
            Some(list) if !node.is_atomic() => Kind::List(node, list),
            _ => Kind::Leaf,
        },
        _ => Kind::Leaf,
    }
}

/// The type of an object's member, and whether the schema names it as a field rather than as a map's entry.
pub(super) fn member<'a>(node: Option<Node<'a>>, name: &str) -> (Option<Node<'a>>, bool) {
    let declared = node.is_some_and(|node| node.field(name).is_some());
    (node.and_then(|node| node.member(name)), declared)
}

/// The path element of a list's element; an error names the key it lacks.
pub(super) fn of_item(node: Node<'_>, list: &List, item: &Value) -> Result<PathElement, String> {
    let ListKind::Map(keys) = &list.kind else {
        return match item {
            Value::Object(_) | Value::Array(_) => {
                Err("associative list without keys has an element that's not a scalar".into())
            }
            scalar => {
                let mut out = Vec::with_capacity(32);
                json(&mut out, scalar);
                Ok(PathElement::Value(text(out)))
            }
        };
    };
    let Value::Object(map) = item else {
        return Err("associative list with keys may not have non-object elements".into());
    };
    let item_node = node.at(&list.item);
    let mut key: Vec<(&str, &Value)> = Vec::with_capacity(keys.len());
    for name in keys {
        let default = || item_node.field(name).and_then(|field| field.default.as_ref());
        match map.get(&**name).filter(|value| !value.is_null()).or_else(default) {
            Some(value) => key.push((name, value)),
            // A key of several may be absent; together they still tell elements apart.
            None if keys.len() > 1 => {}
            None => {
                let text = "associative list with keys has an element that omits key field";
                return Err(format!("{text} {name:?} (and doesn't have default value)"));
            }
        }
    }
    // As an object is written, without making one.
    key.sort_by_key(|(name, _)| *name);
    key.dedup_by_key(|(name, _)| *name);
    let mut out = Vec::with_capacity(64);
    for (name, value) in key {
        out.push(if out.is_empty() { b'{' } else { b',' });
        json(&mut out, name);
        out.push(b':');
        json(&mut out, value);
    }
    out.extend_from_slice(if out.is_empty() { b"{}" } else { b"}" });
    Ok(PathElement::Key(text(out)))
}

fn json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("JSON is written to memory");
}

fn text(json: Vec<u8>) -> String {
    String::from_utf8(json).expect("JSON is UTF-8")
}
