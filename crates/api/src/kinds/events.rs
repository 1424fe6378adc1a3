//! `events.k8s.io/v1`: the newer form of the core group's events, over the same objects.

use k8s_openapi::api::events::v1::Event;
use serde_json::{Map, Value};

use super::conversion::Convert;
use super::validate::{json, qualified};
use super::{Build, Errors, Kind, core};
use crate::status::FieldError;

const TTL_SECONDS: u64 = core::EVENT_TTL_SECONDS;
const FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

pub fn kinds() -> Vec<Kind> {
    let stored = core::event();
    let event = Build::<Event>::new("events", true)
        .short(&["ev"])
        .ttl_seconds(TTL_SECONDS)
        .rules(|r| r.create_on_update = true)
        .validate_create(validate)
        .validate_update(|new, old, errors| {
            check_series(new, errors);
            // The faults are told in the names of the stored form.
            for (field, changed) in [
                ("involvedObject", new.regarding != old.regarding),
                ("reason", new.reason != old.reason),
                ("message", new.note != old.note),
                ("count", new.deprecated_count != old.deprecated_count),
                ("related", new.related != old.related),
                ("action", new.action != old.action),
                ("reportingController", new.reporting_controller != old.reporting_controller),
                ("reportingInstance", new.reporting_instance != old.reporting_instance),
                ("type", new.type_ != old.type_),
                ("eventTime", new.event_time != old.event_time),
            ] {
                if changed {
                    let value = match field {
                        "message" => json(&new.note),
                        "reason" => json(&new.reason),
                        "action" => json(&new.action),
                        "type" => json(&new.type_),
                        "eventTime" => json(&new.event_time),
                        "reportingController" => json(&new.reporting_controller),
                        "reportingInstance" => json(&new.reporting_instance),
                        "involvedObject" => json(&new.regarding),
                        "related" => json(&new.related),
                        _ => json(&new.deprecated_count),
                    };
                    // As the original does, once for each of its two forms.
                    if field == "reason" {
                        errors.push(FieldError::immutable(field, value.clone()));
                    }
                    errors.push(FieldError::immutable(field, value));
                }
            }
        })
        .fields(FIELDS, fields)
        .stored_as(&stored, Renamed)
        .done();
    vec![event]
}

/// What the newer form demands and the older one never did.
fn validate(event: &Event, errors: &mut Errors) {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    errors.required("eventTime", event.event_time.is_none());
    check_series(event, errors);
    let controller = text(&event.reporting_controller);
    errors.required("reportingController", controller.is_empty());
    qualified("reportingController", &controller, errors);
    errors.required("reportingInstance", text(&event.reporting_instance).is_empty());
    errors.required("action", text(&event.action).is_empty());
    errors.required("reason", text(&event.reason).is_empty());
    let kind = text(&event.type_);
    if !matches!(kind.as_str(), "Normal" | "Warning") {
        errors.push(FieldError::invalid("type", "", format!("has invalid value: {kind}")));
    }
    let source = event.deprecated_source.clone().unwrap_or_default();
    for (field, given) in [
        ("firstTimestamp", event.deprecated_first_timestamp.is_some()),
        ("lastTimestamp", event.deprecated_last_timestamp.is_some()),
        ("count", event.deprecated_count.is_some_and(|c| c != 0)),
        ("source", source.component.is_some() || source.host.is_some()),
    ] {
        if given {
            errors.push(FieldError::invalid(field, "", "needs to be unset"));
        }
    }
}

/// One time alone makes no series.
fn check_series(event: &Event, errors: &mut Errors) {
    if event.series.as_ref().is_some_and(|series| series.count < 2) {
        errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
}

fn fields(event: &Event) -> Vec<(&'static str, String)> {
    let about = event.regarding.clone().unwrap_or_default();
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    vec![
        ("regarding.kind", text(&about.kind)),
        ("regarding.namespace", text(&about.namespace)),
        ("regarding.name", text(&about.name)),
        ("regarding.uid", text(&about.uid)),
        ("regarding.apiVersion", text(&about.api_version)),
        ("regarding.resourceVersion", text(&about.resource_version)),
        ("regarding.fieldPath", text(&about.field_path)),
        ("reason", text(&event.reason)),
        ("reportingController", text(&event.reporting_controller)),
        ("type", text(&event.type_)),
    ]
}

/// The two forms hold the same under other names.
struct Renamed;

/// Name in `events.k8s.io/v1`, name in `v1`.
const NAMES: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];
/// What the older form writes even when it is empty.
const ALWAYS: &[&str] = &["involvedObject", "source", "reportingComponent", "reportingInstance", "eventTime"];

fn renamed(object: Value, name: impl Fn(&str) -> Option<&'static str>) -> Map<String, Value> {
    let Value::Object(map) = object else { return Map::new() };
    map.into_iter().map(|(key, value)| (name(&key).map_or(key, str::to_owned), value)).collect()
}

impl Convert for Renamed {
    fn to_stored(&self, object: Value) -> Value {
        let older = |key: &str| NAMES.iter().find(|(new, _)| *new == key).map(|(_, old)| *old);
        let mut map = renamed(object, older);
        for key in ["involvedObject", "source"] {
            map.entry(key).or_insert_with(|| Value::Object(Map::new()));
        }
        Value::Object(map)
    }

    fn to_served(&self, object: Value) -> Value {
        let newer = |key: &str| NAMES.iter().find(|(_, old)| *old == key).map(|(new, _)| *new);
        let mut map = renamed(object, newer);
        map.entry("eventTime").or_insert(Value::Null);
        let empty = |key: &str| ALWAYS.iter().any(|old| newer(old).unwrap_or(old) == key);
        map.retain(|key, value| {
            let nothing = matches!(value, Value::String(text) if text.is_empty());
            !(nothing && empty(key))
        });
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_hold_the_same() {
        let older = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"},
            "involvedObject": {"kind": "Pod"}, "message": "m", "reportingComponent": "c", "source": {},
            "count": 3, "eventTime": null});
        let newer = Renamed.to_served(older.clone());
        assert_eq!(newer["regarding"]["kind"], "Pod");
        assert_eq!((&newer["note"], &newer["deprecatedCount"]), (&json!("m"), &json!(3)));
        assert_eq!(Renamed.to_stored(newer), older);
    }
}
