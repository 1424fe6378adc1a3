//! What whoever uses a version that goes out of use is told.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion;

use crate::kinds::Errors;
use crate::status::FieldError;

const LIMIT_BYTES: usize = 256;

pub fn check(field: &str, version: &CustomResourceDefinitionVersion, errors: &mut Errors) {
    let Some(text) = &version.deprecation_warning else { return };
    let mut fault = |detail: String| {
        errors.push(FieldError::invalid(format!("{field}.deprecationWarning"), text.as_str(), detail));
    };
    if version.deprecated != Some(true) {
        return fault("can only be set for deprecated versions".into());
    }
    if text.len() > LIMIT_BYTES {
        fault(format!("must be <= {LIMIT_BYTES} characters long"));
    }
    if text.is_empty() {
        fault("must not be an empty string".into());
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| !is_printable(*c)) {
        fault(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
}

/// Of all space only the plain one.
fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}
