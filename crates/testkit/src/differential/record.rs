//! Recorded answers: one file a kind, one line a step, so that a change of one answer is a change of one line.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub code: u16,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    pub body: Value,
}

/// The answers of all cases of a kind, by `case/step`.
pub type Record = BTreeMap<String, Answer>;

pub fn read(path: &Path) -> Result<Record, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

pub fn write(path: &Path, record: &Record) -> Result<(), String> {
    let mut text = String::from("{\n");
    for (i, (name, answer)) in record.iter().enumerate() {
        let line = serde_json::to_string(answer).map_err(|e| e.to_string())?;
        let comma = if i + 1 < record.len() { "," } else { "" };
        text.push_str(&format!("{}: {line}{comma}\n", Value::from(name.as_str())));
    }
    text.push_str("}\n");
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// The places at which two answers differ, each in one line.
pub fn differences(original: &Answer, ours: &Answer) -> Vec<String> {
    let mut out = Vec::new();
    if original.code != ours.code {
        let message = |a: &Answer| a.body["message"].as_str().unwrap_or_default().to_owned();
        out.push(format!(
            "code {} ({}), ours {} ({})",
            original.code,
            message(original),
            ours.code,
            message(ours)
        ));
        return out;
    }
    if original.warnings != ours.warnings {
        out.push(format!("warnings {:?}, ours {:?}", original.warnings, ours.warnings));
    }
    let (mut theirs, mut own) = (original.body.clone(), ours.body.clone());
    // The original lists what an object holds by the names of its own types.
    let names_types = ["\"Volumes\":", "\"Rules\":"]
        .iter()
        .any(|name| theirs.to_string().contains(&name.replace('"', "\\\"")));
    for body in [&mut theirs, &mut own] {
        unordered(body);
        if names_types {
            without_values(body);
        }
        without_listing(body);
    }
    compare("", &theirs, &own, &mut out);
    out
}

/// Conflicts come from a map of managers, which the original goes through in no order.
fn unordered(body: &mut Value) {
    if let Some(Value::Array(causes)) = body.pointer_mut("/details/causes")
        && causes.iter().all(|cause| cause["reason"] == "FieldManagerConflict")
    {
        causes.sort_by_cached_key(Value::to_string);
    }
}

fn texts(value: &mut Value, change: fn(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| texts(item, change)),
        Value::Object(map) => map.values_mut().for_each(|value| texts(value, change)),
        _ => {}
    }
}

fn without_values(body: &mut Value) {
    const VALUE: &str = "Invalid value: {";
    const END: &str = "}: field is immutable";
    texts(body, |text| {
        let mut from = 0;
        while let Some(start) = text[from..].find(VALUE).map(|at| from + at + VALUE.len() - 1) {
            let Some(end) = text[start..].find(END).map(|at| start + at + 1) else { return };
            text.replace_range(start..end, "<object>");
            from = start;
        }
    });
}

/// What follows these words is a comparison of the original's own types.
fn without_listing(body: &mut Value) {
    const LAST: &str = "(allow it to be set to 1 if it was previously negative)";
    texts(body, |text| {
        if let Some(at) = text.find(LAST) {
            text.truncate(at + LAST.len());
        }
    });
}

fn compare(path: &str, original: &Value, ours: &Value, out: &mut Vec<String>) {
    match (original, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => compare(&format!("{path}.{key}"), a, b, out),
                    (Some(a), None) => out.push(format!("{path}.{key}: {a}, ours lacks it")),
                    (None, Some(b)) => out.push(format!("{path}.{key}: only ours has {b}")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{i}]"), a, b, out);
            }
        }
        (a, b) if a != b => out.push(format!("{path}: {a}, ours {b}")),
        _ => {}
    }
}
