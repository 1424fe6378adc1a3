//! What a version's `openAPIV3Schema` may be. Each family of rules has its file; here is the order in which they are asked,
//! and which of them need not be asked any more once others have found something.

mod defaults;
mod formats;
mod junctors;
mod keywords;
mod lists;
mod structural;

use serde_json::Value;

pub use formats::unrecognized;

use crate::kinds::Errors;
use crate::schema::pattern::Patterns;
use crate::schema::{expressions, from_version};
use crate::status::{FieldError, Problem};

/// What a schema may say at its root where the status is a subresource: of all else nobody could say whether it holds of the
/// status alone. By the names that the original's messages have, and by those of the fields.
const AT_ROOT: &[(&str, &str)] = &[
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];
/// What only compiling a schema can find.
const OF_COMPILING: &[&str] =
    &["must be a valid regular expression", "too large together", "the schema is nested too deeply"];
/// Fields that the original looks at before the type.
const BEFORE_TYPE: &[&str] = &["id", "$schema", "$ref"];

/// A schema at a place, `field` being that of the `openAPIV3Schema`.
pub fn check(schema: &Value, field: &str, has_status: bool, patterns: &mut Patterns, errors: &mut Errors) {
    let before = errors.0.len();
    if has_status {
        root(schema, field, errors);
    }
    if is_set(schema, "nullable") {
        errors
            .push(FieldError::forbidden(format!("{field}.nullable"), "nullable cannot be true at the root"));
    }
    let unsupported = keywords::unsupported(schema);
    let mut sound = unsupported.is_none();
    if sound {
        let found = structure(schema, field, patterns);
        sound = found.is_empty();
        errors.0.extend(found);
    }
    let keywords = keywords::faults(schema, field);
    let (_, rules) = expressions::compile(schema, field);
    // What rules say is judged where all else is well; whether they are rules at all in any case.
    let told = match sound && keywords.is_empty() {
        true => rules.all(),
        false => rules.form,
    };
    errors.0.extend(keywords);
    errors.0.extend(told);
    if let Some(why) = unsupported.filter(|_| errors.0.len() == before) {
        errors.push(FieldError::invalid(field, "", why));
    }
}

/// Whether the schema is structural, can be compiled, and has fitting defaults: each is asked once the one before holds.
fn structure(schema: &Value, field: &str, patterns: &mut Patterns) -> Vec<FieldError> {
    let found = structural::faults(schema, field);
    if !found.is_empty() {
        return found;
    }
    match from_version(schema, patterns) {
        Ok(_) => defaults::faults(schema, field),
        // Of keywords the rest is told by whoever goes through them.
        Err(faults) => {
            let own = faults.iter().filter(|fault| OF_COMPILING.iter().any(|words| fault.contains(words)));
            own.map(|fault| compiled_fault(fault, field)).collect()
        }
    }
}

/// As compiling words it: the place below the schema, and what is wrong there.
fn compiled_fault(fault: &str, field: &str) -> FieldError {
    let (below, message) = fault.split_once(": ").unwrap_or(("", fault));
    let reason = match message {
        _ if message.starts_with("Required value") => "FieldValueRequired",
        _ if message.starts_with("Forbidden") => "FieldValueForbidden",
        _ if message.starts_with("Unsupported value") => "FieldValueNotSupported",
        _ => "FieldValueInvalid",
    };
    FieldError { field: below_field(field, below), problem: Problem::Worded(reason, message.to_owned()) }
}

fn below_field(field: &str, below: &str) -> String {
    format!("{field}.{}", below.trim_start_matches('.'))
}

fn root(schema: &Value, field: &str, errors: &mut Errors) {
    let allowed = |name: &str| AT_ROOT.iter().any(|(_, allowed)| *allowed == name);
    let given = || schema.as_object().into_iter().flatten().filter(|(_, value)| says_something(value));
    let stranger = || given().any(|(name, _)| !allowed(name));
    let first = given().any(|(name, _)| BEFORE_TYPE.contains(&name.as_str()));
    let own = text(schema, "type");
    if !first && !own.is_empty() && own != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(FieldError::invalid(format!("{field}.type"), own, detail));
    } else if stranger() {
        let names: Vec<&str> = AT_ROOT.iter().map(|(name, _)| *name).collect();
        let detail = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            names.join(" ")
        );
        errors.push(FieldError::invalid(field, schema.clone(), detail));
    }
}

/// Whether a keyword's value is any other than that of one left out.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) | Value::Bool(true) | Value::Number(_) => true,
    }
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is_set(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn list<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The schemas of the properties, in the order of their names.
fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// A schema below a keyword that may also be a boolean or a list.
fn inner<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema.get(key).filter(|inner| inner.is_object())
}
