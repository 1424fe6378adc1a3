//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch. Server-side
//! apply, the fourth, is in [`crate::apply`]. All are pure: an original and a patch give a new object.

mod json;
mod order;
pub mod strategic;

use serde_json::Value;

pub use json::json;
pub(crate) use json::size_bytes;

/// As in the original, against patches that take unbounded work.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;
/// What an object may take anyway.
pub const MAX_COPIED_BYTES: usize = 3 << 20;
/// Elements of lists that may be moved up and down to let others in and out.
pub const MAX_SHIFTED: usize = 32 << 20;

#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// Answered with 413.
    #[error("The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// Answered with 413.
    #[error("the copy operations of a JSON patch may add at most {MAX_COPIED_BYTES} bytes")]
    CopiesTooMuch,
    /// Answered with 413.
    #[error(
        "the operations of a JSON patch may move at most {MAX_SHIFTED} elements of lists to let others in and out"
    )]
    ShiftsTooMuch,
    /// The patch is no patch at all: 400.
    #[error("error decoding patch: json: cannot unmarshal {0}")]
    Malformed(String),
    /// The patch does not fit the object, or an operation cannot be understood: 422.
    #[error("the patch does not fit: {0}")]
    JsonPatch(String),
    /// What an operation tests is otherwise: 422.
    #[error("testing value {0} failed: test failed")]
    TestFailed(String),
    /// A directive is not what it must be: 400.
    #[error("invalid patch format of {0}")]
    Format(&'static str),
    /// The patch cannot be merged; the original has no word for it: 500.
    #[error("{0}")]
    Strategic(String),
    #[error("the patch or the object is not an object")]
    NotAnObject,
}

/// A merge patch, or a strategic one, must be an object.
pub fn check_object(patch: &Value) -> Result<(), String> {
    match patch {
        Value::Object(_) | Value::Null => Ok(()),
        other => Err(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            word(other)
        )),
    }
}

/// A value as Go prints it.
pub fn go_shown(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(go_shown).collect())),
        Value::Object(map) => {
            format!("map[{}]", joined(map.iter().map(|(k, v)| format!("{k}:{}", go_shown(v))).collect()))
        }
        other => other.to_string(),
    }
}

/// What Go calls the value.
fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Applies an RFC 7386 patch.
pub fn merge(original: &Value, patch: &Value) -> Value {
    let mut value = original.clone();
    merge_into(&mut value, patch);
    value
}

fn merge_into(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = value else { return };
    for (name, inner) in patch {
        match inner {
            Value::Null => {
                map.remove(name);
            }
            _ => merge_into(map.entry(name.clone()).or_insert(Value::Null), inner),
        }
    }
}

pub(crate) use order::interleave;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7386's appendix.
    #[test]
    fn merge_patches() {
        for (original, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            assert_eq!(merge(&original, &patch), expected, "{original} with {patch}");
        }
        assert!(check_object(&json!([])).is_err_and(|e| e.contains("cannot unmarshal array into Go value")));
    }
}
