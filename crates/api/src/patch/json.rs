//! JSON patch (RFC 6902), as the original reads it: places in lists may be counted from the end, members that are not there
//! may be replaced and are copied as nothing, and the object as a whole is only ever replaced or tested.

use serde_json::{Map, Value};

use super::{MAX_COPIED_BYTES, MAX_JSON_PATCH_OPERATIONS, MAX_SHIFTED, PatchError, word};

type Result<T> = std::result::Result<T, PatchError>;

fn fail<T>(why: String) -> Result<T> {
    Err(PatchError::JsonPatch(why))
}

/// Applies a patch. Nothing of it is applied when one operation fails.
pub fn json(original: &Value, patch: &Value) -> Result<Value> {
    let malformed = |value: &Value, what: &str| {
        Err(PatchError::Malformed(format!("{} into Go value of type {what}", word(value))))
    };
    let Some(operations) = patch.as_array() else { return malformed(patch, "[]handlers.jsonPatchOp") };
    if let Some(other) = operations.iter().find(|o| !o.is_object() && !o.is_null()) {
        return malformed(other, "handlers.jsonPatchOp");
    }
    for operation in operations {
        for field in ["op", "path", "from"] {
            if let Some(other) = operation.get(field).filter(|value| !value.is_string() && !value.is_null()) {
                let field =
                    format!("{} into Go struct field jsonPatchOp.{field} of type string", word(other));
                return Err(PatchError::Malformed(field));
            }
        }
    }
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut value = original.clone();
    let mut spent = Spent::default();
    for operation in operations {
        perform(&mut value, operation, &mut spent).map_err(|fault| named(operation, fault))?;
    }
    Ok(value)
}

/// A fault of an operation, which says which one it is.
fn named(operation: &Value, fault: PatchError) -> PatchError {
    match (operation.get("op").and_then(Value::as_str), fault) {
        (Some(name @ ("add" | "remove" | "replace" | "move" | "copy")), PatchError::JsonPatch(why)) => {
            PatchError::JsonPatch(format!("{name} operation does not apply: {why}"))
        }
        (_, other) => other,
    }
}

/// What operations have taken so far. Each is cheap in its text, and dear in a long list or as a copy of copies.
#[derive(Default)]
struct Spent {
    copied_bytes: usize,
    shifted: usize,
}

impl Spent {
    fn shifts(&mut self, elements: usize) -> Result<()> {
        self.shifted = self.shifted.saturating_add(elements);
        if self.shifted > MAX_SHIFTED { Err(PatchError::ShiftsTooMuch) } else { Ok(()) }
    }
}

fn perform(object: &mut Value, operation: &Value, spent: &mut Spent) -> Result<()> {
    let text = |field: &'static str| {
        let found = operation.get(field).and_then(Value::as_str);
        found.map_or_else(|| fail(format!("an operation has no {field}")), Ok)
    };
    let given = || operation.get("value").cloned().unwrap_or_default();
    match operation.get("op").and_then(Value::as_str).unwrap_or("unknown") {
        "add" => add(object, text("path")?, given(), spent),
        "remove" => remove(object, text("path")?, spent).map(drop),
        "replace" => replace(object, text("path")?, given()),
        "test" => test(object, text("path")?, &given()),
        "move" => {
            let from = text("from")?;
            let moved = remove(object, from, spent)?;
            add(object, text("path")?, moved, spent)
        }
        "copy" => {
            let found = get(object, text("from")?)?.cloned().unwrap_or_default();
            let path = text("path")?;
            // Copies of copies double what there is with each operation: what they add is counted as it comes.
            spent.copied_bytes += size_bytes(&found);
            if spent.copied_bytes > MAX_COPIED_BYTES {
                return Err(PatchError::CopiesTooMuch);
            }
            add(object, path, found, spent)
        }
        other => fail(format!("Unexpected kind: {other}")),
    }
}

fn decoded(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

/// What holds the last step of a path, and that step.
fn holder<'v>(object: &'v mut Value, path: &str) -> Result<(&'v mut Value, String)> {
    let missing = || PatchError::JsonPatch(format!("doc is missing path: {path}: missing value"));
    let mut steps = path.split('/').skip(1).collect::<Vec<_>>();
    let last = steps.pop().ok_or_else(missing)?;
    let mut place = object;
    for step in steps {
        place = match place {
            Value::Object(map) => map.get_mut(&decoded(step)),
            Value::Array(items) => index(&decoded(step), items.len()).and_then(|at| items.get_mut(at)),
            _ => None,
        }
        .ok_or_else(missing)?;
    }
    match place.is_object() || place.is_array() {
        true => Ok((place, decoded(last))),
        false => Err(missing()),
    }
}

/// A place in a list, from its end where it is negative.
fn index(key: &str, length: usize) -> Option<usize> {
    let at: i64 = key.parse().ok()?;
    match usize::try_from(at) {
        Ok(at) => Some(at),
        Err(_) => length.checked_sub(usize::try_from(at.unsigned_abs()).ok()?),
    }
}

fn bad_index<T>(key: &str) -> Result<T> {
    fail(format!("Unable to access invalid index: {key}"))
}

/// A member that is not there is none; an element that is not there is a fault.
fn get<'v>(object: &'v mut Value, path: &str) -> Result<Option<&'v Value>> {
    let (holder, key) = holder(object, path)?;
    match &*holder {
        Value::Array(items) => match index(&key, items.len()).and_then(|at| items.get(at)) {
            Some(item) => Ok(Some(item)),
            None => bad_index(&key),
        },
        other => Ok(other.get(&key)),
    }
}

