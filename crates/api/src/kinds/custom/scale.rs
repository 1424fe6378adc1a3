//! What the fields hold that a custom resource's scale is made of.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceSubresourceScale;
use serde_json::Value;

use crate::schema::numbers::go_float;
use crate::status::FieldError;

/// The paths as they were given, which is how faults name them.
pub struct Paths {
    spec_replicas: String,
    status_replicas: String,
    selector: Option<String>,
}

/// What a request writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Whole,
    Status,
}

impl Paths {
    pub fn of(scale: &CustomResourceSubresourceScale) -> Self {
        Self {
            spec_replicas: scale.spec_replicas_path.clone(),
            status_replicas: scale.status_replicas_path.clone(),
            selector: scale.label_selector_path.clone().filter(|path| !path.is_empty()),
        }
    }

    pub fn faults(&self, object: &Value, part: Part) -> Vec<FieldError> {
        let mut found = Vec::new();
        if part == Part::Whole {
            found.extend(replicas(object, &self.spec_replicas));
        }
        found.extend(replicas(object, &self.status_replicas));
        if let Some(path) = &self.selector {
            let fault = match at(object, path) {
                Err(why) => Some(why),
                Ok(Some(value)) if !value.is_string() => Some(of_type(path, value, "string")),
                Ok(_) => None,
            };
            found.extend(fault.map(|why| FieldError::invalid(path.as_str(), "", why)));
        }
        found
    }
}

fn replicas(object: &Value, path: &str) -> Option<FieldError> {
    let value = match at(object, path) {
        Ok(value) => value?,
        Err(why) => return Some(FieldError::invalid(path, 0, why)),
    };
    let Some(count) = value.as_i64() else {
        return Some(FieldError::invalid(path, 0, of_type(path, value, "int64")));
    };
    let detail = match count {
        ..0 => "should be a non-negative integer".to_owned(),
        count if count > i64::from(i32::MAX) => format!("should be less than or equal to {}", i32::MAX),
        _ => return None,
    };
    Some(FieldError::invalid(path, count, detail))
}

/// What a path of plain fields leads to; an error where something else than an object is on the way.
fn at<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let mut value = object;
    let mut gone = String::new();
    for step in path.trim_start_matches('.').split('.') {
        match value {
            Value::Object(map) => match map.get(step) {
                Some(inner) => value = inner,
                None => return Ok(None),
            },
            other => return Err(of_type(&format!("{gone}.{step}"), other, "map[string]interface{}")),
        }
        gone.push('.');
        gone.push_str(step);
    }
    Ok(Some(value))
}

fn of_type(path: &str, value: &Value, wanted: &str) -> String {
    let found = match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    format!("{path} accessor error: {} is of the type {found}, expected {wanted}", go_shown(value))
}

/// As `%v` writes a value.
fn go_shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Number(number) if number.is_f64() => go_float(number.as_f64().unwrap_or(0.0)),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: Vec<String> =
                map.iter().map(|(name, value)| format!("{name}:{}", go_shown(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}
