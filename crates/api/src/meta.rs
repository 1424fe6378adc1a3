//! What the server does with any object without knowing its kind: reading and writing `metadata`, and the
//! bytes that are stored. This is the only place that walks the untyped metadata of an object.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// `metadata` of an object, empty when it has none.
pub fn metadata(object: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    object.get("metadata").and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// `metadata`, made when there is none. `object` must be a JSON object; anything else is replaced by one.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let Value::Object(map) = object else { unreachable!("made an object above") };
    let metadata = map.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    let Value::Object(metadata) = metadata else { unreachable!("made an object above") };
    metadata
}

/// A string of `metadata`, empty when absent.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    metadata(object).get(field).and_then(Value::as_str).unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    text(object, "name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

pub fn generation(object: &Value) -> i64 {
    metadata(object).get("generation").and_then(Value::as_i64).unwrap_or(0)
}

pub fn is_deleting(object: &Value) -> bool {
    metadata(object).get("deletionTimestamp").is_some_and(|t| !t.is_null())
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = metadata(object).get("finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(field.to_owned(), value.into());
}

/// What a field held, which it holds no longer.
pub fn take(object: &mut Value, field: &str) -> Value {
    metadata_mut(object).remove(field).unwrap_or_default()
}

pub fn unset(object: &mut Value, field: &str) {
    metadata_mut(object).remove(field);
}

/// Labels (or annotations) as pairs of text.
pub fn pairs<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let map = metadata(object).get(field).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    metadata(object).get("annotations")?.get(key)?.as_str()
}

pub fn annotate(object: &mut Value, key: &str, value: &str) {
    let annotations = metadata_mut(object).entry("annotations").or_insert(Value::Null);
    match annotations {
        Value::Object(map) => drop(map.insert(key.to_owned(), value.into())),
        other => *other = serde_json::json!({key: value}),
    }
}

/// The stored form: `metadata` right behind `apiVersion` and `kind`, so that the resourceVersion's place is found
/// at once, and without `resourceVersion`, which only the commit knows.
pub fn to_stored(object: &Value) -> Bytes {
    let empty = Map::new();
    let map = object.as_object().unwrap_or(&empty);
    let mut out = Vec::with_capacity(STORED_BYTES);
    out.push(b'{');
    for key in ["apiVersion", "kind"] {
        map.get(key).iter().for_each(|value| member(&mut out, key, value));
    }
    opened(&mut out, "metadata");
    out.push(b'{');
    let metadata = metadata(object).iter().filter(|(key, _)| *key != "resourceVersion");
    metadata.for_each(|(key, value)| member(&mut out, key, value));
    out.push(b'}');
    let rest = map.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
    rest.for_each(|(key, value)| member(&mut out, key, value));
    out.push(b'}');
    // What is stored is kept for long, and in numbers.
    out.shrink_to_fit();
    Bytes::from(out)
}

/// Room for most objects.
const STORED_BYTES: usize = 4096;

fn member(out: &mut Vec<u8>, key: &str, value: &Value) {
    opened(out, key);
    written(out, value);
}

/// The name of a member, with what comes before and behind it.
fn opened(out: &mut Vec<u8>, key: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    written(out, key);
    out.push(b':');
}

fn written(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("JSON is written to memory");
}

/// Parses stored bytes and puts the revision in.
pub fn from_stored(bytes: &[u8], revision: u64) -> Result<Value, serde_json::Error> {
    let mut object: Value = serde_json::from_slice(bytes)?;
    set(&mut object, "resourceVersion", revision.to_string());
    Ok(object)
}

/// Appends stored bytes with `resourceVersion` put in, without parsing them.
pub fn write_served(out: &mut Vec<u8>, bytes: &[u8], revision: u64) {
    match metadata_offset(bytes) {
        Some(at) => {
            out.extend_from_slice(&bytes[..at]);
            write_version(out, &bytes[at..], revision);
        }
        None => out.extend_from_slice(bytes),
    }
}

