//! `Event`: what happened to an object, kept for an hour.

use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::columns::{name_cell, since_cell};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub const TTL_SECONDS: u64 = 3600;
const FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

pub fn kind() -> Kind {
    Build::<Event>::new("events", true)
        .short(&["ev"])
        .ttl_seconds(TTL_SECONDS)
        .rules(|r| r.create_on_update = true)
        .default(|e| {
            e.type_.get_or_insert_with(|| "Normal".into());
        })
        .validate(validate)
        .row(row)
        .fields(FIELDS, fields)
        .done()
}

fn validate(event: &Event, errors: &mut Errors) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let about = event.involved_object.namespace.as_deref().unwrap_or_default();
    if !about.is_empty() && about != namespace {
        let detail = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", about, detail));
    }
}

fn row(event: &Event) -> Vec<Value> {
    let about = &event.involved_object;
    let object = format!(
        "{}/{}",
        about.kind.as_deref().unwrap_or_default().to_lowercase(),
        about.name.as_deref().unwrap_or_default()
    );
    let event_time =
        event.event_time.as_ref().map(|t| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(t.0));
    let first = event.first_timestamp.clone().or(event_time.clone());
    let last = event.last_timestamp.clone().or(event_time).or(event.metadata.creation_timestamp.clone());
    let source =
        event.source.as_ref().and_then(|s| s.component.clone()).or(event.reporting_component.clone());
    vec![
        since_cell(last.as_ref()),
        event.type_.clone().unwrap_or_default().into(),
        event.reason.clone().unwrap_or_default().into(),
        object.into(),
        about.field_path.clone().unwrap_or_default().into(),
        source.unwrap_or_default().into(),
        event.message.as_deref().unwrap_or_default().trim().into(),
        since_cell(first.as_ref()),
        event.count.unwrap_or(1).into(),
        name_cell(&event.metadata),
    ]
}

fn fields(event: &Event) -> Vec<(&'static str, String)> {
    let about = &event.involved_object;
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let source = event.source.as_ref().and_then(|s| s.component.clone());
    vec![
        ("involvedObject.kind", text(&about.kind)),
        ("involvedObject.namespace", text(&about.namespace)),
        ("involvedObject.name", text(&about.name)),
        ("involvedObject.uid", text(&about.uid)),
        ("involvedObject.apiVersion", text(&about.api_version)),
        ("involvedObject.resourceVersion", text(&about.resource_version)),
        ("involvedObject.fieldPath", text(&about.field_path)),
        ("reason", text(&event.reason)),
        ("reportingComponent", text(&event.reporting_component)),
        ("source", source.unwrap_or_else(|| text(&event.reporting_component))),
        ("type", text(&event.type_)),
    ]
}
