//! One operation of a version 2 path.

use serde_json::{Value, json};

use super::models::gvk;
use crate::schema::Gvk;

pub(super) const JSON: &str = "application/json";
pub(super) const YAML: &str = "application/yaml";
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub(super) const ANY: &[&str] = &["*/*"];
pub(super) const OBJECTS: &[&str] = &[JSON, YAML, PROTOBUF];
/// What custom resources are told to come in.
pub(super) const CUSTOM: &[&str] = &[JSON, YAML];
pub(super) const WATCHED: &[&str] = &[
    JSON,
    YAML,
    PROTOBUF,
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
pub(super) const LOG: &[&str] = &["text/plain", JSON, YAML, PROTOBUF];

/// What comes back when all is well.
pub(super) enum Answer<'a> {
    Model(&'a str),
    Text,
}

pub(super) struct Operation<'a> {
    /// What it does, as authorization and others call it; of what is no resource there is none.
    pub action: &'a str,
    pub kind: Option<&'a Gvk>,
    pub id: String,
    pub description: String,
    pub tag: String,
    pub consumes: &'a [&'a str],
    pub produces: &'a [&'a str],
    pub parameters: Vec<Value>,
    pub answer: Answer<'a>,
    /// The codes of success.
    pub codes: &'a [u16],
}

impl Operation<'_> {
    pub(super) fn write(&self) -> Value {
        let mut out = json!({
            "operationId": self.id,
            "responses": self.responses(),
            "schemes": ["https"],
            "tags": [self.tag],
        });
        if !self.description.is_empty() {
            out["description"] = self.description.as_str().into();
        }
        for (name, types) in [("consumes", self.consumes), ("produces", self.produces)] {
            if !types.is_empty() {
                out[name] = json!(types);
            }
        }
        if !self.parameters.is_empty() {
            out["parameters"] = self.parameters.clone().into();
        }
        if let Some(kind) = self.kind {
            out["x-kubernetes-action"] = self.action.into();
            out["x-kubernetes-group-version-kind"] = gvk(kind);
        }
        out
    }

    fn responses(&self) -> Value {
        let schema = match self.answer {
            Answer::Model(model) => json!({"$ref": format!("#/definitions/{model}")}),
            Answer::Text => json!({"type": "string"}),
        };
        let mut out = json!({"401": {"description": "Unauthorized"}});
        for code in self.codes {
            let said = match code {
                201 => "Created",
                202 => "Accepted",
                _ => "OK",
            };
            out[code.to_string()] = json!({"description": said, "schema": schema});
        }
        out
    }
}
