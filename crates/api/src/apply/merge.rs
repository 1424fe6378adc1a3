//! Applying a configuration to an object, taking fields out again, and the fields a configuration sets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::{self, Kind};
use super::{FieldSet, PathElement};
use crate::schema::{List, ListKind, Node, Schema};

/// The fields an applied configuration sets. An error names the list element that cannot be told from others.
pub fn field_set_of(value: &Value, schema: Option<&Schema>) -> Result<FieldSet, String> {
    set_of(schema.map(Schema::node), value, "")
}

fn set_of(node: Option<Node<'_>>, value: &Value, path: &str) -> Result<FieldSet, String> {
    let mut set = FieldSet::new();
    match (element::kind(node, value), value) {
        (Kind::Object, Value::Object(map)) => {
            for (name, inner) in map {
                let (member, declared) = element::member(node, name);
                let element = PathElement::Field(name.clone());
                let child = set_of(member, inner, &format!("{path}.{name}"))?;
                let empty_object = inner.as_object().is_some_and(Map::is_empty);
                let leaf = matches!(element::kind(member, inner), Kind::Leaf);
                if leaf || empty_object || !declared {
                    set.member(element.clone());
                }
                set.put_child(element, child);
            }
        }
        (Kind::List(node, list), Value::Array(items)) => {
            for item in items {
                let element =
                    element::of_item(node, list, item).map_err(|error| format!("{path}: {error}"))?;
                if set.touches(&element) {
                    let mut only = FieldSet::new();
                    only.member(element);
                    let name = only.paths().join("");
                    return Err(format!("{path}: duplicate entries for key {name}"));
                }
                let child = set_of(Some(node.at(&list.item)), item, path)?;
                set.member(element.clone());
                set.put_child(element, child);
            }
        }
        _ => {}
    }
    Ok(set)
}

/// As applying does, with no regard to who owns what: the live object with the configuration's fields set.
pub fn merged(live: &Value, config: &Value, schema: Option<&Schema>) -> Value {
    merge(Some(live), config, schema.map(Schema::node))
}

/// Where a configuration would replace a whole list or object, fields that it does not name included.
pub fn atomics(config: &Value, schema: &Schema) -> Vec<String> {
    fn walk(node: Node<'_>, value: &Value, path: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if node.is_atomic() {
                    out.push(path.to_owned());
                }
                for (name, inner) in map {
                    if let Some(member) = node.member(name) {
                        walk(member, inner, &format!("{path}.{name}"), out);
                    }
                }
            }
            Value::Array(items) => {
                if node.is_atomic() {
                    out.push(path.to_owned());
                }
                for (index, item) in items.iter().enumerate() {
                    if let Some(inner) = node.item() {
                        walk(inner, item, &format!("{path}[{index}]"), out);
                    }
                }
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk(schema.node(), config, "", &mut out);
    out
}