/// Appends `resourceVersion` and what follows the opening bracket of the metadata.
fn write_version(out: &mut Vec<u8>, rest: &[u8], revision: u64) {
    out.extend_from_slice(VERSION);
    out.extend_from_slice(revision.to_string().as_bytes());
    out.push(b'"');
    if rest.first() != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(rest);
}

/// Stored bytes without `managedFields`.
pub fn lean(bytes: &[u8]) -> Cow<'_, [u8]> {
    match owners_span(bytes) {
        Some((from, to)) => Cow::Owned([&bytes[..from], &bytes[to..]].concat()),
        None => Cow::Borrowed(bytes),
    }
}

/// Where the member `managedFields` of the metadata stands, with one of the commas beside it.
fn owners_span(bytes: &[u8]) -> Option<(usize, usize)> {
    let start = metadata_offset(bytes)?;
    let mut at = start;
    while bytes.get(at) == Some(&b'"') {
        let value = string_end(bytes, at)? + 2;
        let end = value_end(bytes, value)?;
        if bytes[at..].starts_with(OWNERS) {
            // Before it stands the opening bracket or a comma.
            return Some(match bytes.get(end) {
                Some(b',') => (at, end + 1),
                _ if at > start => (at - 1, end),
                _ => (at, end),
            });
        }
        at = end + 1;
    }
    None
}

const OWNERS: &[u8] = b"\"managedFields\":";

/// Index behind the value that begins at `start`.
fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    match bytes.get(start)? {
        b'{' | b'[' => Some(object_end(bytes, start + 1)? + 1),
        b'"' => Some(string_end(bytes, start)? + 1),
        _ => {
            let rest = bytes[start..].iter().position(|b| matches!(b, b',' | b'}' | b']'))?;
            Some(start + rest)
        }
    }
}

/// As [`write_served`], as an element of a list of built-in objects: those name neither version nor kind.
pub fn write_item(out: &mut Vec<u8>, bytes: &[u8], revision: u64) {
    match metadata_offset(bytes) {
        // In the stored form only `apiVersion` and `kind` stand before it.
        Some(at) if bytes.starts_with(STORED) => {
            out.push(b'{');
            out.extend_from_slice(METADATA);
            write_version(out, &bytes[at..], revision);
        }
        _ => write_served(out, bytes, revision),
    }
}

/// How long [`write_item`] makes them.
pub fn item_length(bytes: &[u8], revision: u64) -> usize {
    let Some(at) = metadata_offset(bytes) else { return bytes.len() };
    let rest = &bytes[at..];
    let before = if bytes.starts_with(STORED) { 1 + METADATA.len() } else { at };
    let comma = usize::from(rest.first() != Some(&b'}'));
    let digits = revision.checked_ilog10().map_or(1, |log| log as usize + 1);
    before + VERSION.len() + digits + 1 + comma + rest.len()
}

