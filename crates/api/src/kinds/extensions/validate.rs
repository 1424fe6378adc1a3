//! What a definition may say: its names, its versions, how they are converted, and what it may become later.

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion,
};
use serde_json::Value;

use crate::jsonpath::JsonPath;
use crate::kinds::admission::check_place;
use crate::kinds::validate::json;
use crate::kinds::{Errors, names};
use crate::status::{FieldError, Problem};

const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: &[&str] =
    &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const SELECTABLE_LIMIT: usize = 8;

pub fn group(spec: &CustomResourceDefinitionSpec, errors: &mut Errors) {
    let group = spec.group.as_str();
    if group.is_empty() {
        return errors.required("spec.group", true);
    }
    if let Some(fault) = names::fault(names::Rule::Subdomain, group) {
        errors.push(FieldError::invalid("spec.group", group, fault));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
}

pub fn names(given: &CustomResourceDefinitionNames, errors: &mut Errors) {
    errors.required("spec.names.plural", given.plural.is_empty());
    errors.required("spec.names.kind", given.kind.is_empty());
    let fault = |name: &str| names::fault(names::Rule::Label1035, name);
    let mut check = |field: String, name: &str| {
        if let Some(fault) = fault(name).filter(|_| !name.is_empty()) {
            errors.push(FieldError::invalid(format!("spec.names.{field}"), name, fault));
        }
    };
    check("plural".into(), &given.plural);
    check("singular".into(), given.singular.as_deref().unwrap_or_default());
    for (i, name) in given.short_names.iter().flatten().enumerate() {
        check(format!("shortNames[{i}]"), name);
    }
    for (i, name) in given.categories.iter().flatten().enumerate() {
        check(format!("categories[{i}]"), name);
    }
    let list_kind = given.list_kind.as_deref().unwrap_or_default();
    for (field, name) in [("kind", given.kind.as_str()), ("listKind", list_kind)] {
        if let Some(fault) = fault(&name.to_lowercase()).filter(|_| !name.is_empty()) {
            let detail = format!("may have mixed case, but should otherwise match: {fault}");
            errors.push(FieldError::invalid(format!("spec.names.{field}"), name, detail));
        }
    }
    if !given.kind.is_empty() && given.kind == list_kind {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid("spec.names.listKind", list_kind, detail));
    }
}

pub fn versions(versions: &[CustomResourceDefinitionVersion], errors: &mut Errors) {
    errors.required("spec.versions", versions.is_empty());
    for (i, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{i}]");
        if let Some(fault) = names::fault(names::Rule::Label1035, &version.name) {
            errors.push(FieldError::invalid(format!("{field}.name"), version.name.as_str(), fault));
        }
        warning(&field, version, errors);
        columns(&field, version, errors);
        selectable(&field, version, errors);
    }
    let mut seen = HashSet::new();
    if !versions.iter().all(|version| seen.insert(version.name.as_str())) {
        let detail = "must contain unique version names";
        errors.push(FieldError::invalid("spec.versions", json(&versions), detail));
    }
    if !versions.is_empty() && versions.iter().filter(|v| v.storage).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", json(&versions), detail));
    }
}

fn warning(field: &str, version: &CustomResourceDefinitionVersion, errors: &mut Errors) {
    const LIMIT: usize = 256;
    let Some(text) = &version.deprecation_warning else { return };
    let mut fault = |detail: &str| {
        errors.push(FieldError::invalid(format!("{field}.deprecationWarning"), text.as_str(), detail));
    };
    if version.deprecated != Some(true) {
        fault("can only be set for deprecated versions");
    }
    if text.len() > LIMIT {
        fault("must be <= 256 characters long");
    }
    if text.is_empty() {
        fault("must not be empty");
    }
    if text.chars().any(char::is_control) {
        fault("must only contain printable UTF-8 characters; non-printable character found at index 0");
    }
}

fn columns(field: &str, version: &CustomResourceDefinitionVersion, errors: &mut Errors) {
    for (i, column) in version.additional_printer_columns.iter().flatten().enumerate() {
        let field = format!("{field}.additionalPrinterColumns[{i}]");
        errors.required(format!("{field}.name"), column.name.is_empty());
        let detail = || format!("must be one of {}", COLUMN_TYPES.join(","));
        match column.type_.as_str() {
            "" => errors.push(FieldError::required(format!("{field}.type"), detail())),
            kind if COLUMN_TYPES.contains(&kind) => {}
            kind => errors.push(FieldError::invalid(format!("{field}.type"), kind, detail())),
        }
        if let Some(format) =
            column.format.as_deref().filter(|f| !f.is_empty() && !COLUMN_FORMATS.contains(f))
        {
            let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(FieldError::invalid(format!("{field}.format"), format, detail));
        }
        if column.json_path.is_empty() {
            errors.required(format!("{field}.jsonPath"), true);
        } else if let Err(fault) = JsonPath::parse(&column.json_path) {
            errors.push(FieldError::invalid(format!("{field}.jsonPath"), column.json_path.as_str(), fault));
        }
    }
}

