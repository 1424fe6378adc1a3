//! Whether a value is one of its type, in the words of server-side apply, which are stricter than those of decoding and
//! name paths as field ownership does.

use serde_json::Value;

use super::{ListKind, Node, Schema, Shape};

/// Every field that the schema does not have and every value of another type than its field's.
pub fn faults(schema: &Schema, value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    walk(schema.node(), value, "", &mut out);
    out
}

/// A value as Go shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Object(map) => {
            let inner: Vec<String> =
                map.iter().map(|(name, value)| format!("{name:?}:{}", shown(value))).collect();
            format!("map[string]interface {{}}{{{}}}", inner.join(", "))
        }
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// What Go calls the type of a value of any type.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn walk(node: Node<'_>, value: &Value, path: &str, out: &mut Vec<String>) {
    let mut wrong = |expected: &str| {
        let shown = shown(value);
        out.push(format!("{path}: expected {expected}, got &value.valueUnstructured{{Value:{shown}}}"));
    };
    match (&node.ty.shape, value) {
        (_, Value::Null) => {}
        (Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime, Value::String(_)) => {}
        (Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime, _) => wrong("string"),
        (Shape::Int32 | Shape::Int64, Value::Number(_)) | (Shape::Double, Value::Number(_)) => {}
        (Shape::Int32 | Shape::Int64 | Shape::Double, _) => {
            out.push(format!("{path}: expected numeric (int or float), got {}", go_type(value)));
        }
        (Shape::Bool, Value::Bool(_)) => {}
        (Shape::Bool, _) => wrong("boolean"),
        (Shape::Message(index), Value::Object(map)) => {
            let message = node.table.message(*index);
            for (name, inner) in map {
                let path = format!("{path}.{name}");
                match message.field(name) {
                    Some(field) => walk(node.at(&field.ty), inner, &path, out),
                    None if message.open || is_type(&path) => {}
                    None => out.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        (Shape::Map(member), Value::Object(map)) => {
            map.iter().for_each(|(name, inner)| walk(node.at(member), inner, &format!("{path}.{name}"), out));
        }
        (Shape::Message(_) | Shape::Map(_), _) => wrong("map"),
        (Shape::List(list), Value::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                walk(node.at(&list.item), item, &format!("{path}{}", element(&list.kind, at, item)), out);
            }
        }
        (Shape::List(_), _) => wrong("list"),
        _ => {}
    }
}

/// What every object may say of itself, whatever its schema.
fn is_type(path: &str) -> bool {
    matches!(path, ".apiVersion" | ".kind" | ".metadata")
}

fn element(kind: &ListKind, at: usize, item: &Value) -> String {
    match kind {
        ListKind::Map(keys) => {
            let key = |name: &str| Some(format!("{name}={}", item.get(name)?));
            let keys: Option<Vec<String>> = keys.iter().map(|name| key(name)).collect();
            keys.map_or_else(|| format!("[{at}]"), |keys| format!("[{}]", keys.join(",")))
        }
        ListKind::Set if !item.is_object() && !item.is_array() => format!("[={item}]"),
        _ => format!("[{at}]"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_name_paths_as_ownership_does() {
        let schema = crate::schema::of_kind("apps", "v1", "Deployment").expect("built in");
        let containers = json!([{"name": "c", "imag": "x"}, {"name": "d", "image": 5}]);
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "labels": {"a": 1}},
            "foo": {}, "spec": {"replicas": "1", "paused": 1, "template": {"spec": {"containers": containers}}}});
        assert_eq!(
            faults(&schema, &value),
            [
                ".foo: field not declared in schema",
                ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
                ".spec.paused: expected boolean, got &value.valueUnstructured{Value:1}",
                ".spec.replicas: expected numeric (int or float), got string",
                ".spec.template.spec.containers[name=\"c\"].imag: field not declared in schema",
                ".spec.template.spec.containers[name=\"d\"].image: expected string, got &value.valueUnstructured{Value:5}",
            ]
        );
    }
}
