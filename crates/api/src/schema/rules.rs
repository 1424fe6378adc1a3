//! The constraints a custom resource's schema puts on a value, compiled from JSON schema keywords.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::formats::{self, Format};
use super::pattern::{Pattern, Patterns};

#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub nullable: bool,
    /// Nothing may be in it.
    pub closed: bool,
    /// The whole is an object of some kind, with `apiVersion`, `kind` and `metadata`.
    pub embedded: bool,
    /// What the value may be; in order for those who are told.
    pub allowed: Vec<Value>,
    pub allowed_set: HashSet<Value>,
    pub required: Vec<Box<str>>,
    pub pattern: Option<Pattern>,
    /// Only such as values are checked against.
    pub format: Option<Box<str>>,
    pub text_format: Option<Format>,
    pub is_integer: bool,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub all_of: Vec<Logic>,
    pub any_of: Vec<Logic>,
    pub one_of: Vec<Logic>,
    pub not: Option<Box<Logic>>,
}

/// A schema below `allOf`, `anyOf`, `oneOf` or `not`: constraints without structure of its own.
#[derive(Debug, Clone, Default)]
pub struct Logic {
    pub json_type: Option<Box<str>>,
    pub rules: Rules,
    pub properties: BTreeMap<Box<str>, Logic>,
    pub items: Option<Box<Logic>>,
    pub additional: Option<Box<Logic>>,
}

/// What reading a schema comes to beside the rules.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Problems, each with its path before it.
    pub errors: Vec<String>,
    pub patterns: Patterns,
}

impl Rules {
    /// Whether the value is one of those that are allowed. A float is compared with a whole number by its whole part.
    pub(super) fn allows(&self, value: &Value) -> bool {
        let whole = |value: &Value| value.as_f64().filter(|_| value.is_f64()).map(f64::trunc);
        if self.allowed_set.contains(value) {
            return !value.is_null();
        }
        let same = |allowed: &Value| match (allowed.as_f64(), whole(value)) {
            (Some(allowed_number), Some(whole)) if !allowed.is_f64() => allowed_number == whole,
            (Some(allowed_number), None) if value.is_number() => {
                allowed_number == value.as_f64().unwrap_or(0.0)
            }
            (Some(allowed_number), _) => Some(allowed_number) == value.as_f64(),
            _ => false,
        };
        value.is_number() && self.allowed.iter().any(same)
    }

    /// Reads the keywords of one schema; problems are told with `path` before them.
    pub(super) fn read(schema: &Value, path: &str, reading: &mut Reading) -> Self {
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let count = |key: &str| schema.get(key).and_then(Value::as_u64);
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        let list = |key: &str| schema.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let pattern = schema.get("pattern").and_then(Value::as_str).filter(|pattern| !pattern.is_empty());
        let pattern = pattern.and_then(|pattern| {
            let read = reading.patterns.read(pattern);
            read.map_err(|error| {
                reading.errors.push(format!("{path}.pattern: Invalid value: {pattern:?}: must be a valid regular expression, but isn't: {error}"));
            })
            .ok()
        });
        let mut logics = |key: &str| -> Vec<Logic> {
            list(key)
                .iter()
                .enumerate()
                .map(|(at, schema)| Logic::read(schema, &format!("{path}.{key}[{at}]"), reading))
                .collect()
        };
        let json_type = schema.get("type").and_then(Value::as_str).unwrap_or_default();
        let format = schema.get("format").and_then(Value::as_str);
        let either = flag("x-kubernetes-int-or-string");
        let format = format.filter(|format| formats::is_known(if either { "" } else { json_type }, format));
        let is_text = matches!(json_type, "" | "string");
        let (all_of, any_of, one_of) = (logics("allOf"), logics("anyOf"), logics("oneOf"));
        let not = schema.get("not").map(|not| Box::new(Logic::read(not, &format!("{path}.not"), reading)));
        Self {
            nullable: flag("nullable"),
            closed: schema.get("additionalProperties") == Some(&Value::Bool(false)),
            embedded: flag("x-kubernetes-embedded-resource"),
            allowed_set: list("enum").into_iter().collect(),
            allowed: list("enum"),
            required: list("required").iter().filter_map(Value::as_str).map(Into::into).collect(),
            pattern,
            text_format: format.filter(|_| is_text).and_then(formats::of_text),
            format: format.map(Into::into),
            is_integer: json_type == "integer",
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            all_of,
            any_of,
            one_of,
            not,
        }
    }
}

impl Logic {
    fn read(schema: &Value, path: &str, reading: &mut Reading) -> Self {
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let properties = properties
            .map(|(name, schema)| {
                (name.as_str().into(), Self::read(schema, &format!("{path}.properties[{name}]"), reading))
            })
            .collect();
        let mut inner = |key: &str| {
            let schema = schema.get(key).filter(|schema| schema.is_object())?;
            Some(Box::new(Self::read(schema, &format!("{path}.{key}"), reading)))
        };
        let (items, additional) = (inner("items"), inner("additionalProperties"));
        Self {
            json_type: schema.get("type").and_then(Value::as_str).map(Into::into),
            rules: Rules::read(schema, path, reading),
            properties,
            items,
            additional,
        }
    }
}