/// The live object with the configuration's fields set.
pub(super) fn merge(live: Option<&Value>, config: &Value, node: Option<Node<'_>>) -> Value {
    let Some(live) = live else { return config.clone() };
    // Of what is granular, nothing at all asks for nothing to be changed; a scalar becomes nothing.
    if config.is_null()
        && node.is_some()
        && !is_empty(live)
        && !matches!(element::kind(node, live), Kind::Leaf)
    {
        return live.clone();
    }
    match (element::kind(node, config), live, config) {
        (Kind::Object, Value::Object(live), Value::Object(config)) => {
            let kept = live.iter().filter(|(name, _)| !config.contains_key(*name));
            let mut out: Map<String, Value> =
                kept.map(|(name, inner)| (name.clone(), inner.clone())).collect();
            for (name, inner) in config {
                let (member, _) = element::member(node, name);
                let merged = merge(live.get(name), inner, member);
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Kind::List(node, list), Value::Array(live), Value::Array(config)) => {
            let own = element::items(node, list, live);
            let wanted = element::items(node, list, config);
            let by_element: BTreeMap<&PathElement, &Value> =
                own.iter().map(|(element, value)| (element, *value)).collect();
            let listed: BTreeSet<&PathElement> = wanted.iter().map(|(element, _)| element).collect();
            let item_node = Some(node.at(&list.item));
            let mut items: Vec<(PathElement, Value)> = Vec::new();
            for (element, value) in &wanted {
                items.push((element.clone(), merge(by_element.get(element).copied(), value, item_node)));
            }
            let others = own.iter().filter(|(element, _)| !listed.contains(element));
            items.extend(others.map(|(element, value)| (element.clone(), (*value).clone())));
            let names =
                |items: &[(PathElement, &Value)]| items.iter().map(|(e, _)| e.clone()).collect::<Vec<_>>();
            let order = order(&names(&own), &names(&wanted));
            let mut items: BTreeMap<PathElement, Value> = items.into_iter().collect();
            Value::Array(order.iter().filter_map(|element| items.remove(element)).collect())
        }
        _ => config.clone(),
    }
}

/// The fields by which elements are told apart.
fn keys_of(list: &List) -> FieldSet {
    match &list.kind {
        ListKind::Map(keys) => FieldSet::of(&keys.iter().map(|key| &**key).collect::<Vec<_>>()),
        ListKind::Atomic | ListKind::Set => FieldSet::new(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => other.is_null(),
    }
}

/// Where the elements of a merged list stand: those that are listed in the order in which they are, the live others as soon
/// as nothing that is listed, and was there before, must come first.
fn order(live: &[PathElement], wanted: &[PathElement]) -> Vec<PathElement> {
    let listed: BTreeSet<&PathElement> = wanted.iter().collect();
    let was_there: BTreeSet<&PathElement> = live.iter().collect();
    let mut shared = wanted.iter().filter(|element| was_there.contains(element)).peekable();
    let mut placed = BTreeSet::new();
    let mut left = live.iter().peekable();
    let mut out = Vec::with_capacity(live.len() + wanted.len());
    for element in wanted {
        while let Some(first) = left.peek().copied() {
            if !listed.contains(first) {
                out.push(first.clone());
            } else if first != element && shared.peek().is_none_or(|next| *next == first) {
                // The next one of both lists comes after this new one, or there is none any more.
                if placed.contains(first) {
                    left.next();
                }
                break;
            }
            left.next();
            if first == element {
                break;
            }
        }
        out.push(element.clone());
        placed.insert(element);
        shared.next_if(|next| *next == element);
    }
    out.extend(left.filter(|element| !listed.contains(element)).cloned());
    out
}

/// Takes out every path of `last` that `owned` neither holds nor passes through, with all that is below it.
pub(super) fn remove_unowned(
    value: &mut Value,
    last: &FieldSet,
    owned: Option<&FieldSet>,
    node: Option<Node<'_>>,
) {
    let kept = |element: &PathElement| owned.is_some_and(|owned| owned.touches(element));
    let kind = element::kind(node, value);
    match (kind, value) {
        (Kind::Object, Value::Object(map)) => {
            for element in last.elements() {
                let PathElement::Field(name) = element else { continue };
                if !kept(element) {
                    map.remove(name);
                } else if let (Some(inner), Some(last)) = (map.get_mut(name), last.child(element)) {
                    let (member, _) = element::member(node, name);
                    remove_unowned(inner, last, owned.and_then(|owned| owned.child(element)), member);
                }
            }
        }
        (Kind::List(node, list), Value::Array(items)) => {
            let mut index = 0;
            items.retain_mut(|item| {
                let element = element::of_item(node, list, item).unwrap_or(PathElement::Index(index));
                index += 1;
                if !last.touches(&element) {
                    return true;
                }
                // Who owns a field of an element does not own the element.
                let own = std::slice::from_ref(&element);
                if last.contains(own) && !owned.is_some_and(|owned| owned.contains(own)) {
                    return false;
                }
                if let Some(last) = last.child(&element) {
                    // What an element is known by stays as long as the element does.
                    let last = &last.clone().without(&keys_of(list));
                    let owned = owned.and_then(|owned| owned.child(&element));
                    remove_unowned(item, last, owned, Some(node.at(&list.item)));
                }
                true
            });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_keeps_its_place_as_well_as_it_can() {
        let elements = |text: &str| -> Vec<PathElement> {
            text.chars().map(|c| PathElement::Field(c.to_string())).collect()
        };
        for (live, wanted, expected) in [
            ("", "ab", "ab"),
            ("ab", "", "ab"),
            ("a", "b", "ab"),
            ("abc", "cb", "acb"),
            ("abc", "xb", "axbc"),
            ("ab", "xa", "xab"),
            ("abcd", "dxa", "bcdxa"),
            ("ab", "ba", "ba"),
            ("abc", "ca", "bca"),
        ] {
            assert_eq!(order(&elements(live), &elements(wanted)), elements(expected), "{live} with {wanted}");
        }
    }
}
