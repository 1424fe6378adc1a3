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
    compare("", &original.body, &ours.body, &mut out);
    out
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
