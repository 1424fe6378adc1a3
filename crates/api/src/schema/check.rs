//! Strict decoding: unknown fields and values of the wrong type, in the words clients of Kubernetes know.
//! The types of custom resources are checked by [`super::validate()`] instead, as in the original.

use std::fmt;

use base64::Engine;
use serde_json::Value;

use super::{Node, Schema, Shape};
use crate::quantity::Quantity;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldProblem {
    Unknown {
        path: String,
    },
    Duplicate {
        path: String,
    },
    /// The value cannot be held by the field; the text is complete.
    Type {
        message: String,
    },
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { path } => write!(f, "unknown field \"{path}\""),
            Self::Duplicate { path } => write!(f, "duplicate field \"{path}\""),
            Self::Type { message } => f.write_str(message),
        }
    }
}

pub fn check(schema: &Schema, value: &Value) -> Vec<FieldProblem> {
    let mut check = Check {
        path: Path::default(),
        names: vec![],
        owner: "",
        types: schema.is_builtin(),
        turn: Turn::Own,
        turns: vec![],
        found: Told::default(),
    };
    check.walk(schema.node(), value);
    let mut told: Vec<(Turn, FieldProblem)> = check.turns.into_iter().zip(check.found.faults).collect();
    told.sort_by_key(|(turn, _)| *turn);
    told.into_iter().map(|(_, fault)| fault).collect()
}

/// When the original looks at a part of a custom resource: at what it says of itself first, at what objects within it say of
/// themselves last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Itself,
    Own,
    Within,
}

/// A path is told up to so many bytes. Names are as long as users like, and each of many faults has its path.
const PATH_LIMIT_BYTES: usize = 1024;
/// Faults are told up to so many bytes together.
const TOLD_LIMIT_BYTES: usize = 1 << 20;

/// Faults, as many as there is room for.
#[derive(Default)]
pub(super) struct Told {
    pub faults: Vec<FieldProblem>,
    bytes: usize,
    typed: bool,
}

impl Told {
    /// Whether there was room.
    pub fn push(&mut self, fault: FieldProblem) -> bool {
        // A value of the wrong type is always told of: with it nothing else is done.
        let typed = matches!(fault, FieldProblem::Type { .. });
        if self.bytes > TOLD_LIMIT_BYTES && (self.typed || !typed) {
            return false;
        }
        self.typed |= typed;
        let (FieldProblem::Unknown { path: text }
        | FieldProblem::Duplicate { path: text }
        | FieldProblem::Type { message: text }) = &fault;
        self.bytes += text.len() + size_of::<FieldProblem>();
        self.faults.push(fault);
        true
    }
}

/// A path as `spec.containers[0].name`.
#[derive(Default)]
pub(super) struct Path(String);

impl Path {
    /// Adds a field and returns the length to cut back to.
    pub(super) fn field(&mut self, name: &str) -> usize {
        let before = self.0.len();
        if before > 0 {
            self.push(".");
        }
        self.push(name);
        before
    }

    pub(super) fn index(&mut self, index: usize) -> usize {
        let before = self.0.len();
        self.push(&format!("[{index}]"));
        before
    }

    fn push(&mut self, text: &str) {
        let mut room = PATH_LIMIT_BYTES.saturating_sub(self.0.len()).min(text.len());
        while !text.is_char_boundary(room) {
            room -= 1;
        }
        self.0.push_str(&text[..room]);
    }

    pub(super) fn cut(&mut self, to: usize) {
        self.0.truncate(to);
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

struct Check<'a> {
    path: Path,
    /// The fields' names alone, which is how type errors give the path.
    names: Vec<&'a str>,
    owner: &'a str,
    types: bool,
    turn: Turn,
    /// Of each fault.
    turns: Vec<Turn>,
    found: Told,
}

impl<'a> Check<'a> {
    fn walk(&mut self, node: Node<'a>, value: &'a Value) {
        match (&node.ty.shape, value) {
            (_, Value::Null) => {}
            (Shape::Message(index), Value::Object(map)) => {
                let message = node.table.message(*index);
                let owner = std::mem::replace(&mut self.owner, message.short_name());
                for (name, inner) in map {
                    let before = self.path.field(name);
                    match message.field(name) {
                        Some(field) => self.named(name, node.at(&field.ty), inner),
                        None if message.open => {}
                        None => self.note_unknown(),
                    }
                    self.path.cut(before);
                }
                self.owner = owner;
            }
            (Shape::Map(member), Value::Object(map)) => {
                for (name, inner) in map {
                    let before = self.path.field(name);
                    // The key of a map is no field: type errors leave it out.
                    self.walk(node.at(member), inner);
                    self.path.cut(before);
                }
            }
            (Shape::List(list), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let before = self.path.index(index);
                    self.walk(node.at(&list.item), item);
                    self.path.cut(before);
                }
            }
            (Shape::PropsOrArray(index) | Shape::PropsOrBool(index) | Shape::PropsOrStrings(index), _) => {
                self.props(node, *index, value);
            }
            _ if self.types => self.scalar(node, value),
            _ if node.is_misplaced(value) => self.unknown(value),
            _ => {}
        }
    }

