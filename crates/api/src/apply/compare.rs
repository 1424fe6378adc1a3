//! Which fields differ between two objects: added, modified, removed.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::element::{self, Kind};
use super::{FieldSet, PathElement};
use crate::schema::{List, Node, Schema};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Comparison {
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

pub fn compare(old: &Value, new: &Value, schema: Option<&Schema>) -> Comparison {
    let mut walk = Walk { path: Vec::new(), out: Comparison::default() };
    walk.node(schema.map(Schema::node), Some(old), Some(new));
    walk.out
}

struct Walk {
    path: Vec<PathElement>,
    out: Comparison,
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

/// The elements of a list by name, in order; those that have none are not looked at.
struct Items<'v>(Vec<(PathElement, &'v Value)>);

impl<'v> Items<'v> {
    fn new(node: Node<'_>, list: &List, value: Option<&'v Value>) -> Self {
        let items = value.and_then(Value::as_array).into_iter().flatten();
        let named = items.filter_map(|item| Some((element::of_item(node, list, item).ok()?, item)));
        let mut named: Vec<_> = named.collect();
        if !named.is_sorted_by(|a, b| a.0 <= b.0) {
            // Those of one name stay in their order.
            named.sort_by(|a, b| a.0.cmp(&b.0));
        }
        Self(named)
    }

    /// Each name with all that have it.
    fn groups(&self) -> impl Iterator<Item = (&PathElement, &[(PathElement, &'v Value)])> {
        self.0.chunk_by(|a, b| a.0 == b.0).map(|group| (&group[0].0, group))
    }
}

/// Every path below a value that was not there before. Most of a new object is such values.
fn below(node: Option<Node<'_>>, new: &Value) -> FieldSet {
    match element::kind(node, new) {
        Kind::Leaf => FieldSet::new(),
        Kind::Object => {
            let fields = new.as_object().into_iter().flatten();
            FieldSet::from_elements(fields.map(|(name, value)| {
                let below = below(element::member(node, name).0, value);
                (PathElement::Field(name.clone()), true, below)
            }))
        }
        Kind::List(node, list) => {
            let item_node = Some(node.at(&list.item));
            let items = Items::new(node, list, Some(new));
            FieldSet::from_elements(items.groups().map(|(element, items)| match items {
                [(_, item)] => (element.clone(), true, below(item_node, item)),
                // Of several, the name is owned and nothing else.
                _ => (element.clone(), true, FieldSet::new()),
            }))
        }
    }
}

/// The keys of both maps, in order.
fn keys_of_both<'k, K: Ord, V, W>(
    old: impl Iterator<Item = (&'k K, V)>,
    new: impl Iterator<Item = (&'k K, W)>,
) -> Vec<(&'k K, Option<V>, Option<W>)> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    let mut out = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some((left, _)), Some((right, _))) => left.cmp(right),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return out,
        };
        match order {
            Ordering::Less => out.extend(old.next().map(|(key, value)| (key, Some(value), None))),
            Ordering::Greater => out.extend(new.next().map(|(key, value)| (key, None, Some(value)))),
            Ordering::Equal => {
                let both = old.next().zip(new.next());
                out.extend(both.map(|((key, old), (_, new))| (key, Some(old), Some(new))));
            }
        }
    }
}

impl Walk {
    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, Some(_)) => self.out.added.insert(&self.path),
            (Some(_), None) => self.out.removed.insert(&self.path),
            (Some(old), Some(new)) if old != new => self.out.modified.insert(&self.path),
            _ => {}
        }
    }

    fn step(
        &mut self,
        element: PathElement,
        node: Option<Node<'_>>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) {
        if let (None, Some(new)) = (old, new) {
            let below = below(node, new);
            return self.out.added.at(&self.path).put(element, true, below);
        }
        self.path.push(element);
        self.node(node, old, new);
        // A whole that came or went is itself a path, also where it is not a leaf.
        if new.is_none() {
            self.out.removed.insert(&self.path);
        }
        self.path.pop();
    }

    fn node(&mut self, node: Option<Node<'_>>, old: Option<&Value>, new: Option<&Value>) {
        let Some(shape) = new.filter(|new| !new.is_null()).or(old) else { return };
        let fits = |value: Option<&Value>| {
            value.is_none_or(|v| {
                v.is_null() || (v.is_object() == shape.is_object() && v.is_array() == shape.is_array())
            })
        };
        if (is_empty(old) && is_empty(new)) || !fits(old) || !fits(new) {
            return self.leaf(old, new);
        }
        match element::kind(node, shape) {
            Kind::Leaf => self.leaf(old, new),
            Kind::Object => {
                let empty = Map::new();
                let old = old.and_then(Value::as_object).unwrap_or(&empty);
                let new = new.and_then(Value::as_object).unwrap_or(&empty);
                // In order, so that each path is the last of its set when it is put there.
                for (name, old, new) in keys_of_both(old.iter(), new.iter()) {
                    let (member, _) = element::member(node, name);
                    self.step(PathElement::Field(name.clone()), member, old, new);
                }
            }
            Kind::List(node, list) => {
                let (old, new) = (Items::new(node, list, old), Items::new(node, list, new));
                for (element, before, after) in keys_of_both(old.groups(), new.groups()) {
                    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
                    self.elements(element, node.at(&list.item), before, after);
                }
            }
        }
    }

    /// Elements of one name. Of several, the name is owned and nothing else.
    fn elements<'v>(
        &mut self,
        element: &PathElement,
        node: Node<'_>,
        before: &[(PathElement, &'v Value)],
        after: &[(PathElement, &'v Value)],
    ) {
        let first_of = |items: &[(PathElement, &'v Value)]| items.first().map(|(_, item)| *item);
        let (first, then) = (first_of(before), first_of(after));
        let at = [self.path.as_slice(), std::slice::from_ref(element)].concat();
        match (before.len() > 1, after.len() > 1) {
            (false, false) => self.step(element.clone(), Some(node), first, then),
            (true, true) if before != after => self.out.modified.insert(&at),
            (true, true) => {}
            (true, false) => {
                self.step(element.clone(), Some(node), None, then);
                self.out.removed.insert(&at);
            }
            (false, true) => {
                self.step(element.clone(), Some(node), first, None);
                self.out.added.insert(&at);
            }
        }
    }
}
