//! The versions of a definition. What is the same in all of them the original keeps, judges and names beside them, as definitions
//! were once written; what differs belongs to each.

mod columns;
mod scale;
mod selectable;
mod warning;

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion as Version,
};
use serde_json::Value;

use super::{names, schema};
use crate::kinds::Errors;
use crate::kinds::validate::json;
use crate::schema::pattern::Patterns;
use crate::status::FieldError;

/// Of what a version consists, and which of it all versions have in common.
#[derive(Clone, Copy, Default)]
struct Parts {
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl Parts {
    fn in_common(versions: &[Version]) -> Self {
        let Some((first, rest)) = versions.split_first() else { return Self::default() };
        // A list without anything is as good as none.
        let columns = |v: &Version| v.additional_printer_columns.clone().unwrap_or_default();
        let selectable = |v: &Version| v.selectable_fields.clone().unwrap_or_default();
        Self {
            schema: rest.iter().all(|v| v.schema == first.schema),
            subresources: rest.iter().all(|v| v.subresources == first.subresources),
            columns: rest.iter().all(|v| columns(v) == columns(first)),
            selectable: rest.iter().all(|v| selectable(v) == selectable(first)),
        }
    }

    fn others(self) -> Self {
        Self {
            schema: !self.schema,
            subresources: !self.subresources,
            columns: !self.columns,
            selectable: !self.selectable,
        }
    }
}

fn has_status(version: &Version) -> bool {
    version.subresources.as_ref().is_some_and(|s| s.status.is_some())
}

fn schema_of(version: &Version) -> Option<Value> {
    let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    serde_json::to_value(schema).ok()
}

/// Judges versions and names. Schemas only where that is asked for: it may take seconds.
pub fn check(spec: &CustomResourceDefinitionSpec, schemas: bool, errors: &mut Errors) {
    let versions = spec.versions.as_slice();
    let common = Parts::in_common(versions);
    let mut patterns = Patterns::default();
    for (i, _) in versions.iter().enumerate().filter(|(_, v)| schema_of(v).is_none()) {
        errors.required(format!("spec.versions[{i}].schema.openAPIV3Schema"), true);
    }
    for (i, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{i}]");
        if let Some(fault) = names::fault(&version.name) {
            errors.push(FieldError::invalid(format!("{field}.name"), version.name.as_str(), fault));
        }
        warning::check(&field, version, errors);
        let own = Parts { schema: schemas && !common.schema, ..common.others() };
        let place = Place { field: &field, schema: &format!("{field}.schema"), is_common: false };
        parts(version, has_status(version), own, (place, common), &mut patterns, errors);
    }
    together(versions, errors);
    // The first version's name the original also keeps beside the versions.
    let first = versions.first().map(|version| version.name.as_str()).filter(|name| !name.is_empty());
    if let Some((name, fault)) = first.and_then(|name| Some((name, names::fault(name)?))) {
        errors.push(FieldError::invalid("spec.version", name, fault));
    }
    names::asked_for(&spec.names, errors);
    if let Some(first) = versions.first() {
        let own = Parts { schema: schemas && common.schema, ..common };
        let place = Place { field: "spec", schema: "spec.validation", is_common: true };
        parts(first, versions.iter().any(has_status), own, (place, common), &mut patterns, errors);
    }
}

/// Where what is judged stands.
struct Place<'a> {
    field: &'a str,
    schema: &'a str,
    is_common: bool,
}

fn parts(
    version: &Version,
    has_status: bool,
    asked: Parts,
    (place, common): (Place<'_>, Parts),
    patterns: &mut Patterns,
    errors: &mut Errors,
) {
    let document = schema_of(version);
    if let Some(document) = document.as_ref().filter(|_| asked.schema) {
        schema::check(document, &format!("{}.openAPIV3Schema", place.schema), has_status, patterns, errors);
    }
    if asked.subresources {
        scale::check(&format!("{}.subresources", place.field), version, errors);
    }
    if asked.columns {
        columns::check(&format!("{}.additionalPrinterColumns", place.field), version, errors);
    }
    if asked.selectable {
        // Only a schema that is kept in the same place is looked at.
        let beside = document.filter(|_| common.schema == place.is_common);
        selectable::check(
            &format!("{}.selectableFields", place.field),
            version,
            (beside, place.is_common),
            errors,
        );
    }
}

/// What holds of all versions together.
fn together(versions: &[Version], errors: &mut Errors) {
    let mut seen = HashSet::new();
    if !versions.iter().all(|version| seen.insert(version.name.as_str())) {
        let detail = "must contain unique version names";
        errors.push(FieldError::invalid("spec.versions", json(&versions), detail));
    }
    if versions.iter().filter(|v| v.storage).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", json(&versions), detail));
    }
}