    fn note_unknown(&mut self) {
        self.push(FieldProblem::Unknown { path: self.path.text().to_owned() });
    }

    fn push(&mut self, fault: FieldProblem) {
        if self.found.push(fault) {
            self.turns.push(self.turn);
        }
    }

    /// The fields of the objects in it, in whatever lists they stand.
    fn unknown(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                for name in map.keys() {
                    let before = self.path.field(name);
                    self.note_unknown();
                    self.path.cut(before);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let before = self.path.index(index);
                    self.unknown(item);
                    self.path.cut(before);
                }
            }
            _ => {}
        }
    }

    fn named(&mut self, name: &'a str, node: Node<'a>, value: &'a Value) {
        self.names.push(name);
        let of_itself = !self.types && node.message().is_some_and(|message| !message.name.is_empty());
        let turn = match (of_itself, self.names.len()) {
            (false, _) => self.turn,
            (true, 1) => Turn::Itself,
            (true, _) => Turn::Within,
        };
        let before = std::mem::replace(&mut self.turn, turn);
        self.walk(node, value);
        self.turn = before;
        self.names.pop();
    }

    /// A JSON schema that may also stand as a list, a boolean or a list of names.
    fn props(&mut self, node: Node<'a>, index: u32, value: &'a Value) {
        let Some(message) = node.table.messages().get(index as usize) else { return };
        match value {
            Value::Object(map) => {
                for (name, inner) in map {
                    let before = self.path.field(name);
                    match message.field(name) {
                        Some(field) => self.named(name, node.at(&field.ty), inner),
                        None => self.note_unknown(),
                    }
                    self.path.cut(before);
                }
            }
            Value::Array(items) => items.iter().filter(|item| item.is_object()).for_each(|item| {
                self.props(node, index, item);
            }),
            _ => {}
        }
    }

    fn scalar(&mut self, node: Node<'a>, value: &Value) {
        let wrong = match (&node.ty.shape, value) {
            (Shape::Any | Shape::Raw | Shape::FieldsV1, _) => return,
            (Shape::String | Shape::Duration, Value::String(_)) | (Shape::Bool, Value::Bool(_)) => return,
            (Shape::Double, Value::Number(_)) => return,
            (Shape::Bytes, Value::String(text)) => match decode_base64(text) {
                Some(_) => return,
                None => "illegal base64 data at input byte 0".to_owned(),
            },
            (Shape::Int32, Value::Number(number)) => {
                match number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) {
                    true => return,
                    false => self.wrong_type(node, &format!("number {number}")),
                }
            }
            (Shape::Int64, Value::Number(number)) => match number.as_i64() {
                Some(_) => return,
                None => self.wrong_type(node, &format!("number {number}")),
            },
            (Shape::Quantity, Value::String(_) | Value::Number(_)) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                match Quantity::parse(&text) {
                    Ok(_) => return,
                    Err(error) => error.to_string(),
                }
            }
            (Shape::IntOrString, Value::String(_)) => return,
            (Shape::IntOrString, Value::Number(number)) => {
                match number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) {
                    true => return,
                    false => format!("json: cannot unmarshal number {number} into Go value of type int32"),
                }
            }
            (Shape::Time, Value::String(text)) => match text.parse::<jiff::Timestamp>() {
                Ok(_) => return,
                Err(_) => wrong_time(text, "2006-01-02T15:04:05Z07:00"),
            },
            (Shape::MicroTime, Value::String(text)) => match text.parse::<jiff::Timestamp>() {
                Ok(_) => return,
                Err(_) => wrong_time(text, "2006-01-02T15:04:05.000000Z07:00"),
            },
            _ => self.wrong_type(node, json_kind(value)),
        };
        self.push(FieldProblem::Type { message: wrong });
    }

    fn wrong_type(&self, node: Node<'_>, found: &str) -> String {
        let ty = go_type(node);
        let at = match self.names.is_empty() {
            true => "Go value".to_owned(),
            false => format!("Go struct field {}.{}", self.owner, self.names.join(".")),
        };
        format!("json: cannot unmarshal {found} into {at} of type {ty}")
    }
}

pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let clean: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    base64::engine::general_purpose::STANDARD.decode(clean).ok()
}

fn wrong_time(text: &str, layout: &str) -> String {
    format!("parsing time \"{text}\" as \"{layout}\": cannot parse \"{text}\" as \"2006\"")
}

pub(super) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn go_type(node: Node<'_>) -> String {
    if let Some(name) = &node.ty.go_name {
        return name.to_string();
    }
    match &node.ty.shape {
        Shape::String => "string".into(),
        Shape::Int32 => "int32".into(),
        Shape::Int64 => "int64".into(),
        Shape::Double => "float64".into(),
        Shape::Bool => "bool".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::IntOrString => "intstr.IntOrString".into(),
        Shape::Time => "v1.Time".into(),
        Shape::MicroTime => "v1.MicroTime".into(),
        Shape::Duration => "v1.Duration".into(),
        Shape::List(list) => format!("[]{}", go_type(node.at(&list.item))),
        Shape::Map(value) => format!("map[string]{}", go_type(node.at(value))),
        Shape::Message(index) => {
            let name = &node.table.message(*index).name;
            let mut parts = name.rsplit('.');
            let (kind, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{package}.{kind}")
        }
        Shape::FieldsV1 | Shape::Raw | Shape::Any => "interface {}".into(),
        Shape::PropsOrArray(_) => "v1.JSONSchemaPropsOrArray".into(),
        Shape::PropsOrBool(_) => "v1.JSONSchemaPropsOrBool".into(),
        Shape::PropsOrStrings(_) => "v1.JSONSchemaPropsOrStringArray".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::schema::of_object;

    fn problems(value: serde_json::Value) -> Vec<String> {
        of_object(&value).unwrap().check(&value).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_fields_and_wrong_types() {
        let found = problems(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "extra": 1,
            "metadata": {"name": "x", "labels": {"a": 1}, "nmae": "y", "creationTimestamp": null},
            "spec": {
                "replicas": "3", "selector": [], "paused": false, "progressDeadlineSeconds": 4294967296u64,
                "template": {"spec": {"containers": [
                    {"name": "c", "imagee": "x", "ports": [{"containerPort": 80, "protocol": 5}],
                     "resources": {"limits": {"cpu": "1x"}},
                     "livenessProbe": {"httpGet": {"port": 1.5}}}
                ], "volumes": [{"name": "v", "hostPath": {"path": "/", "x": 1}}]}},
            },
        }));
        assert_eq!(
            found,
            [
                "unknown field \"extra\"",
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
                "unknown field \"metadata.nmae\"",
                "json: cannot unmarshal number 4294967296 into Go struct field \
                 DeploymentSpec.spec.progressDeadlineSeconds of type int32",
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
                "json: cannot unmarshal array into Go struct field DeploymentSpec.spec.selector of type \
                 v1.LabelSelector",
                "unknown field \"spec.template.spec.containers[0].imagee\"",
                "json: cannot unmarshal number 1.5 into Go value of type int32",
                "json: cannot unmarshal number into Go struct field \
                 ContainerPort.spec.template.spec.containers.ports.protocol of type v1.Protocol",
                "quantities must match the regular expression \
                 '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                "unknown field \"spec.template.spec.volumes[0].hostPath.x\"",
            ]
        );
    }

    /// As kube-apiserver v1.36.2 words it.
    #[test]
    fn elements_have_names_too() {
        let check = |types: serde_json::Value, found: &str, ty: &str| {
            let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "spec": {"podSelector": {}, "policyTypes": types}});
            let field = "Go struct field NetworkPolicySpec.spec.policyTypes";
            assert_eq!(
                problems(policy),
                [format!("json: cannot unmarshal {found} into {field} of type {ty}")]
            );
        };
        check(json!([1]), "number", "v1.PolicyType");
        check(json!([true]), "bool", "v1.PolicyType");
        check(json!([["Ingress"]]), "array", "v1.PolicyType");
        check(json!([{"a": 1}]), "object", "v1.PolicyType");
        check(json!("Ingress"), "string", "[]v1.PolicyType");
        check(json!({"a": 1}), "object", "[]v1.PolicyType");
    }

    #[test]
    fn good_objects_have_no_problems() {
        assert!(
            problems(json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "YQ=="}, "type": "Opaque"}))
                .is_empty()
        );
        assert_eq!(
            problems(json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "?"}})),
            ["illegal base64 data at input byte 0"]
        );
    }
}
