//! What the published definitions state of types and the facts table has no room for: fields that must be there although
//! the server fills them in or does without, unions, and the groups that options belong to.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// Type, field (or nothing), member and value (as JSON; `null` takes the member away).
static TABLE: &str = include_str!("stated.tsv");

/// All group versions that are known, served or not: options are a kind of each.
static REGISTERED: &str = include_str!("registered.txt");

/// Members and their values, by type and field.
type ByPlace = HashMap<(&'static str, &'static str), Vec<(&'static str, Value)>>;

static BY_PLACE: LazyLock<ByPlace> = LazyLock::new(|| {
    let mut out = ByPlace::new();
    for line in TABLE.lines() {
        let mut cells = line.splitn(4, '\t');
        let mut cell = || cells.next().unwrap_or_default();
        let (model, field, member, value) = (cell(), cell(), cell(), cell());
        out.entry((model, field))
            .or_default()
            .push((member, serde_json::from_str(value).unwrap_or_default()));
    }
    out
});

/// Puts what is stated of a type, or of a field of it, into its schema.
pub(super) fn put(model: &str, field: &str, schema: &mut Map<String, Value>) {
    for (member, value) in BY_PLACE.get(&(model, field)).into_iter().flatten() {
        match (*member, value) {
            (member, Value::Null) => drop(schema.remove(member)),
            ("required", Value::Array(more)) => {
                let list = schema.entry("required").or_insert_with(|| json!([]));
                list.as_array_mut().into_iter().for_each(|list| list.extend(more.iter().cloned()));
            }
            (member, value) => drop(schema.insert(member.to_owned(), value.clone())),
        }
    }
}

/// What the original's own groups for kinds, servers and admission are not registered beside.
const NOT_OF_CUSTOM: &[&str] =
    &["admission.k8s.io/", "apiextensions.k8s.io/", "apiregistration.k8s.io/", "imagepolicy.k8s.io/"];

/// The kinds that options are in the document of a custom resource, which is made elsewhere.
pub(super) fn of_custom(kind: &str) -> Value {
    let lines = REGISTERED.lines().filter(|line| !NOT_OF_CUSTOM.iter().any(|group| line.starts_with(group)));
    let entry = |(group, version): (&str, &str)| json!({"group": group, "version": version, "kind": kind});
    lines.filter_map(|line| line.split_once('/')).map(entry).collect()
}

/// The kinds that options and events are, in a document of one group and version, or of all.
pub(super) fn of_every_group(kind: &str, of: Option<(&str, &str)>) -> Value {
    let entry = |(group, version): (&str, &str)| json!({"group": group, "version": version, "kind": kind});
    match of {
        None => REGISTERED.lines().filter_map(|line| line.split_once('/')).map(entry).collect(),
        Some(("", "v1")) => json!([entry(("", "v1"))]),
        Some(own) => json!([entry(("", "v1")), entry(own)]),
    }
}
