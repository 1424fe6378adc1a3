//! Answers that are not the object itself: tables, as kubectl asks for them, and bare metadata.

use api::kinds::Kind;
use api::meta;
use api::status::ApiError;
use serde_json::{Value, json};

use crate::http::query::Query;

/// `meta.k8s.io/v1` Table over some objects of one kind.
pub fn table(
    kind: &Kind,
    query: &Query,
    objects: &[&Value],
    resource_version: &str,
    metadata: Option<Value>,
) -> Value {
    let include = query.get("includeObject").unwrap_or("Metadata");
    let columns: Vec<Value> = kind
        .columns
        .iter()
        .map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            // A bookmark has no cells worth reading, but a table needs its row.
            let object_part = match include {
                "None" => Value::Null,
                "Object" => (*object).clone(),
                _ => partial(kind, object, "v1"),
            };
            json!({"cells": kind.behaviour.row(object), "object": object_part})
        })
        .collect();
    let metadata = metadata.unwrap_or_else(|| json!({"resourceVersion": resource_version}));
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// What of each object a table's rows hold.
pub fn check_options(query: &Query) -> Result<(), ApiError> {
    match query.get("includeObject") {
        None | Some("None" | "Metadata" | "Object") => Ok(()),
        Some(other) => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

/// `PartialObjectMetadata` of an object, in a version of `meta.k8s.io`.
pub fn partial(kind: &Kind, object: &Value, version: &str) -> Value {
    let api_version = format!("meta.k8s.io/{version}");
    let mut metadata = meta::metadata(object).clone();
    if !kind.rules.field_annotation.is_empty()
        && let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
    {
        annotations.remove(kind.rules.field_annotation);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": metadata})
}
