//! A default must be what the schema would accept, with nothing in it that would be pruned.

use serde_json::{Map, Value, json};

use super::{inner, is_set, properties};
use crate::kinds::custom;
use crate::schema::{embedded, expressions, of_part};
use crate::status::FieldError;

/// Where a default stands: whose object it is a part of, and the way there from that.
#[derive(Clone)]
struct Here<'a> {
    object: &'a Value,
    way: Vec<Step<'a>>,
    /// Within what an object says of itself.
    of_itself: bool,
}

#[derive(Clone)]
enum Step<'a> {
    Field(&'a str),
    Item,
}

pub fn faults(schema: &Value, field: &str) -> Vec<FieldError> {
    let mut found = Vec::new();
    let here = Here { object: schema, way: Vec::new(), of_itself: false };
    walk(schema, field, true, &here, &mut found);
    found
}

fn walk<'a>(schema: &'a Value, field: &str, is_root: bool, here: &Here<'a>, found: &mut Vec<FieldError>) {
    let is_object = is_root || is_set(schema, "x-kubernetes-embedded-resource");
    let mut here = here.clone();
    if is_object {
        here = Here { object: schema, way: Vec::new(), of_itself: false };
    }
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        // The root is an object, whatever its schema says.
        let whole = is_root.then(|| whole(schema));
        judge(whole.as_ref().unwrap_or(schema), default, &format!("{field}.default"), &here, found);
    }
    // Defaults of a map's values are found where they are filled in.
    if let Some(items) = inner(schema, "items") {
        let mut below = here.clone();
        below.way.push(Step::Item);
        walk(items, &format!("{field}.items"), false, &below, found);
    }
    for (name, property) in properties(schema) {
        let mut below = here.clone();
        below.way.push(Step::Field(name));
        below.of_itself |= is_object && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
        walk(property, &format!("{field}.properties[{name}]"), false, &below, found);
    }
}

fn judge(schema: &Value, default: &Value, field: &str, here: &Here<'_>, found: &mut Vec<FieldError>) {
    // What cannot be compiled was told of.
    let Ok(part) = of_part(schema) else { return };
    if here.of_itself {
        let object = surrounded(default, &here.way);
        let wrong = of_part(here.object).map(|whole| embedded::faults(&whole, &object)).unwrap_or_default();
        if let Some(fault) = wrong.first() {
            let detail = format!("must result in valid metadata: {fault}");
            return found.push(FieldError::invalid(field, default.clone(), detail));
        }
    } else {
        let mut pruned = default.clone();
        part.prune(&mut pruned);
        if pruned != *default {
            found.push(FieldError::invalid(field, default.clone(), "must not have unknown fields"));
        }
        let unreadable = embedded::unreadable(&part, default);
        let wrong = unreadable.map_or_else(|| embedded::faults(&part, default), |fault| vec![fault]);
        if !wrong.is_empty() {
            return found.extend(wrong.into_iter().map(|fault| below(field, fault)));
        }
    }
    // Whether elements are there twice is looked at in objects.
    let wrong = part.validate(default);
    if !wrong.is_empty() {
        return found.extend(wrong.into_iter().map(|fault| below(field, custom::field_error(fault))));
    }
    if let (Some(rules), _) = expressions::compile(schema, "") {
        let wrong = expressions::evaluate(&rules, default, None);
        found.extend(wrong.into_iter().map(|fault| below(field, fault)));
    }
}

fn whole(schema: &Value) -> Value {
    let mut whole = schema.clone();
    whole["x-kubernetes-embedded-resource"] = true.into();
    whole
}

fn below(field: &str, mut fault: FieldError) -> FieldError {
    fault.field = match fault.field.as_str() {
        "" | "<nil>" => field.to_owned(),
        within => format!("{field}.{within}"),
    };
    fault
}

/// The object that a default would make, with nothing else in it.
fn surrounded(default: &Value, way: &[Step<'_>]) -> Value {
    let around = |value: Value, step: &Step<'_>| match step {
        Step::Field(name) => Value::Object(Map::from_iter([((*name).to_owned(), value)])),
        Step::Item => json!([value]),
    };
    let mut object = way.iter().rev().fold(default.clone(), around);
    if let Value::Object(map) = &mut object {
        map.entry("apiVersion").or_insert_with(|| "validation/v1".into());
        map.entry("kind").or_insert_with(|| "Validation".into());
    }
    object
}
