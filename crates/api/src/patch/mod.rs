//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch. Server-side
//! apply, the fourth, is in [`crate::apply`]. All are pure: an original and a patch give a new object.

mod order;
pub mod strategic;

use serde_json::Value;

/// As in the original, against patches that take unbounded work.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;
/// What an object may take anyway.
pub const MAX_COPIED_BYTES: usize = 3 << 20;

#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// Answered with 413.
    #[error("The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// Answered with 413.
    #[error("the copy operations of a JSON patch may add at most {MAX_COPIED_BYTES} bytes")]
    CopiesTooMuch,
    /// The patch is no patch at all: 400.
    #[error("error decoding patch: json: cannot unmarshal {0}")]
    Malformed(String),
    /// An operation cannot be understood: 422.
    #[error("an operation of the patch is not one: {0}")]
    Operation(#[source] serde_json::Error),
    /// The patch does not fit the object: 422.
    #[error("the patch does not fit: {0}")]
    JsonPatch(#[source] json_patch::PatchError),
    /// A directive is not what it must be: 400.
    #[error("invalid patch format of {0}")]
    Format(&'static str),
    /// The patch cannot be merged; the original has no word for it: 500.
    #[error("{0}")]
    Strategic(String),
    #[error("the patch or the object is not an object")]
    NotAnObject,
}

/// Applies an RFC 6902 patch. Nothing of it is applied when one operation fails.
pub fn json(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Some(operations) = patch.as_array() else {
        return Err(PatchError::Malformed(format!(
            "{} into Go value of type []handlers.jsonPatchOp",
            word(patch)
        )));
    };
    if let Some(other) = operations.iter().find(|operation| !operation.is_object()) {
        return Err(PatchError::Malformed(format!(
            "{} into Go value of type handlers.jsonPatchOp",
            word(other)
        )));
    }
    let count = operations.len();
    if count > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooManyOperations(count));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(PatchError::Operation)?;
    let mut value = original.clone();
    let mut copied = 0;
    for operation in patch.0 {
        // Copies of copies double what there is with each operation: what they add is counted as it comes.
        if let json_patch::PatchOperation::Copy(copy) = &operation {
            copied += value.pointer(&copy.from.to_string()).map_or(0, size_bytes);
            if copied > MAX_COPIED_BYTES {
                return Err(PatchError::CopiesTooMuch);
            }
        }
        let operation = lenient(operation, &value);
        json_patch::patch(&mut value, &[operation]).map_err(PatchError::JsonPatch)?;
    }
    Ok(value)
}

/// Where RFC 6902 would have a member that is there, the original does with one that is not: to replace it is to add it,
/// and what is copied from it is `null`.
fn lenient(operation: json_patch::PatchOperation, value: &Value) -> json_patch::PatchOperation {
    use json_patch::{AddOperation, PatchOperation};
    let lacks = |path: &json_patch::jsonptr::PointerBuf| {
        let (parent, _) = path.as_str().rsplit_once('/').unwrap_or_default();
        !path.as_str().is_empty()
            && value.pointer(path.as_str()).is_none()
            && value.pointer(parent).is_some_and(Value::is_object)
    };
    match operation {
        PatchOperation::Replace(replace) if lacks(&replace.path) => {
            PatchOperation::Add(AddOperation { path: replace.path, value: replace.value })
        }
        PatchOperation::Copy(copy) if lacks(&copy.from) => {
            PatchOperation::Add(AddOperation { path: copy.path, value: Value::Null })
        }
        other => other,
    }
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

/// About what a value takes as JSON.
fn size_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 8,
        Value::Array(items) => 8 + items.iter().map(size_bytes).sum::<usize>(),
        Value::Object(fields) => {
            8 + fields.iter().map(|(name, item)| name.len() + 8 + size_bytes(item)).sum::<usize>()
        }
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

    #[test]
    fn json_patches() {
        let original = json!({"a": {"b": [1, 2]}, "c~/d": 1});
        let patch = json!([
            {"op": "test", "path": "/a/b/0", "value": 1},
            {"op": "add", "path": "/a/b/-", "value": 3},
            {"op": "remove", "path": "/c~0~1d"},
            {"op": "replace", "path": "/a/b/0", "value": 0},
            {"op": "copy", "from": "/a/b", "path": "/x"},
            {"op": "move", "from": "/a/b", "path": "/y"},
        ]);
        assert_eq!(json(&original, &patch).unwrap(), json!({"a": {}, "x": [0, 2, 3], "y": [0, 2, 3]}));
        let lenient = json!([{"op": "replace", "path": "/n", "value": 1}, {"op": "copy", "from": "/none", "path": "/m"}]);
        assert_eq!(json(&json!({}), &lenient).unwrap(), json!({"n": 1, "m": null}));
        for missing in [
            json!([{"op": "replace", "path": "/l/3", "value": 1}]),
            json!([{"op": "replace", "path": "/x/y", "value": 1}]),
            json!([{"op": "move", "from": "/none", "path": "/m"}]),
            json!([{"op": "remove", "path": "/none"}]),
        ] {
            assert!(matches!(json(&json!({"l": []}), &missing), Err(PatchError::JsonPatch(_))), "{missing}");
        }
        let failing = json!([{"op": "test", "path": "/a", "value": 1}]);
        assert!(matches!(json(&original, &failing), Err(PatchError::JsonPatch(_))));
        assert!(matches!(json(&original, &json!({"a": 1})), Err(PatchError::Malformed(_))));
        assert!(matches!(json(&original, &json!([{"op": "bad"}])), Err(PatchError::Operation(_))));
        assert!(check_object(&json!([])).is_err_and(|e| e.contains("cannot unmarshal array into Go value")));
        let many = Value::Array(vec![json!({"op": "test", "path": "", "value": 1}); 10_001]);
        assert!(matches!(json(&original, &many), Err(PatchError::TooManyOperations(10_001))));
    }

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
    }

    #[test]
    fn copies_of_copies_are_stopped() {
        let copies = (0..40).map(|i| json!({"op": "copy", "from": "/z", "path": format!("/z/k{i}")}));
        let patch: Value =
            std::iter::once(json!({"op": "add", "path": "/z", "value": {}})).chain(copies).collect();
        assert!(matches!(json(&json!({}), &patch), Err(PatchError::CopiesTooMuch)));
        let one = json!([{"op": "copy", "from": "/a", "path": "/b"}]);
        assert_eq!(json(&json!({"a": 1}), &one).expect("one is fine"), json!({"a": 1, "b": 1}));
    }
}
