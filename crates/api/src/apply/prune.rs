//! What a manager applied before and does not any more goes, unless somebody else owns it. Each manager's fields are
//! looked at in the version that it wrote.

use std::collections::BTreeMap;

use serde_json::Value;

use super::element::{self, Kind};
use super::merge::set_with_duplicates;
use super::versions::{is_own, schema_of, view};
use super::{FieldSet, PathElement, Writer};
use crate::schema::{Node, Schema};

/// Sets of fields, each with the version that it is of.
pub(super) type Sets = BTreeMap<String, FieldSet>;

/// Takes out of `merged` what is in `last`, a manager's fields of before, and in no set of `owned`. Fields that are in
/// none stay, but not those of an element that goes.
pub(super) fn prune(merged: Value, last: (&str, &FieldSet), owned: Sets, writer: &Writer<'_>) -> Value {
    let (version, last) = last;
    if is_own(writer, version) && owned.get(version).is_some_and(|owned| is_within(last, owned)) {
        return merged;
    }
    match pruned(&merged, (version, last), owned, writer) {
        Some(pruned) => view(writer, &pruned, writer.api_version).unwrap_or(merged),
        // Applied in a version that is no more.
        None => merged,
    }
}

fn is_within(set: &FieldSet, owned: &FieldSet) -> bool {
    set.clone().without(owned).is_empty()
}

fn pruned(
    merged: &Value,
    (version, last): (&str, &FieldSet),
    mut owned: Sets,
    writer: &Writer<'_>,
) -> Option<Value> {
    let held = Held::new(merged, version, writer)?;
    let last = held.named(last.clone());
    let mut left = held.without(&last);
    // What was only taken out with something larger is put back, first in the version in which it was taken out.
    let own = owned.remove_entry(version);
    let mut whole = held.value.clone();
    for (version, owned) in own.into_iter().chain(owned) {
        let (Some(all), Some(rest)) =
            (Held::new(&whole, &version, writer), Held::new(&left, &version, writer))
        else {
            continue;
        };
        let kept = rest.fields().with(all.named(owned));
        left = all.without(&all.fields().without(&kept));
        whole = all.value;
    }
    let rest = Held::new(&left, version, writer)?;
    Some(held.without(&held.fields().without(&rest.fields()).intersection(&last)))
}

/// An object in one of its versions.
struct Held {
    value: Value,
    schema: Option<Schema>,
}

impl Held {
    fn new(object: &Value, api_version: &str, writer: &Writer<'_>) -> Option<Self> {
        Some(Self { value: view(writer, object, api_version)?, schema: schema_of(writer, api_version)? })
    }

    fn node(&self) -> Option<Node<'_>> {
        self.schema.as_ref().map(Schema::node)
    }

    fn fields(&self) -> FieldSet {
        self.named(set_with_duplicates(self.node(), &self.value))
    }

    fn named(&self, set: FieldSet) -> FieldSet {
        named(self.node(), set)
    }

    fn without(&self, set: &FieldSet) -> Value {
        let mut value = self.value.clone();
        take_out(&mut value, set, self.node());
        value
    }
}

/// With each field of a structure that something of is in the set.
fn named(node: Option<Node<'_>>, mut set: FieldSet) -> FieldSet {
    set.change_children(|element, child| match element {
        PathElement::Field(name) => {
            let (member, declared) = element::member(node, name);
            (declared, named(member, child))
        }
        _ => (false, named(node.and_then(Node::item), child)),
    });
    set
}

fn take_out(value: &mut Value, set: &FieldSet, node: Option<Node<'_>>) {
    let takes = |element: &PathElement| set.contains(std::slice::from_ref(element));
    match (element::kind(node, value), value) {
        (Kind::Object, Value::Object(map)) => {
            for element in set.elements() {
                let PathElement::Field(name) = element else { continue };
                if takes(element) {
                    map.remove(name);
                } else if let (Some(inner), Some(child)) = (map.get_mut(name), set.child(element)) {
                    take_out(inner, child, element::member(node, name).0);
                }
            }
        }
        (Kind::List(node, list), Value::Array(items)) => {
            items.retain_mut(|item| {
                let Ok(element) = element::of_item(node, list, item) else { return true };
                if takes(&element) {
                    return false;
                }
                if let Some(child) = set.child(&element) {
                    take_out(item, child, Some(node.at(&list.item)));
                }
                true
            });
        }
        _ => {}
    }
}
