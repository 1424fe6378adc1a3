//! The constraints a custom resource's schema puts on a value, compiled from JSON schema keywords.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::pattern::{Pattern, Patterns};

#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub nullable: bool,
    /// The whole is an object of some kind, with `apiVersion`, `kind` and `metadata`.
    pub embedded: bool,
    /// What the value may be; in order for those who are told.
    pub allowed: Vec<Value>,
    pub allowed_set: HashSet<Value>,
    pub required: Vec<Box<str>>,
    pub pattern: Option<Pattern>,
    pub format: Option<Box<str>>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
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
        let (all_of, any_of, one_of) = (logics("allOf"), logics("anyOf"), logics("oneOf"));
        let not = schema.get("not").map(|not| Box::new(Logic::read(not, &format!("{path}.not"), reading)));
        Self {
            nullable: flag("nullable"),
            embedded: flag("x-kubernetes-embedded-resource"),
            allowed_set: list("enum").into_iter().collect(),
            allowed: list("enum"),
            required: list("required").iter().filter_map(Value::as_str).map(Into::into).collect(),
            pattern,
            format: schema.get("format").and_then(Value::as_str).map(Into::into),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: flag("uniqueItems"),
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
