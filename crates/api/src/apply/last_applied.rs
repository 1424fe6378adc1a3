//! `kubectl apply --server-side` of what `kubectl apply` wrote: while both are in use, the annotation in which the older
//! one keeps what it applied says who may change what, and follows the newer one.

use std::collections::BTreeSet;

use serde_json::Value;

use super::managed::canonical;
use super::{Writer, compare, field_set_of};
use crate::schema::typed;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Who migrates; whoever is called otherwise does not.
const MANAGER: &str = "kubectl";
/// All annotations together may take so much.
const ANNOTATIONS_LIMIT_BYTES: usize = 256 << 10;

fn annotation(object: &Value) -> Option<&str> {
    object.pointer("/metadata/annotations")?.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}

/// Fields that may change hands unforced: those that were applied before and are as they were applied. `None` where
/// nothing is known of it.
pub(super) fn allowed(live: Option<&Value>, writer: &Writer<'_>) -> Option<BTreeSet<String>> {
    let live = live.filter(|_| writer.manager == MANAGER)?;
    let last: Value = serde_json::from_str(annotation(live)?).ok()?;
    if last.get("apiVersion").and_then(Value::as_str) != Some(writer.api_version)
        || writer.schema.is_some_and(|schema| !typed::faults(schema, &last).is_empty())
    {
        return None;
    }
    let set = field_set_of(&last, writer.schema).ok()?;
    let changes = compare(&last, &canonical(Some(live), writer), writer.schema);
    let same = set.without(&changes.modified).without(&changes.added).without(&changes.removed);
    Some(same.paths().into_iter().collect())
}

/// Writes down what is applied now, if what was applied before is written down.
pub(super) fn keep(merged: &mut Value, config: &Value, writer: &Writer<'_>) {
    if writer.manager != MANAGER || annotation(merged).is_none() {
        return;
    }
    let Some(annotations) = merged.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.insert(ANNOTATION.to_owned(), text_of(config).into());
    let bytes = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(bytes).sum::<usize>() > ANNOTATIONS_LIMIT_BYTES {
        annotations.remove(ANNOTATION);
    }
}

/// As the original writes JSON, safe within HTML and with an end of line.
fn text_of(config: &Value) -> String {
    let mut config = config.clone();
    if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(ANNOTATION);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    let mut out = String::new();
    for letter in config.to_string().chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out += &format!("\\u{:04x}", letter as u32),
            other => out.push(other),
        }
    }
    out + "\n"
}
