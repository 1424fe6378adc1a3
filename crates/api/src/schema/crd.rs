//! Compiles a custom resource's structural `openAPIV3Schema` into the form the built-in types have.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::pattern::{Patterns, WEIGHT_LIMIT};
use super::rules::Reading;
use super::{
    Field, List, ListKind, Message, OBJECT_META, PatchStrategy, Rules, Schema, Shape, Table, Type, builtin,
};

/// A schema deeper than this is refused; the walks over values are as deep as the schema.
const MAX_DEPTH: usize = 64;

/// Compiles a version's `openAPIV3Schema`. The errors name paths below it, as in
/// `properties[spec].type: Required value: must not be empty for specified object fields`.
pub fn from_crd(schema: &Value) -> Result<Schema, Vec<String>> {
    from_version(schema, &mut Patterns::default())
}

/// The same of one of several versions: their patterns are weighed together.
pub(crate) fn from_version(schema: &Value, patterns: &mut Patterns) -> Result<Schema, Vec<String>> {
    let reading = Reading { errors: Vec::new(), patterns: std::mem::take(patterns) };
    let mut compiler = Compiler { table: Table::default(), reading, metadata: None };
    let before = compiler.reading.patterns.weight;
    let root = compiler.object(schema, "", 0, true);
    let Reading { mut errors, patterns: read } = compiler.reading;
    *patterns = read;
    // It is told of the version that is too much.
    if patterns.weight > WEIGHT_LIMIT && before <= WEIGHT_LIMIT {
        errors.push(format!(
            "pattern: Forbidden: the patterns of this definition are too large together: {} states where at most {WEIGHT_LIMIT} \
             are allowed; use shorter repetitions, maxLength, or fewer classes of letters",
            patterns.weight
        ));
    }
    match errors.is_empty() {
        true => Ok(Schema { table: Arc::new(compiler.table), root }),
        false => Err(errors),
    }
}

/// A schema within one that has been compiled, for values that stand there.
pub(crate) fn of_part(schema: &Value) -> Result<Schema, Vec<String>> {
    let mut compiler = Compiler { table: Table::default(), reading: Reading::default(), metadata: None };
    let root = compiler.compile(schema, "", 0);
    match compiler.reading.errors {
        errors if errors.is_empty() => Ok(Schema { table: Arc::new(compiler.table), root }),
        errors => Err(errors),
    }
}

struct Compiler {
    table: Table,
    reading: Reading,
    metadata: Option<u32>,
}

