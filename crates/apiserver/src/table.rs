//! Answers that are not the object itself: tables, as kubectl asks for them, and bare metadata.

use api::kinds::Kind;
use api::meta;
use api::status::ApiError;
use serde_json::{Value, json};

use crate::Context;
use crate::http::query::Query;

/// `meta.k8s.io/v1` Table over some objects of one kind.
pub fn table(kind: &Kind, context: &Context, objects: &[&Value], metadata: Value) -> Value {
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
            row(context, object, kind.behaviour.row(object))
        })
        .collect();
    of_rows(context, metadata, columns, rows)
}

/// One row, with as much of the object as was asked for.
pub fn row(context: &Context, object: &Value, cells: Vec<Value>) -> Value {
    let shown = match context.query.get("includeObject").unwrap_or_default() {
        "None" => Value::Null,
        "Object" => object.clone(),
        _ => partial(&context.kind, object, context.form.meta_version),
    };
    json!({"cells": cells, "object": shown})
}

pub fn of_rows(context: &Context, metadata: Value, columns: Vec<Value>, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{}", context.form.meta_version),
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// What a table of one object says of itself.
pub fn version_of(object: &Value) -> Value {
    match meta::resource_version(object) {
        // It would be one, but is none yet.
        "" => json!({}),
        version => json!({"resourceVersion": version}),
    }
}

/// What of each object a table's rows hold.
pub fn check_options(query: &Query) -> Result<(), ApiError> {
    match query.get("includeObject") {
        None | Some("" | "None" | "Metadata" | "Object") => Ok(()),
        Some(other) => Err(ApiError::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', \
             'None', or empty"
        ))),
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
