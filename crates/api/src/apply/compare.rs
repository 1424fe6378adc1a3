//! Which fields differ between two objects: added, modified, removed.

use serde_json::Value;

use super::element::{self, Kind};
use super::{FieldSet, PathElement};
use crate::schema::{Node, Schema};

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

impl Walk {
    fn leaf(&mut self, node: Option<Node<'_>>, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, Some(_)) => self.out.added.insert(&self.path),
            (Some(_), None) => self.out.removed.insert(&self.path),
            (Some(old), Some(new)) if !element::same(node, old, new) => self.out.modified.insert(&self.path),
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
        self.path.push(element);
        self.node(node, old, new);
        // A whole that came or went is itself a path, also where it is not a leaf.
        match (old, new) {
            (None, Some(_)) => self.out.added.insert(&self.path),
            (Some(_), None) => self.out.removed.insert(&self.path),
            _ => {}
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
            return self.leaf(node, old, new);
        }
        match element::kind(node, shape) {
            Kind::Leaf => self.leaf(node, old, new),
            Kind::Object => {
                let object =
                    |value: Option<&'_ Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
                let (old, new) = (object(old), object(new));
                let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                for name in names {
                    let (member, _) = element::member(node, name);
                    self.step(PathElement::Field(name.clone()), member, old.get(name), new.get(name));
                }
            }
            Kind::List(node, list) => {
                let items =
                    |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
                let (old, new) = (items(old), items(new));
                let (old, new) = (element::items(node, list, &old), element::items(node, list, &new));
                let find = |items: &[(PathElement, &Value)], element: &PathElement| {
                    items.iter().find(|(other, _)| other == element).map(|(_, value)| (*value).clone())
                };
                let added = new.iter().filter(|(element, _)| !old.iter().any(|(other, _)| other == element));
                let all: Vec<PathElement> =
                    old.iter().chain(added).map(|(element, _)| element.clone()).collect();
                for element in all {
                    let (before, after) = (find(&old, &element), find(&new, &element));
                    self.step(element, Some(node.at(&list.item)), before.as_ref(), after.as_ref());
                }
            }
        }
    }
}