pub(super) fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Compiler {
    fn error(&mut self, path: &str, field: &str, problem: &str) {
        self.reading.errors.push(format!("{}: {problem}", join(path, field)));
    }

    fn compile(&mut self, schema: &Value, path: &str, depth: usize) -> Type {
        if depth > MAX_DEPTH {
            self.error(path, "type", "Forbidden: the schema is nested too deeply");
            return Type::of(Shape::Any);
        }
        let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
        if flag(schema, "x-kubernetes-int-or-string") {
            return self.with_rules(Shape::IntOrString, schema, path);
        }
        let shape = match text(schema, "type") {
            "object" => return self.object(schema, path, depth, false),
            "" if preserve && schema.get("properties").is_some() => {
                return self.object(schema, path, depth, false);
            }
            "" if preserve => Shape::Any,
            "array" => self.list(schema, path, depth),
            "string" => Shape::String,
            "boolean" => Shape::Bool,
            "number" => Shape::Double,
            "integer" if text(schema, "format") == "int32" => Shape::Int32,
            "integer" => Shape::Int64,
            "" => {
                self.error(path, "type", "Required value: must not be empty for specified object fields");
                Shape::Any
            }
            other => {
                let problem = format!(
                    "Unsupported value: \"{other}\": supported values: \"array\", \"boolean\", \
                                       \"integer\", \"number\", \"object\", \"string\""
                );
                self.error(path, "type", &problem);
                Shape::Any
            }
        };
        self.with_rules(shape, schema, path)
    }

    fn with_rules(&mut self, shape: Shape, schema: &Value, path: &str) -> Type {
        let rules = Rules::read(schema, path, &mut self.reading);
        let atomic = match text(schema, "x-kubernetes-map-type") {
            "atomic" => Some(true),
            "granular" => Some(false),
            _ => None,
        };
        Type { shape, atomic, go_name: None, rules: Some(Box::new(rules)) }
    }

    fn list(&mut self, schema: &Value, path: &str, depth: usize) -> Shape {
        let item = match schema.get("items") {
            Some(items) if items.is_object() => self.compile(items, &join(path, "items"), depth + 1),
            _ => {
                self.error(path, "items", "Required value: must be specified");
                Type::of(Shape::Any)
            }
        };
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let keys: Vec<Box<str>> =
            keys.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect();
        let kind = match text(schema, "x-kubernetes-list-type") {
            "set" => ListKind::Set,
            "map" if keys.is_empty() => {
                let problem = "Required value: must not be empty if x-kubernetes-list-type is map";
                self.error(path, "x-kubernetes-list-map-keys", problem);
                ListKind::Atomic
            }
            "map" => ListKind::Map(keys),
            _ => ListKind::Atomic,
        };
        Shape::List(Box::new(List { item, kind, wrapped: false }))
    }

    fn object(&mut self, schema: &Value, path: &str, depth: usize, root: bool) -> Type {
        let open = flag(schema, "x-kubernetes-preserve-unknown-fields");
        let properties = schema.get("properties").and_then(Value::as_object);
        match schema.get("additionalProperties") {
            Some(Value::Object(_)) if properties.is_some_and(|p| !p.is_empty()) => {
                self.error(
                    path,
                    "additionalProperties",
                    "Forbidden: additionalProperties and properties are mutual exclusive",
                );
            }
            Some(additional @ Value::Object(_)) if !root => {
                let value = self.compile(additional, &join(path, "additionalProperties"), depth + 1);
                return self.with_rules(Shape::Map(Box::new(value)), schema, path);
            }
            Some(Value::Bool(true)) if !root && properties.is_none_or(Map::is_empty) => {
                // Values may be anything, but what is in them is not known.
                let nothing = self.table.push(Message::default());
                return self.with_rules(
                    Shape::Map(Box::new(Type::of(Shape::Message(nothing)))),
                    schema,
                    path,
                );
            }
            _ => {}
        }
        if root && !matches!(text(schema, "type"), "" | "object") {
            self.error(path, "type", "Invalid value: must be object at the root");
        }
        let also = !root && schema.get("additionalProperties").is_some();
        let mut message = Message { open: open || also, ..Message::default() };
        for (name, property) in properties.into_iter().flatten() {
            let ty = self.compile(property, &join(path, &format!("properties[{name}]")), depth + 1);
            message.fields.push(Field { default: property.get("default").cloned(), ..field(name, ty) });
        }
        if root || flag(schema, "x-kubernetes-embedded-resource") {
            let names = root.then(|| schema.pointer("/properties/metadata/properties")).flatten();
            self.object_fields(&mut message, names, path);
        }
        message.fields.sort_by(|a, b| a.name.cmp(&b.name));
        let index = self.table.push(message);
        self.with_rules(Shape::Message(index), schema, path)
    }

    /// Every object has these, whatever its schema says of them.
    fn object_fields(&mut self, message: &mut Message, names: Option<&Value>, path: &str) {
        message.fields.retain(|field| !["apiVersion", "kind", "metadata"].contains(&&*field.name));
        let metadata = match self.metadata {
            Some(index) => Some(index),
            None => builtin()
                .model(OBJECT_META)
                .map(|meta| self.table.import(builtin(), meta, &mut HashMap::new())),
        };
        let metadata = match names.zip(metadata) {
            Some((names, common)) => Some(self.restricted(common, names, path)),
            None => metadata,
        };
        if names.is_none() {
            self.metadata = metadata;
        }
        message.fields.push(field("apiVersion", Type::of(Shape::String)));
        message.fields.push(field("kind", Type::of(Shape::String)));
        message.fields.extend(metadata.map(|index| field("metadata", Type::of(Shape::Message(index)))));
    }
}

