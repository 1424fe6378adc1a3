//! Where a version's objects say how many there are to be, how many there are, and of what.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion;

use super::columns::path;
use crate::kinds::Errors;
use crate::status::FieldError;

pub fn check(field: &str, version: &CustomResourceDefinitionVersion, errors: &mut Errors) {
    let Some(scale) = version.subresources.as_ref().and_then(|s| s.scale.as_ref()) else { return };
    let selector = scale.label_selector_path.as_deref().filter(|path| !path.is_empty());
    let paths = [
        ("specReplicasPath", Some(scale.spec_replicas_path.as_str()), &[".spec."][..], ".spec"),
        ("statusReplicasPath", Some(scale.status_replicas_path.as_str()), &[".status."], ".status"),
        ("labelSelectorPath", selector, &[".spec.", ".status."], "either .spec or .status"),
    ];
    for (name, given, below, words) in paths {
        let field = format!("{field}.scale.{name}");
        let Some(given) = given.and_then(|given| path(&field, given, errors)) else { continue };
        if !below.iter().any(|below| given.starts_with(below)) {
            let detail = format!("should be a json path under {words}");
            errors.push(FieldError::invalid(field, given, detail));
        }
    }
}
