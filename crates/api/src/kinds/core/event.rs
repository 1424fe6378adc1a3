//! `Event`: what happened to an object, kept for an hour.

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::columns::{name_cell, since_cell};
use crate::kinds::validate::qualified;
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
        .metadata_on_update(&[])
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

/// One with a time is of the newer form, whichever version it was written in: it may lie elsewhere than what it is about,
/// and says who reports and what was done.
fn validate(event: &Event, errors: &mut Errors) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let namespace = text(&event.metadata.namespace);
    let about = text(&event.involved_object.namespace);
    let is_new = event.event_time.is_some();
    let strays = match (is_new, about.is_empty()) {
        (true, true) => !["default", "kube-system"].contains(&namespace.as_str()),
        (true, false) => false,
        (false, true) => !["", "default"].contains(&namespace.as_str()),
        (false, false) => about != namespace,
    };
    if strays {
        errors.push(FieldError::invalid("involvedObject.namespace", about, "does not match event.namespace"));
    }
    if !is_new {
        return;
    }
    let (controller, instance) = (text(&event.reporting_component), text(&event.reporting_instance));
    errors.required("reportingComponent", controller.is_empty());
    qualified("reportingComponent", &controller, errors);
    for (field, value, chars_max) in [
        ("reportingInstance", instance, 128),
        ("action", text(&event.action), 128),
        ("reason", text(&event.reason), 128),
        ("message", text(&event.message), 1024),
    ] {
        errors.required(field, value.is_empty() && field != "message");
        // The original counts bytes.
        if value.len() > chars_max {
            errors.push(FieldError::invalid(field, "", format!("can have at most {chars_max} characters")));
        }
    }
}

fn row(event: &Event) -> Vec<Value> {
    let about = &event.involved_object;
    let kind = about.kind.as_deref().unwrap_or_default().to_lowercase();
    let object = match about.name.as_deref().unwrap_or_default() {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let first = event.first_timestamp.clone().or(event.event_time.as_ref().map(|t| Time(t.0)));
    let series = event.series.as_ref();
    let last = match series {
        Some(series) => series.last_observed_time.as_ref().map(|t| Time(t.0)),
        None => event.last_timestamp.clone().or_else(|| first.clone()),
    };
    let count = match series {
        Some(series) => series.count.unwrap_or(0),
        None => event.count.filter(|c| *c > 0).unwrap_or(1),
    };
    vec![
        since_cell(last.as_ref()),
        event.type_.clone().unwrap_or_default().into(),
        event.reason.clone().unwrap_or_default().into(),
        object.into(),
        about.field_path.clone().unwrap_or_default().into(),
        source(event).into(),
        event.message.as_deref().unwrap_or_default().trim().into(),
        since_cell(first.as_ref()),
        count.into(),
        name_cell(&event.metadata),
    ]
}

/// The component and where it runs.
fn source(event: &Event) -> String {
    let given = event.source.clone().unwrap_or_default();
    let named = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let component = named(&given.component).or_else(|| named(&event.reporting_component)).unwrap_or_default();
    match named(&given.host).or_else(|| named(&event.reporting_instance)) {
        Some(host) => format!("{component}, {host}"),
        None => component,
    }
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