/// Appends the `PartialObjectMetadata` of stored bytes, in a version of `meta.k8s.io`, without parsing them; `false` if they
/// have no metadata, and then nothing is appended.
pub fn write_partial(out: &mut Vec<u8>, bytes: &[u8], revision: u64, version: &str) -> bool {
    let Some(start) = metadata_offset(bytes) else { return false };
    let Some(end) = object_end(bytes, start) else { return false };
    let head = format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{{\"resourceVersion\":\"{revision}\""
    );
    out.extend_from_slice(head.as_bytes());
    if end > start {
        out.push(b',');
    }
    out.extend_from_slice(&bytes[start..end]);
    out.extend_from_slice(b"}}");
    true
}

const METADATA: &[u8] = b"\"metadata\":{";
const VERSION: &[u8] = b"\"resourceVersion\":\"";
/// What our stored form begins with.
const STORED: &[u8] = b"{\"apiVersion\":";

/// Index of the bracket that closes what is open at `start`.
fn object_end(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut at) = (1_usize, start);
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return Some(at),
            b'}' | b']' => depth -= 1,
            b'"' => at = string_end(bytes, at)?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the inside of the top-level `"metadata":{` begins.
fn metadata_offset(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = string_end(bytes, at)?;
                if depth == 1 && bytes[at..].starts_with(METADATA) {
                    return Some(at + METADATA.len());
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Index of the quote that closes the string which opens at `start`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_goes_in_without_parsing() {
        let object = json!({"data": {"metadata": "{\"metadata\":{"}, "kind": "X", "apiVersion": "v1",
            "metadata": {"name": "a", "resourceVersion": "7"}});
        let stored = to_stored(&object);
        assert!(!stored.windows(15).any(|w| w == b"resourceVersion"));
        let mut served = Vec::new();
        write_served(&mut served, &stored, 42);
        let served: Value = serde_json::from_slice(&served).expect("valid JSON");
        assert_eq!(resource_version(&served), "42");
        assert_eq!(served["data"], object["data"]);
        assert_eq!(from_stored(&stored, 42).expect("valid JSON"), served);
        let mut item = b"[".to_vec();
        write_item(&mut item, &stored, 42);
        assert_eq!(item_length(&stored, 42), item.len() - 1);
        let item: Value = serde_json::from_slice(&item[1..]).expect("valid JSON");
        assert_eq!(item, json!({"data": object["data"], "metadata": {"name": "a", "resourceVersion": "42"}}));
    }

    #[test]
    fn items_are_as_long_as_was_said() {
        for bytes in [
            "{}",
            "[]",
            "",
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"a":1}}"#,
            r#"{"apiVersion":"v1","metadata":{}}"#,
            r#"{"apiVersion":"v1","kind":"X","metadata":{"name":"a"},"data":{"metadata":{}}}"#,
            r#"{"apiVersion":"v1"}"#,
            r#"{"kind":"X","apiVersion":"v1","metadata":{"name":"a"}}"#,
        ] {
            for revision in [0, 1, 9, 10, 99, 100, 12_345, 1_000_000_000, u64::MAX] {
                let mut item = Vec::new();
                write_item(&mut item, bytes.as_bytes(), revision);
                assert_eq!(item_length(bytes.as_bytes(), revision), item.len(), "{bytes} {revision}");
            }
        }
    }

    #[test]
    fn bare_metadata_are_cut_out() {
        let object = json!({"kind": "X", "apiVersion": "v1", "spec": {"a": 1},
            "metadata": {"name": "a", "annotations": {"}": "\"}{\\"}, "ownerReferences": [{"uid": "u"}]}});
        for (stored, revision) in [(to_stored(&object), 42), (Bytes::from_static(br#"{"metadata":{}}"#), 1)] {
            let mut partial = Vec::new();
            assert!(write_partial(&mut partial, &stored, revision, "v1"));
            let partial: Value = serde_json::from_slice(&partial).expect("valid JSON");
            let whole = from_stored(&stored, revision).expect("valid JSON");
            let expected = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": whole["metadata"]});
            assert_eq!(partial, expected);
        }
        assert!(!write_partial(&mut Vec::new(), b"{}", 1, "v1"));
    }

    #[test]
    fn owners_are_cut_out_wherever_they_stand() {
        let fields = json!([{"manager": "}],\"", "fieldsV1": {"f:a": {}}}]);
        for others in [
            json!({}),
            json!({"name": "x"}),
            json!({"a": 1}),
            json!({"a": [], "n": null, "z": {"managedFields": 1}}),
        ] {
            let mut metadata = others.clone();
            metadata["managedFields"] = fields.clone();
            let object =
                json!({"apiVersion": "v1", "kind": "X", "metadata": metadata, "spec": {"managedFields": 2}});
            let without =
                json!({"apiVersion": "v1", "kind": "X", "metadata": others, "spec": {"managedFields": 2}});
            let stored = to_stored(&object);
            assert_eq!(*lean(&stored), *to_stored(&without));
            assert_eq!(*lean(&to_stored(&without)), *to_stored(&without), "nothing to cut out");
        }
    }

    #[test]
    fn an_empty_metadata_takes_the_revision_too() {
        let mut served = Vec::new();
        write_served(&mut served, br#"{"kind":"X","metadata":{}}"#, 1);
        assert_eq!(served, br#"{"kind":"X","metadata":{"resourceVersion":"1"}}"#);
    }
}
