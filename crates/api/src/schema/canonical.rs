//! The form a built-in object has after passing through the original's types: `null`s and zero values that are left
//! out when written are gone, values that are always written are there (`status: {}`, `resources: {}`), quantities
//! and times are in canonical form. Clients, field ownership and diffs all see objects in this form.

use serde_json::{Map, Value};

use super::{Field, Node, Shape, Type};
use crate::quantity::Quantity;

pub(super) fn canonicalize(node: Node<'_>, value: &mut Value) {
    match (&node.ty.shape, &mut *value) {
        (Shape::Message(_), Value::Object(map)) => message(node, map),
        (Shape::Map(member), Value::Object(map)) => {
            for inner in map.values_mut() {
                canonicalize(node.at(member), inner);
                if inner.is_null() {
                    *inner = zero(node.at(member));
                }
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            for item in items {
                canonicalize(node.at(&list.item), item);
                if item.is_null() {
                    *item = zero(node.at(&list.item));
                }
            }
        }
        // A schema, or several, or something simpler.
        (Shape::PropsOrArray(index) | Shape::PropsOrBool(index) | Shape::PropsOrStrings(index), found) => {
            let ty = Type::of(Shape::Message(*index));
            match found {
                Value::Array(items) => items.iter_mut().for_each(|i| canonicalize(node.at_local(&ty), i)),
                found => canonicalize(node.at_local(&ty), found),
            }
        }
        (Shape::Quantity, found) => {
            let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
            if let Ok(quantity) = Quantity::parse(&text) {
                *found = Value::String(quantity.to_string());
            }
        }
        // Floats that are whole are written as whole numbers.
        (Shape::Double, Value::Number(number)) => {
            let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
            if let Some(float) = float.filter(|float| float.abs() < 1e15) {
                *value = (float as i64).into();
            }
        }
        (Shape::Time, Value::String(text)) => canonical_time(text, 0),
        (Shape::MicroTime, Value::String(text)) => canonical_time(text, 6),
        _ => {}
    }
}

fn canonical_time(text: &mut String, precision: u8) {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        *text = print_time(time, precision);
    }
}

/// Times have whole seconds or exactly six decimals.
pub(crate) fn print_time(time: jiff::Timestamp, precision: u8) -> String {
    jiff::fmt::temporal::DateTimePrinter::new().precision(Some(precision)).timestamp_to_string(&time)
}

fn message(node: Node<'_>, map: &mut Map<String, Value>) {
    let Some(message) = node.message() else { return };
    // Both are in the order of their names, and of the fields that an object may have most are absent: one walk along both.
    let mut members = map.iter_mut().peekable();
    let mut changes: Vec<(&Field, Option<Value>)> = Vec::new();
    for field in &message.fields {
        let at = node.at(&field.ty);
        while members.peek().is_some_and(|(name, _)| name.as_str() < &*field.name) {
            members.next();
        }
        let keeps_null = matches!(field.ty.shape, Shape::Any | Shape::Raw);
        match members.next_if(|(name, _)| name.as_str() == &*field.name) {
            Some((_, Value::Null)) if !keeps_null => changes.push((field, always_written(at, field))),
            Some((_, inner)) => {
                canonicalize(at, inner);
                if is_omitted(field, inner) {
                    changes.push((field, None));
                }
            }
            None => {
                changes.extend(always_written(at, field).map(|always| (field, Some(always))));
            }
        }
    }
    for (field, instead) in changes {
        match instead {
            Some(value) => drop(map.insert(field.name.to_string(), value)),
            None => drop(map.remove(&*field.name)),
        }
    }
}

fn is_omitted(field: &Field, value: &Value) -> bool {
    let empty = match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => match field.ty.shape {
            Shape::Map(_) => map.is_empty(),
            _ => return field.omit_zero && !field.pointer && map.is_empty(),
        },
        _ if field.pointer => false,
        Value::String(text) => match field.ty.shape {
            // Written through their own types, which are never empty.
            Shape::Quantity | Shape::IntOrString => false,
            _ => text.is_empty(),
        },
        Value::Bool(value) => !value,
        Value::Number(number) => {
            number.as_f64() == Some(0.0) && !matches!(field.ty.shape, Shape::IntOrString)
        }
        Value::Null => false,
    };
    empty && field.omit_empty
}

/// What stands for a field that is absent but always written.
fn always_written(node: Node<'_>, field: &Field) -> Option<Value> {
    if field.pointer {
        return (!field.omit_empty && !field.omit_zero).then_some(Value::Null);
    }
    match field.ty.shape {
        _ if field.omit_zero => None,
        // Structs in the original, which `omitempty` does not leave out.
        Shape::Message(_)
        | Shape::Time
        | Shape::MicroTime
        | Shape::Duration
        | Shape::Quantity
        | Shape::IntOrString => Some(zero(node)),
        Shape::Any | Shape::Raw => None,
        _ if field.omit_empty => None,
        _ => Some(zero(node)),
    }
}

fn zero(node: Node<'_>) -> Value {
    match &node.ty.shape {
        Shape::String => Value::String(String::new()),
        Shape::Duration => Value::String("0s".into()),
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => Value::from(0),
        Shape::Bool => Value::Bool(false),
        Shape::Quantity => Value::String("0".into()),
        Shape::Message(_) => {
            let mut map = Map::new();
            message(node, &mut map);
            Value::Object(map)
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::schema::of_object;

    #[test]
    fn schemas_within_schemas_too() {
        let items = |inner: serde_json::Value| {
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x"},
                "spec": {"group": "g", "scope": "Namespaced", "names": {"kind": "K", "plural": "ks"}, "versions": [{"name": "v1",
                    "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "array", "items": inner}}}]}})
        };
        let schema = |value: &serde_json::Value| {
            value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["items"].clone()
        };
        let mut value =
            items(json!({"type": "string", "description": "", "uniqueItems": false, "title": ""}));
        of_object(&value).unwrap().canonicalize(&mut value);
        assert_eq!(schema(&value), json!({"type": "string"}));
    }

    #[test]
    fn as_the_original_writes_it() {
        let mut value = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "x", "creationTimestamp": null, "labels": {}},
            "spec": {
                "hostNetwork": false, "terminationGracePeriodSeconds": 0, "nodeSelector": {},
                "containers": [{"name": "c", "args": [], "resources": {"limits": {"cpu": "1000m", "memory": 1024}},
                                "ports": [{"containerPort": 80, "hostPort": 0}]}, {"name": "d"}],
            },
        });
        of_object(&value).unwrap().canonicalize(&mut value);
        assert_eq!(
            value,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "x"},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1024"}}, "ports": [{"containerPort": 80}]},
                        {"name": "d", "resources": {}},
                    ],
                },
                "status": {},
            })
        );
        let mut value = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {
            "name": "r", "creationTimestamp": "2024-01-01T01:00:00.5+01:00"}});
        of_object(&value).unwrap().canonicalize(&mut value);
        assert_eq!(
            value,
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": null, "metadata": {
            "name": "r", "creationTimestamp": "2024-01-01T00:00:00Z"}})
        );
    }
}
