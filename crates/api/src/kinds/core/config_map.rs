//! `ConfigMap`: configuration as text and bytes.

use k8s_openapi::api::core::v1::ConfigMap;

use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

const SIZE_LIMIT_BYTES: usize = 1 << 20;

pub fn kind() -> Kind {
    Build::<ConfigMap>::new("configmaps", true)
        .metadata_on_update(&[Change, Whole])
        .short(&["cm"])
        .validate(validate)
        .validate_update(validate_update)
        .row(|c| {
            let count =
                c.data.as_ref().map_or(0, |d| d.len()) + c.binary_data.as_ref().map_or(0, |d| d.len());
            vec![name_cell(&c.metadata), count.into(), age_cell(&c.metadata)]
        })
        .done()
}

fn validate(map: &ConfigMap, errors: &mut Errors) {
    let texts = map.data.iter().flatten().map(|(k, v)| ("data", k, v.len()));
    let bytes = map.binary_data.iter().flatten().map(|(k, v)| ("binaryData", k, v.0.len()));
    let mut total = 0;
    for (field, key, length) in texts.chain(bytes) {
        total += length;
        check_key(field, key, errors);
    }
    for key in map.data.iter().flatten().map(|(k, _)| k) {
        if map.binary_data.as_ref().is_some_and(|b| b.contains_key(key)) {
            let detail = "duplicate of key present in binaryData";
            errors.push(FieldError::invalid(format!("data[{key}]"), key.as_str(), detail));
        }
    }
    if total > SIZE_LIMIT_BYTES {
        let problem = crate::status::Problem::TooLong(SIZE_LIMIT_BYTES);
        errors.push(FieldError { field: String::new(), problem });
    }
}

fn validate_update(new: &ConfigMap, old: &ConfigMap, errors: &mut Errors) {
    if old.immutable != Some(true) {
        return;
    }
    let frozen = "field is immutable when `immutable` is set";
    for (field, changed) in [
        ("immutable", new.immutable != Some(true)),
        ("data", new.data != old.data),
        ("binaryData", new.binary_data != old.binary_data),
    ] {
        if changed {
            errors.push(FieldError::forbidden(field, frozen));
        }
    }
}

/// Keys become file names: letters, digits, `-`, `_`, `.`.
pub(super) fn check_key(field: &str, key: &str, errors: &mut Errors) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if key == "." || key == ".." {
        errors.push(FieldError::invalid(format!("{field}[{key}]"), key, format!("must not be '{key}'")));
    } else if key.is_empty() || key.len() > 253 || !key.chars().all(allowed) {
        let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
                      'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
        errors.push(FieldError::invalid(format!("{field}[{key}]"), key, detail));
    }
}
