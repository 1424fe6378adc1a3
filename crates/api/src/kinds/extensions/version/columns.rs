//! The columns of a version's tables.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion;

use crate::kinds::Errors;
use crate::status::FieldError;

const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

pub fn check(field: &str, version: &CustomResourceDefinitionVersion, errors: &mut Errors) {
    for (i, column) in version.additional_printer_columns.iter().flatten().enumerate() {
        let field = format!("{field}[{i}]");
        errors.required(format!("{field}.name"), column.name.is_empty());
        let detail = || format!("must be one of {}", TYPES.join(","));
        match column.type_.as_str() {
            "" => errors.push(FieldError::required(format!("{field}.type"), detail())),
            kind if TYPES.contains(&kind) => {}
            kind => errors.push(FieldError::invalid(format!("{field}.type"), kind, detail())),
        }
        let format = column.format.as_deref().unwrap_or_default();
        if !format.is_empty() && !FORMATS.contains(&format) {
            let detail = format!("must be one of {}", FORMATS.join(","));
            errors.push(FieldError::invalid(format!("{field}.format"), format, detail));
        }
        path(&format!("{field}.JSONPath"), &column.json_path, errors);
    }
}

/// Whether a path is there and begins as one; whether it leads anywhere shows when it is used. Gives the path if it does.
pub fn path<'a>(field: &str, path: &'a str, errors: &mut Errors) -> Option<&'a str> {
    match path {
        "" => errors.required(field, true),
        path if path.starts_with('.') => return Some(path),
        path => {
            let detail = "must be a simple json path starting with .";
            errors.push(FieldError::invalid(field, path, detail));
        }
    }
    None
}
