//! Parts of an object that a subresource of its own is over: which fields it may write, as data of the table.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// A subresource's part. What lies elsewhere stays as it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// The subresource's name.
    pub name: &'static str,
    /// Fields from the root, parted by dots; `[]` behind a name stands for each item of a list, found again by `name`.
    pub paths: &'static [&'static str],
}

/// `spec.finalizers` of a namespace, which a verb of its own takes over.
pub const FINALIZE: &Part = &Part { name: "finalize", paths: &[] };

impl Part {
    /// Takes the part from `from` into `to`.
    pub fn copy(&self, from: &Value, to: &mut Value) {
        for path in self.paths {
            let steps: Vec<&str> = path.split('.').collect();
            copy(from, to, &steps);
        }
    }
}

fn copy(from: &Value, to: &mut Value, steps: &[&str]) {
    let Some((step, rest)) = steps.split_first() else { return };
    if let Some(list) = step.strip_suffix("[]") {
        fn name(item: &Value) -> Option<&str> {
            item.get("name").and_then(Value::as_str)
        }
        // Of several alike the first counts.
        let given = from.get(list).and_then(Value::as_array).into_iter().flatten().rev();
        let given: HashMap<Option<&str>, &Value> = given.map(|item| (name(item), item)).collect();
        let held = to.get_mut(list).and_then(Value::as_array_mut);
        for item in held.into_iter().flatten() {
            if let Some(source) = given.get(&name(item)) {
                copy(source, item, rest);
            }
        }
        return;
    }
    let Value::Object(map) = to else { return };
    match (from.get(step), rest.is_empty()) {
        (Some(value), true) => drop(map.insert((*step).to_owned(), value.clone())),
        (None, true) => drop(map.remove(*step)),
        (given, false) => {
            let place = map.entry(*step).or_insert_with(|| Value::Object(Map::new()));
            copy(given.unwrap_or(&Value::Null), place, rest);
            if place.as_object().is_some_and(Map::is_empty) {
                map.remove(*step);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_part_is_taken() {
        const RESIZE: Part = Part { name: "resize", paths: &["spec.containers[].resources"] };
        let old =
            json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b"}], "nodeName": "n"}});
        let new = json!({"spec": {"containers": [{"name": "b", "resources": {"limits": {"cpu": "1"}}},
            {"name": "a", "image": "y", "resources": {}}, {"name": "c"}], "nodeName": "m"}});
        let mut out = old;
        RESIZE.copy(&new, &mut out);
        assert_eq!(
            out["spec"]["containers"],
            json!([{"name": "a", "image": "x", "resources": {}},
            {"name": "b", "resources": {"limits": {"cpu": "1"}}}])
        );
        assert_eq!(out["spec"]["nodeName"], "n");
    }
}
