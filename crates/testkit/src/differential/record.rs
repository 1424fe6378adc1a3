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

/// A place at which two answers differ: `code`, `warnings`, or a path in the body that begins with a dot.
#[derive(Debug, PartialEq)]
pub struct Difference {
    pub at: String,
    /// What is there, in one line.
    pub what: String,
}

impl Difference {
    /// Whether it lies at `path` or below it.
    pub fn is_below(&self, path: &str) -> bool {
        self.at.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// The places at which two answers differ. Where their codes do, nothing else is compared.
pub fn differences(original: &Answer, ours: &Answer) -> Vec<Difference> {
    let mut out = Vec::new();
    if original.code != ours.code {
        let message = |a: &Answer| a.body["message"].as_str().unwrap_or_default().to_owned();
        let what =
            format!("{} ({}), ours {} ({})", original.code, message(original), ours.code, message(ours));
        return vec![Difference { at: "code".into(), what }];
    }
    if original.warnings != ours.warnings {
        let what = format!("{:?}, ours {:?}", original.warnings, ours.warnings);
        out.push(Difference { at: "warnings".into(), what });
    }
    let (mut theirs, mut own) = (original.body.clone(), ours.body.clone());
    // Some values the original shows by the names of its own types, which no client knows.
    let names_types = shows_types(&theirs);
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

/// Where values that are objects or lists stand in messages.
const VALUES: &[&str] = &["Invalid value: ", "Unsupported value: ", "Duplicate value: "];

/// Whether a value is shown by names that begin as those of Go's fields do.
fn shows_types(body: &Value) -> bool {
    match body {
        Value::String(text) => {
            VALUES.iter().any(|word| {
                let shown = text.split(word).skip(1).map(|rest| rest.trim_start_matches(['[', '{', '"']));
                let lists = text.contains(&format!("{word}{{")) || text.contains(&format!("{word}[{{"));
                lists && shown.into_iter().any(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
            }) || text.contains("\"Spec\":{")
        }
        Value::Array(items) => items.iter().any(shows_types),
        Value::Object(map) => map.values().any(shows_types),
        _ => false,
    }
}

/// Leaves out objects and lists of them within messages.
fn without_values(body: &mut Value) {
    texts(body, |text| {
        for word in VALUES {
            let mut from = 0;
            while let Some(start) = text[from..].find(word).map(|at| from + at + word.len()) {
                from = start;
                if !text[start..].starts_with(['{', '[']) {
                    continue;
                }
                let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
                if let Some(Ok(_)) = values.next() {
                    let end = start + values.byte_offset();
                    text.replace_range(start..end, "<object>");
                }
            }
        }
    });
}

/// What follows these words is a comparison of the original's own types.
fn without_listing(body: &mut Value) {
    const LAST: &[&str] = &[
        "(allow it to be set to 1 if it was previously negative)",
        "except resources.requests and volumeAttributesClassName for bound claims",
        "spec.persistentvolumesource is immutable after creation",
    ];
    texts(body, |text| {
        for last in LAST {
            if let Some(at) = text.find(last) {
                text.truncate(at + last.len());
            }
        }
    });
}

fn compare(path: &str, original: &Value, ours: &Value, out: &mut Vec<Difference>) {
    match (original, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let at = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => compare(&at, a, b, out),
                    (Some(a), None) => out.push(Difference { at, what: format!("{a}, ours lacks it") }),
                    (None, Some(b)) => out.push(Difference { at, what: format!("only ours has {b}") }),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{i}]"), a, b, out);
            }
        }
        (a, b) if a != b => {
            out.push(Difference { at: path.to_owned(), what: format!("{a}, ours {b}") });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(code: u16, body: Value) -> Answer {
        Answer { code, warnings: Vec::new(), body }
    }

    #[test]
    fn differences_are_found_where_they_are() {
        let theirs = answer(200, json!({"rows": [{"cells": ["a", 1]}, {"cells": ["b"]}], "kind": "Table"}));
        let ours = answer(200, json!({"rows": [{"cells": ["a", 2]}, {"cells": ["b"]}], "extra": true}));
        let found = differences(&theirs, &ours);
        let at: Vec<&str> = found.iter().map(|d| d.at.as_str()).collect();
        assert_eq!(at, [".kind", ".rows[0].cells[1]", ".extra"]);
        let cell = &found[1];
        for path in [".rows", ".rows[0]", ".rows[0].cells", ".rows[0].cells[1]"] {
            assert!(cell.is_below(path), "{path}");
        }
        for path in [".rows[1]", ".row", ".rows[0].cells[10]", "code"] {
            assert!(!cell.is_below(path), "{path}");
        }
        let codes = differences(&theirs, &answer(404, json!({})));
        assert_eq!(codes[0].at, "code");
    }
}
