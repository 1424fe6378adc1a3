//! What the published documents say of types and fields in words, and which values fields may have. Everything else about
//! a type comes from the facts table.

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

use serde_json::Value;

/// Gzipped lines, by `cargo xtask describe`: `M name text` a type, `F name text values values-of-elements` each of its fields,
/// all but the names in JSON.
static PACKED: &[u8] = include_bytes!("descriptions.tsv.gz");

#[derive(Default)]
struct Described {
    text: Option<String>,
    fields: HashMap<String, OfField>,
}

/// What is said of a field.
#[derive(Default)]
pub(super) struct OfField {
    pub text: Option<String>,
    /// The values it may have.
    pub values: Option<Value>,
    /// The values that its elements may have.
    pub element_values: Option<Value>,
}

static ALL: LazyLock<HashMap<String, Described>> = LazyLock::new(|| {
    let mut text = String::new();
    if let Err(error) = flate2::read::GzDecoder::new(PACKED).read_to_string(&mut text) {
        panic!("the embedded descriptions are damaged: {error}");
    }
    let mut out: HashMap<String, Described> = HashMap::new();
    let mut current = String::new();
    for line in text.lines() {
        let mut cells = line.split('\t');
        let mut cell = || cells.next().unwrap_or_default();
        let (what, name, text, values, element_values) = (cell(), cell(), cell(), cell(), cell());
        let text = serde_json::from_str(text).ok();
        if what == "M" {
            current = name.to_owned();
            out.insert(current.clone(), Described { text, fields: HashMap::new() });
            continue;
        }
        let (values, element_values) =
            (serde_json::from_str(values).ok(), serde_json::from_str(element_values).ok());
        let described = out.entry(current.clone()).or_default();
        described.fields.insert(name.to_owned(), OfField { text, values, element_values });
    }
    out
});

/// A type's own description.
pub(super) fn of_type(model: &str) -> Option<&'static str> {
    ALL.get(model)?.text.as_deref()
}

/// What is said of a field of a type.
pub(super) fn of_field(model: &str, field: &str) -> Option<&'static OfField> {
    ALL.get(model)?.fields.get(field)
}

pub(super) const LIST_METADATA: &str = "Standard list metadata. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// Of objects within custom resources.
pub(super) const EMBEDDED: &[(&str, &str)] = &[
    (
        "apiVersion",
        "apiVersion defines the versioned schema of this representation of an object. More info: \
         https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
    ),
    (
        "kind",
        "kind is a string value representing the type of this object. In CamelCase. More info: \
         https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    ),
];

pub(super) fn of_common(field: &str) -> Option<&'static str> {
    Some(match field {
        "apiVersion" => {
            "APIVersion defines the versioned schema of this representation of an object. Servers should convert \
             recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"
        }
        "kind" => {
            "Kind is a string value representing the REST resource this object represents. Servers may infer this \
             from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
        }
        "metadata" => {
            "Standard object's metadata. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
        }
        _ => return None,
    })
}
