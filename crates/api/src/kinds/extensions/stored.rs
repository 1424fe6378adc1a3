//! What becomes of a definition that has objects: in what they are stored stays known, and what they are stays as it is.

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::names;
use crate::kinds::Errors;
use crate::kinds::validate::json;
use crate::status::FieldError;

pub fn unchanged(new: &CustomResourceDefinition, old: &CustomResourceDefinition, errors: &mut Errors) {
    let (now, before) = (&new.spec, &old.spec);
    if is_established(old) {
        errors.immutable("spec.scope", &now.scope, &before.scope);
        errors.immutable("spec.names.kind", &now.names.kind, &before.names.kind);
    }
    errors.immutable("spec.group", &now.group, &before.group);
    errors.immutable("spec.names.plural", &now.names.plural, &before.names.plural);
}

/// The names that were accepted.
pub fn status(new: &CustomResourceDefinition, errors: &mut Errors) {
    let status = new.status.as_ref();
    if let Some(names) = status.and_then(|status| status.accepted_names.as_ref()) {
        names::forms("status.acceptedNames", names, errors);
    }
}

/// The versions that objects are or were stored in.
pub fn versions(new: &CustomResourceDefinition, errors: &mut Errors) {
    const FIELD: &str = "status.storedVersions";
    let stored = new.status.as_ref().and_then(|s| s.stored_versions.as_deref()).unwrap_or_default();
    if stored.is_empty() {
        let detail = "must have at least one stored version";
        return errors.push(FieldError::invalid(FIELD, serde_json::Value::Null, detail));
    }
    let held: HashSet<&String> = stored.iter().collect();
    for storage in new.spec.versions.iter().filter(|v| v.storage && !held.contains(&v.name)) {
        let detail = format!("must have the storage version {}", storage.name);
        errors.push(FieldError::invalid(FIELD, json(&stored), detail));
    }
    let there: HashSet<&String> = new.spec.versions.iter().map(|v| &v.name).collect();
    for (i, version) in stored.iter().enumerate() {
        if !there.contains(version) {
            let detail = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("{FIELD}[{i}]"), version.as_str(), detail));
        }
    }
}

pub fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Established" && c.status == "True")
}
