//! The fields by which a version's objects can be selected.

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion;
use serde_json::Value;

use crate::kinds::Errors;
use crate::status::{FieldError, Problem};

const LIMIT: usize = 8;

pub fn check(
    field: &str,
    version: &CustomResourceDefinitionVersion,
    (schema, is_common): (Option<Value>, bool),
    errors: &mut Errors,
) {
    let given = version.selectable_fields.as_deref().unwrap_or_default();
    if given.is_empty() {
        return;
    }
    let Some(schema) = schema else {
        let detail = match is_common {
            true => "may only be set when validations.schema is included",
            false => "may only be set when `version.schema.openAPIV3Schema` is not included",
        };
        return errors.push(FieldError::invalid(field, "", detail));
    };
    let mut seen = HashSet::new();
    for (i, selected) in given.iter().enumerate() {
        let field = format!("{field}[{i}].jsonPath");
        let path = selected.json_path.as_str();
        if path.is_empty() {
            errors.required(field, true);
            continue;
        }
        let mut fault = |detail: String| errors.push(FieldError::invalid(field.as_str(), path, detail));
        let (steps, found) = match steps(path).and_then(|steps| Ok((steps.clone(), led_to(&schema, &steps)?)))
        {
            Ok(found) => found,
            Err(why) => {
                fault(format!("is an invalid path: {why}"));
                continue;
            }
        };
        if steps.first().is_some_and(|first| first == "metadata") {
            fault("must not point to fields in metadata".into());
        }
        if !matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) {
            fault("must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.".into());
        }
        if !seen.insert(steps) {
            errors.push(FieldError::duplicate(field, path));
        }
    }
    if seen.len() > LIMIT {
        let problem = Problem::TooMany(seen.len(), LIMIT);
        errors.push(FieldError { field: field.to_owned(), problem });
    }
}

/// The names that a path of plain fields goes through.
fn steps(path: &str) -> Result<Vec<String>, String> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let Some(after) = rest.strip_prefix('.') else {
            return Err(match rest.starts_with('[') {
                true => "array notation is not allowed".into(),
                false => format!(
                    "expected [ or . but got: {}",
                    &rest[..rest.find(['.', '[', ']']).unwrap_or(rest.len())]
                ),
            });
        };
        let (step, tail) = after.split_at(after.find(['.', '[', ']']).unwrap_or(after.len()));
        if step.is_empty() {
            return Err("unexpected end of JSON path".into());
        }
        steps.push(step.to_owned());
        rest = tail;
    }
    Ok(steps)
}

/// The schema that they lead to.
fn led_to<'a>(schema: &'a Value, steps: &[String]) -> Result<&'a Value, String> {
    steps.iter().try_fold(schema, |at, step| {
        let values = at.get("additionalProperties").filter(|values| values.is_object());
        let property = at.get("properties").and_then(|properties| properties.get(step));
        property.or(values).ok_or_else(|| "does not refer to a valid field".to_owned())
    })
}
