//! What two servers cannot have in common is replaced by a word: uids, versions, times, ages, random suffixes. All else
//! is compared as it is.

use std::collections::HashMap;

use serde_json::Value;

use super::record::Answer;

/// Remembers the uids of a case, which stand in labels and messages too.
pub struct Normal {
    uids: HashMap<String, String>,
}

/// Fields that hold a version or a time, wherever they stand.
const VERSIONS: &[&str] = &["resourceVersion"];
const TIMES: &[&str] = &[
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "timeAdded",
    "lastTransitionTime",
    "lastUpdateTime",
    "lastPhaseTransitionTime",
    "allocationTimestamp",
];
/// A suffix of five random letters follows these.
const SUFFIXED: &[&str] = &["kube-api-access-"];

impl Normal {
    pub fn new() -> Self {
        Self { uids: HashMap::new() }
    }

    pub fn learn(&mut self, body: &Value) {
        match body {
            Value::Object(map) => {
                if let Some(uid) = map.get("uid").and_then(Value::as_str)
                    && uid.len() == 36
                {
                    self.uids.entry(uid.to_owned()).or_insert_with(|| "<uid>".to_owned());
                }
                map.values().for_each(|v| self.learn(v));
            }
            Value::Array(items) => items.iter().for_each(|v| self.learn(v)),
            _ => {}
        }
    }

    pub fn answer(&mut self, answer: Answer) -> Answer {
        self.learn(&answer.body);
        let mut body = answer.body;
        leave_out_own(&mut body);
        self.settle("", &mut body);
        if body["kind"] == "Table" {
            settle_table(&mut body);
        }
        for event in body.as_array_mut().into_iter().flatten() {
            if event["object"]["kind"] == "Table" {
                settle_table(&mut event["object"]);
            }
        }
        let warnings = answer.warnings.iter().map(|w| self.text(w)).collect();
        Answer { code: answer.code, warnings, body }
    }

    fn settle(&self, name: &str, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    self.settle(key, value);
                }
            }
            Value::Array(items) => {
                items.iter_mut().for_each(|v| self.settle(name, v));
                // By time first, which is a matter of how fast a server is.
                if name == "managedFields" {
                    let text = |v: &Value, field: &str| v[field].as_str().unwrap_or_default().to_owned();
                    let keys = ["operation", "manager", "subresource", "apiVersion"];
                    items.sort_by_cached_key(|v| keys.map(|key| text(v, key)));
                }
            }
            Value::String(text) => {
                if VERSIONS.contains(&name) && text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
                    *text = "<version>".into();
                } else if TIMES.contains(&name) && is_now(text) {
                    *text = "<time>".into();
                } else {
                    *text = self.text(text);
                }
            }
            _ => {}
        }
    }

    fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (uid, word) in &self.uids {
            if out.contains(uid) {
                out = out.replace(uid, word);
            }
        }
        // Those of objects that were only tried stand nowhere else.
        while let Some(at) = find_uid(&out) {
            out.replace_range(at..at + UID_LENGTH, "<uid>");
        }
        // A whole object within a message, and the original's listing of how its own types differ.
        if let Some(start) = out.find("Invalid value: \"{\\\"apiVersion")
            && let Some(end) = out[start..].find("}\": ")
        {
            out.replace_range(start..start + end + 2, "Invalid value: <object>");
        }
        if let Some(at) = out.find("\n@@ ") {
            out.truncate(at);
        }
        for prefix in SUFFIXED {
            if let Some(at) = out.find(prefix) {
                let start = at + prefix.len();
                let end = (start + 5).min(out.len());
                if out.is_char_boundary(end) {
                    out.replace_range(start..end, "<suffix>");
                }
            }
        }
        out
    }
}

/// Who writes the condition of flow schemas in a server, some time after they have been written.
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";

/// What a server writes by itself at a time of its own. That it does is tested where it is done.
fn leave_out_own(value: &mut Value) {
    let own = |condition: &Value| {
        condition["type"] == "Dangling"
            && (condition["reason"] == "Found" || condition["reason"] == "NotFound")
    };
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(entries)) = map.get_mut("managedFields") {
                entries.retain(|entry| entry["manager"] != CONSUMER);
            }
            let conditions = map.get_mut("conditions").and_then(Value::as_array_mut);
            if conditions.as_ref().is_some_and(|all| all.iter().any(own)) {
                conditions.into_iter().for_each(|all| all.retain(|condition| !own(condition)));
                map.retain(|name, value| name != "conditions" || *value != Value::Array(Vec::new()));
            }
            map.values_mut().for_each(leave_out_own);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_own),
        _ => {}
    }
}

impl Default for Normal {
    fn default() -> Self {
        Self::new()
    }
}

const UID_LENGTH: usize = 36;

/// Where a text has a uid of version 4.
fn find_uid(text: &str) -> Option<usize> {
    let is_uid = |bytes: &[u8]| {
        bytes.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            14 => *b == b'4',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(b),
        })
    };
    text.as_bytes().windows(UID_LENGTH).position(is_uid)
}

/// A time of this run, not one that the case gave.
fn is_now(text: &str) -> bool {
    text.len() >= 20 && text.ends_with('Z') && !text.starts_with("2026-01-02T")
}

/// How long ago something was, as tables show it: `5s`, `2m10s`, `328d`, `2y1d`. It is another tomorrow, also of what a case
/// dates itself.
fn is_age(text: &str) -> bool {
    let mut parts = text.split_inclusive(|c: char| !c.is_ascii_digit());
    !text.is_empty()
        && parts.all(|part| {
            let digits = part.trim_end_matches(['s', 'm', 'h', 'd', 'y']);
            digits.len() + 1 == part.len() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        })
}

/// Cells that grow with time. What the columns are is compared once, in the list.
fn settle_table(table: &mut Value) {
    // How columns are described is prose, and no client shows it.
    for column in table["columnDefinitions"].as_array_mut().into_iter().flatten() {
        column["description"] = "".into();
    }
    let columns = table["columnDefinitions"].as_array().into_iter().flatten();
    let missing = columns.enumerate().find(|(_, column)| column["name"] == "MissingPL").map(|(i, _)| i);
    for row in table["rows"].as_array_mut().into_iter().flatten() {
        // Of flow schemas, what the server finds out by itself.
        if let Some(cell) = missing.and_then(|i| row["cells"].get_mut(i)) {
            *cell = "<missing>".into();
        }
        for cell in row["cells"].as_array_mut().into_iter().flatten() {
            if cell.as_str().is_some_and(|text| is_age(text) || is_now(text)) {
                *cell = "<age>".into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_from_other_words() {
        for text in ["0s", "59s", "2m10s", "5h", "328d", "2y1d", "10y"] {
            assert!(is_age(text), "{text}");
        }
        for text in ["", "s", "1", "0/1", "d5", "5x", "1.5h", "Running", "5ss", "<none>"] {
            assert!(!is_age(text), "{text}");
        }
    }
}
