//! Applying a configuration to an object, taking fields out again, and the fields a configuration sets.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::element::{self, Kind};
use super::{FieldSet, PathElement};
use crate::schema::{List, Node, Schema};

/// The fields an applied configuration sets. An error names the list element that cannot be told from others.
pub fn field_set_of(value: &Value, schema: Option<&Schema>) -> Result<FieldSet, String> {
    set_of(schema.map(Schema::node), value, Some(""))
}

/// The same of an object that is there already: of elements that cannot be told apart, the name alone.
pub(super) fn set_with_duplicates(node: Option<Node<'_>>, value: &Value) -> FieldSet {
    set_of(node, value, None).unwrap_or_default()
}

/// Without a path, elements need not be told apart.
fn set_of(node: Option<Node<'_>>, value: &Value, path: Option<&str>) -> Result<FieldSet, String> {
    match (element::kind(node, value), value) {
        (Kind::Object, Value::Object(map)) => {
            let fields = map.iter().map(|(name, inner)| {
                let (member, declared) = element::member(node, name);
                let path = path.map(|path| format!("{path}.{name}"));
                let child = set_of(member, inner, path.as_deref())?;
                let empty_object = inner.as_object().is_some_and(Map::is_empty);
                let leaf = matches!(element::kind(member, inner), Kind::Leaf);
                Ok((PathElement::Field(name.clone()), leaf || empty_object || !declared, child))
            });
            Ok(FieldSet::from_elements(fields.collect::<Result<Vec<_>, String>>()?))
        }
        (Kind::List(node, list), Value::Array(items)) => set_of_items(node, list, items, path),
        _ => Ok(FieldSet::new()),
    }
}

fn set_of_items(
    node: Node<'_>,
    list: &List,
    items: &[Value],
    path: Option<&str>,
) -> Result<FieldSet, String> {
    let mut elements = Vec::with_capacity(items.len());
    let mut places: HashMap<PathElement, usize> = HashMap::with_capacity(items.len());
    for item in items {
        let element = match (element::of_item(node, list, item), path) {
            (Ok(element), _) => element,
            (Err(error), Some(path)) => return Err(format!("{path}: {error}")),
            (Err(_), None) => continue,
        };
        match (places.entry(element.clone()), path) {
            (Entry::Vacant(place), _) => {
                place.insert(elements.len());
                let child = set_of(Some(node.at(&list.item)), item, path)?;
                elements.push((element, true, child));
            }
            // Of several, the name is owned and nothing else.
            (Entry::Occupied(place), None) => elements[*place.get()].2 = FieldSet::new(),
            (Entry::Occupied(_), Some(path)) => {
                let mut only = FieldSet::new();
                only.member(&element);
                let name = only.paths().join("");
                return Err(format!("{path}: duplicate entries for key {name}"));
            }
        }
    }
    Ok(FieldSet::from_elements(elements))
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
            let item_node = Some(node.at(&list.item));
            let names = |items: &[Value]| -> Vec<PathElement> {
                let named = items.iter().zip(0..);
                named
                    .map(|(item, at)| element::of_item(node, list, item).unwrap_or(PathElement::Index(at)))
                    .collect()
            };
            let (own, wanted) = (names(live), names(config));
            let mut by_element: BTreeMap<&PathElement, &Value> = BTreeMap::new();
            for (element, value) in own.iter().zip(live) {
                // Which of several is meant cannot be told: none is merged with.
                by_element.entry(element).and_modify(|held| *held = &Value::Null).or_insert(value);
            }
            let merged = |at: usize| merge(by_element.get(&wanted[at]).copied(), &config[at], item_node);
            let places = order(&own, &wanted).into_iter();
            Value::Array(
                places
                    .map(|place| match place {
                        Place::Live(at) => live[at].clone(),
                        Place::Wanted(at) => merged(at),
                    })
                    .collect(),
            )
        }
        _ => config.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => other.is_null(),
    }
}

/// Where an element of a merged list comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Live(usize),
    Wanted(usize),
}

/// Where the elements of a merged list stand: those that are listed in the order in which they are, the live others as soon
/// as nothing that is listed, and was there before, must come first.
fn order(live: &[PathElement], wanted: &[PathElement]) -> Vec<Place> {
    let listed: BTreeSet<&PathElement> = wanted.iter().collect();
    let was_there: BTreeSet<&PathElement> = live.iter().collect();
    let mut shared = wanted.iter().filter(|element| was_there.contains(element)).peekable();
    let mut placed = BTreeSet::new();
    let mut left = live.iter().enumerate().peekable();
    let mut out = Vec::with_capacity(live.len() + wanted.len());
    for (place, element) in wanted.iter().enumerate() {
        while let Some((at, first)) = left.peek().copied() {
            if !listed.contains(first) {
                out.push(Place::Live(at));
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
        out.push(Place::Wanted(place));
        placed.insert(element);
        shared.next_if(|next| *next == element);
    }
    out.extend(left.filter(|(_, element)| !listed.contains(element)).map(|(at, _)| Place::Live(at)));
    out
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
            // Of several with one name, those that are not listed stay.
            ("aab", "b", "aab"),
            ("aab", "a", "ab"),
        ] {
            let (live, wanted) = (elements(live), elements(wanted));
            let places = order(&live, &wanted).into_iter();
            let found = places.map(|place| match place {
                Place::Live(at) => live[at].clone(),
                Place::Wanted(at) => wanted[at].clone(),
            });
            assert_eq!(found.collect::<Vec<_>>(), elements(expected));
        }
    }
}