impl Compiler {
    /// The metadata of objects whose names a schema restricts.
    fn restricted(&mut self, common: u32, names: &Value, path: &str) -> u32 {
        let mut message = self.table.message(common).clone();
        for name in ["name", "generateName"] {
            let Some(schema) = names.get(name) else { continue };
            let rules = Rules::read(
                schema,
                &join(path, &format!("properties[metadata].properties[{name}]")),
                &mut self.reading,
            );
            for field in message.fields.iter_mut().filter(|field| &*field.name == name) {
                field.ty.rules = Some(Box::new(rules.clone()));
            }
        }
        self.table.push(message)
    }
}

fn field(name: &str, ty: Type) -> Field {
    Field {
        name: name.into(),
        tag: 0,
        ty,
        pointer: true,
        omit_empty: true,
        omit_zero: false,
        required: false,
        strategy: PatchStrategy::default(),
        merge_key: None,
        default: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{embedded, unique};

    fn schema() -> Schema {
        from_crd(&json!({
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "required": ["size"],
                    "properties": {
                        "size": {"type": "integer", "minimum": 1, "maximum": 5},
                        "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                        "digits": {"type": "string", "pattern": "^\\d+$"},
                        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5, "nullable": true},
                        "port": {"x-kubernetes-int-or-string": true},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                                 "properties": {"known": {"type": "object", "properties": {"x": {"type": "string"}}}}},
                        "any": {"x-kubernetes-preserve-unknown-fields": true},
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "minItems": 1},
                        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                                  "items": {"type": "object", "required": ["k"], "properties": {
                                      "k": {"type": "string"}, "v": {"type": "integer", "default": 7}}}},
                        "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                                     "x-kubernetes-preserve-unknown-fields": true},
                        "one": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string"}},
                                "oneOf": [{"required": ["x"]}, {"required": ["y"]}]},
                    },
                },
                "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
            },
        }))
        .unwrap()
    }

    #[test]
    fn unknown_fields_are_named_and_pruned() {
        let schema = schema();
        let mut value = json!({
            "apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x", "typo": 1}, "bad": 1,
            "spec": {"size": 1, "typo": 2, "free": {"a": 1, "known": {"x": "1", "y": 2}}, "any": {"a": [1]},
                     "items": [{"k": "a", "w": 1}], "template": {"apiVersion": "v1", "kind": "K", "spec": {"z": 1}}, "labels": {"a": "b"}},
        });
        let found: Vec<_> = schema.check(&value).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "unknown field \"metadata.typo\"",
                "unknown field \"bad\"",
                "unknown field \"spec.free.known.y\"",
                "unknown field \"spec.items[0].w\"",
                "unknown field \"spec.typo\""
            ]
        );
        schema.prune(&mut value);
        schema.apply_defaults(&mut value);
        assert_eq!(
            value,
            json!({
                "apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"},
                "spec": {"size": 1, "mode": "a", "free": {"a": 1, "known": {"x": "1"}}, "any": {"a": [1]},
                         "items": [{"k": "a", "v": 7}], "template": {"apiVersion": "v1", "kind": "K", "spec": {"z": 1}}, "labels": {"a": "b"}},
            })
        );
        assert!(schema.validate(&value).is_empty(), "{:?}", schema.validate(&value));
    }

    /// As kube-apiserver v1.36.2 answers it.
    #[test]
    fn what_stands_where_it_does_not_belong_has_no_known_fields() {
        let schema = schema();
        let check = |spec: serde_json::Value, unknown: &[&str], left: serde_json::Value| {
            let mut value =
                json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": spec});
            let found: Vec<_> = schema.check(&value).iter().map(ToString::to_string).collect();
            let unknown: Vec<_> =
                unknown.iter().map(|path| format!("unknown field \"spec.{path}\"")).collect();
            assert_eq!(found, unknown, "{value}");
            schema.prune(&mut value);
            assert_eq!(value["spec"], left);
        };
        check(json!({"one": [{"x": "1", "z": 2}]}), &["one[0].x", "one[0].z"], json!({"one": [{}]}));
        check(json!({"one": [[{"x": {"y": 1}}]]}), &["one[0][0].x"], json!({"one": [[{}]]}));
        check(json!({"one": ["x", 1]}), &[], json!({"one": ["x", 1]}));
        check(json!({"labels": [{"a": "b"}]}), &["labels[0].a"], json!({"labels": [{}]}));
        check(json!({"items": {"k": "a"}}), &["items.k"], json!({"items": {}}));
        check(json!({"items": [[{"k": "a"}]]}), &["items[0][0].k"], json!({"items": [[{}]]}));
        check(json!({"mode": {"z": 1}}), &["mode.z"], json!({"mode": {}}));
        check(json!({"mode": [{"z": 1}]}), &["mode[0].z"], json!({"mode": [{}]}));
        check(json!({"free": [{"z": 1}]}), &[], json!({"free": [{"z": 1}]}));
    }

    #[test]
    fn values_are_validated() {
        let value = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {}, "spec": {
            "mode": "c", "name": "ABCDEFG", "port": true, "labels": {"a": 1}, "set": ["a", "b", "a"],
            "items": [{"k": "a"}, {"k": "a"}, {}], "digits": "\u{663}", "one": {"x": "", "y": ""}, "template": {"kind": "K"},
        }, "status": {"ready": "yes"}});
        let found: Vec<_> = schema().validate(&value).iter().map(ToString::to_string).collect();
        let expected = [
            "spec.digits: Invalid value: \"\u{663}\": spec.digits in body should match '^\\d+$'",
            "spec.items[2].k: Required value",
            "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
            "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            "spec.name: Too long: may not be more than 5 bytes",
            "<nil>: Invalid value: \"\": \"spec.one\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            "spec.size: Required value",
            "status.ready: Invalid value: \"string\": status.ready in body must be of type boolean: \"string\"",
        ];
        assert_eq!(found, expected);
        // What a schema of JSON cannot say.
        let others = [unique::faults(&schema(), &value, None), embedded::faults(&schema(), &value)].concat();
        let others: Vec<_> = others.iter().map(ToString::to_string).collect();
        let expected = [
            "spec.items[1]: Duplicate value: {\"k\":\"a\"}",
            "spec.set[2]: Duplicate value: \"a\"",
            "spec.template.apiVersion: Required value",
        ];
        assert_eq!(others, expected);
        let number = |size: serde_json::Value| {
            let value = json!({"spec": {"size": size}});
            schema().validate(&value).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            number(json!(0)),
            ["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"]
        );
        assert_eq!(
            number(json!(6)),
            ["spec.size: Invalid value: 6: spec.size in body should be less than or equal to 5"]
        );
        assert_eq!(
            number(json!(1.5)),
            [
                "spec.size: Invalid value: \"number\": spec.size in body must be of type integer: \"number\"",
                "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in spec.size",
            ]
        );
        assert_eq!(number(json!(null)).len(), 1);
    }

    #[test]
    fn schemas_that_are_not_structural_are_refused() {
        let errors = from_crd(&json!({"type": "object", "properties": {
            "a": {"properties": {}}, "b": {"type": "array"}, "c": {"type": "string", "pattern": "("},
            "d": {"type": "what"}, "e": {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"},
        }}))
        .unwrap_err();
        assert_eq!(errors.len(), 5, "{errors:?}");
        assert_eq!(
            errors[0],
            "properties[a].type: Required value: must not be empty for specified object fields"
        );
    }
}