fn add(object: &mut Value, path: &str, value: Value, spent: &mut Spent) -> Result<()> {
    let (holder, key) = holder(object, path)?;
    match holder {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => match index(&key, items.len() + 1).filter(|at| *at <= items.len()) {
            Some(at) => {
                spent.shifts(items.len() - at)?;
                items.insert(at, value);
            }
            None => return bad_index(&key),
        },
        Value::Object(map) => drop(map.insert(key, value)),
        _ => {}
    }
    Ok(())
}

fn remove(object: &mut Value, path: &str, spent: &mut Spent) -> Result<Value> {
    let (holder, key) = holder(object, path)?;
    match holder {
        Value::Array(items) => match index(&key, items.len()).filter(|at| *at < items.len()) {
            Some(at) => {
                spent.shifts(items.len() - at)?;
                Ok(items.remove(at))
            }
            None => bad_index(&key),
        },
        other => match other.as_object_mut().and_then(|map| map.remove(&key)) {
            Some(removed) => Ok(removed),
            None => fail(format!("Unable to remove nonexistent key: {key}")),
        },
    }
}

fn replace(object: &mut Value, path: &str, value: Value) -> Result<()> {
    if path.is_empty() {
        // Nothing makes an object of nothing.
        *object = match value {
            Value::Null => Value::Object(Map::new()),
            whole @ (Value::Object(_) | Value::Array(_)) => whole,
            _ => return fail("replace operation value must be object or array".into()),
        };
        return Ok(());
    }
    let (holder, key) = holder(object, path)?;
    match holder {
        Value::Array(items) => match index(&key, items.len()).and_then(|at| items.get_mut(at)) {
            Some(item) => *item = value,
            None => return bad_index(&key),
        },
        Value::Object(map) => drop(map.insert(key, value)),
        _ => {}
    }
    Ok(())
}

fn test(object: &mut Value, path: &str, value: &Value) -> Result<()> {
    let holds = match path {
        "" => &*object == value,
        // What is not there is nothing.
        path => get(object, path)?.unwrap_or(&Value::Null) == value,
    };
    if holds { Ok(()) } else { Err(PatchError::TestFailed(path.to_owned())) }
}

/// About what a value takes as JSON.
pub(crate) fn size_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 8,
        Value::Array(items) => 8 + items.iter().map(size_bytes).sum::<usize>(),
        Value::Object(fields) => {
            8 + fields.iter().map(|(name, item)| name.len() + 8 + size_bytes(item)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_the_standard_has_it() {
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
        assert!(matches!(json(&original, &failing), Err(PatchError::TestFailed(_))));
        assert!(matches!(json(&original, &json!({"a": 1})), Err(PatchError::Malformed(_))));
        assert!(matches!(json(&original, &json!([{"op": "bad"}])), Err(PatchError::JsonPatch(_))));
        let many = Value::Array(vec![json!({"op": "test", "path": "", "value": 1}); 10_001]);
        assert!(matches!(json(&original, &many), Err(PatchError::TooManyOperations(10_001))));
    }

    #[test]
    fn as_the_original_reads_it() {
        let of = |patch: Value| json(&json!({"l": [1, 2, 3], "m": {}}), &patch).map_err(|e| e.to_string());
        for (patch, list) in [
            (json!({"op": "add", "path": "/l/-1", "value": 4}), json!([1, 2, 3, 4])),
            (json!({"op": "add", "path": "/l/-4", "value": 0}), json!([0, 1, 2, 3])),
            (json!({"op": "remove", "path": "/l/-1"}), json!([1, 2])),
            (json!({"op": "replace", "path": "/l/01", "value": 9}), json!([1, 9, 3])),
            (json!({"op": "move", "from": "/l/0", "path": "/l/-"}), json!([2, 3, 1])),
            (json!({"op": "test", "path": "/m/none", "value": null}), json!([1, 2, 3])),
            (json!({"op": "test", "path": "/m/none"}), json!([1, 2, 3])),
        ] {
            assert_eq!(of(json!([patch])).map(|v| v["l"].clone()), Ok(list), "{patch}");
        }
        for refused in [
            json!({"op": "add", "path": "", "value": {}}),
            json!({"op": "add", "path": "l", "value": {}}),
            json!({"op": "remove", "path": "/l/-4"}),
            json!({"op": "remove", "path": "/l/-"}),
            json!({"op": "replace", "path": "", "value": "x"}),
            json!({"op": "test", "path": "/l/7", "value": null}),
            json!({"op": "copy", "from": "", "path": "/m/x"}),
            json!({"op": "add", "value": 1}),
            json!({"op": "ADD", "path": "/m/x", "value": 1}),
            Value::Null,
        ] {
            assert!(of(json!([refused])).is_err(), "{refused}");
        }
        assert_eq!(of(json!([{"op": "replace", "path": "", "value": {"a": 1}}])), Ok(json!({"a": 1})));
        let typed = of(json!([{"op": "add", "path": 1, "value": 1}]));
        assert!(
            typed.is_err_and(|e| e.ends_with("number into Go struct field jsonPatchOp.path of type string"))
        );
    }

    #[test]
    fn shifting_long_lists_again_and_again_is_stopped() {
        let long = json!({"l": vec![1; 100_000]});
        for operation in [
            json!({"op": "add", "path": "/l/0", "value": 0}),
            json!({"op": "remove", "path": "/l/0"}),
            json!({"op": "move", "from": "/l/0", "path": "/l/-"}),
        ] {
            let patch = |times: usize| Value::Array(vec![operation.clone(); times]);
            assert!(json(&long, &patch(100)).is_ok(), "{operation}");
            assert!(matches!(json(&long, &patch(1_000)), Err(PatchError::ShiftsTooMuch)), "{operation}");
        }
        let appended = json!({"op": "add", "path": "/l/-", "value": 0});
        assert!(json(&long, &Value::Array(vec![appended; 8_000])).is_ok());
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