fn selectable(field: &str, version: &CustomResourceDefinitionVersion, errors: &mut Errors) {
    let given = version.selectable_fields.as_deref().unwrap_or_default();
    let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    let schema = schema.and_then(|s| serde_json::to_value(s).ok()).unwrap_or_default();
    let mut seen = HashSet::new();
    for (i, selected) in given.iter().enumerate() {
        let field = format!("{field}.selectableFields[{i}].jsonPath");
        let path = selected.json_path.as_str();
        let repeated = !seen.insert(path);
        if path.is_empty() {
            errors.required(field, true);
            continue;
        }
        let mut fault = |detail: String| errors.push(FieldError::invalid(field.as_str(), path, detail));
        match field_schema(&schema, path) {
            Err(why) => {
                fault(format!("is an invalid path: {why}"));
                continue;
            }
            Ok(found) => {
                if path.trim_start_matches('.').split('.').next() == Some("metadata") {
                    fault("must not point to fields in metadata".into());
                }
                if !matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) {
                    fault("must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.".into());
                }
            }
        }
        if repeated {
            errors.push(FieldError::duplicate(field, path));
        }
    }
    if given.len() > SELECTABLE_LIMIT {
        let problem = Problem::TooMany(given.len(), SELECTABLE_LIMIT);
        errors.push(FieldError { field: format!("{field}.selectableFields"), problem });
    }
}

/// The schema that a path of plain fields leads to.
fn field_schema<'a>(schema: &'a Value, path: &str) -> Result<&'a Value, String> {
    let Some(rest) = path.strip_prefix('.') else { return Err("must start with '.'".into()) };
    let mut at = schema;
    for step in rest.split('.') {
        at = at["properties"].get(step).ok_or_else(|| format!("does not refer to a valid field: {step}"))?;
    }
    Ok(at)
}

pub fn conversion(given: &CustomResourceConversion, errors: &mut Errors) {
    const CLIENT: &str = "spec.conversion.webhookClientConfig";
    const VERSIONS: &str = "spec.conversion.conversionReviewVersions";
    let webhook = given.webhook.as_ref();
    let versions = webhook.map(|w| w.conversion_review_versions.as_slice()).unwrap_or_default();
    match given.strategy.as_str() {
        "Webhook" => {
            match webhook.and_then(|w| w.client_config.as_ref()) {
                None => errors.push(FieldError::required(CLIENT, "required when strategy is set to Webhook")),
                Some(client) => {
                    let service = client.service.as_ref();
                    let service =
                        service.map(|s| (s.name.as_str(), s.namespace.as_str(), s.path.as_deref(), s.port));
                    check_place(CLIENT, client.url.as_deref(), service, errors);
                }
            }
            review_versions(VERSIONS, versions, errors);
        }
        "None" => {
            let detail = "should not be set when strategy is not set to Webhook";
            if webhook.is_some_and(|w| w.client_config.is_some()) {
                errors.push(FieldError::forbidden(CLIENT, detail));
            }
            if !versions.is_empty() {
                errors.push(FieldError::forbidden(VERSIONS, detail));
            }
        }
        other => errors.one_of("spec.conversion.strategy", Some(other), &["None", "Webhook"]),
    }
}

fn review_versions(field: &str, versions: &[String], errors: &mut Errors) {
    if versions.is_empty() {
        return errors.required(field, true);
    }
    let mut seen = HashSet::new();
    for (i, version) in versions.iter().enumerate() {
        let at = format!("{field}[{i}]");
        if !seen.insert(version) {
            errors.push(FieldError::invalid(at, version.as_str(), "duplicate version"));
        } else if let Some(fault) = names::fault(names::Rule::Label1035, version) {
            errors.push(FieldError::invalid(at, version.as_str(), fault));
        }
    }
    if !versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str())) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::invalid(field, json(&versions), detail));
    }
}

/// What objects are stored in stays known.
pub fn update(new: &CustomResourceDefinition, old: &CustomResourceDefinition, errors: &mut Errors) {
    let (now, before) = (&new.spec, &old.spec);
    if established(old) {
        errors.immutable("spec.scope", &now.scope, &before.scope);
        errors.immutable("spec.names.kind", &now.names.kind, &before.names.kind);
    }
    errors.immutable("spec.group", &now.group, &before.group);
    errors.immutable("spec.names.plural", &now.names.plural, &before.names.plural);
    stored_versions(new, old.status.iter().flat_map(|s| s.stored_versions.iter().flatten()), errors);
}

pub fn status(new: &CustomResourceDefinition, errors: &mut Errors) {
    let stored = new.status.as_ref().and_then(|s| s.stored_versions.as_deref()).unwrap_or_default();
    if stored.is_empty() {
        let detail = "must have at least one stored version";
        return errors.push(FieldError::invalid("status.storedVersions", json(&stored), detail));
    }
    let held: HashSet<&String> = stored.iter().collect();
    if let Some(storage) = new.spec.versions.iter().find(|v| v.storage && !held.contains(&v.name)) {
        let detail = format!("must have the storage version {}", storage.name);
        errors.push(FieldError::invalid("status.storedVersions", json(&stored), detail));
    }
    stored_versions(new, stored.iter(), errors);
}

fn stored_versions<'a>(
    new: &CustomResourceDefinition,
    stored: impl Iterator<Item = &'a String>,
    errors: &mut Errors,
) {
    let there: HashSet<&String> = new.spec.versions.iter().map(|v| &v.name).collect();
    for (i, version) in stored.enumerate() {
        if !there.contains(version) {
            let detail = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("status.storedVersions[{i}]"), version.as_str(), detail));
        }
    }
}

fn established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Established" && c.status == "True")
}
