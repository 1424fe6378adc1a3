//! `apiextensions.k8s.io/v1`: kinds that users define.

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionSpec,
    CustomResourceDefinitionStatus, CustomResourceDefinitionVersion, WebhookConversion,
};
use serde_json::Value;

mod conversion;
mod names;
pub mod naming;
mod schema;
mod stored;
mod version;

use super::{Build, Errors, Kind};
use crate::columns::name_cell;
use crate::status::FieldError;

pub fn kinds() -> Vec<Kind> {
    let definition = Build::<CustomResourceDefinition>::new("customresourcedefinitions", false)
        .rules(|r| {
            r.update_needs_version = true;
            r.plain_preconditions = true;
            r.any_finalizer = true;
            r.told_stored_in = "v1beta1";
            r.goes_after_its_objects = true;
        })
        .category("api-extensions")
        .short(&["crd", "crds"])
        .prefix("/registry/apiextensions.k8s.io/customresourcedefinitions")
        .on_read(super::read::definition)
        .status()
        .generation()
        .default(default)
        .prepare_create(|definition| definition.status = Some(first_status(definition)))
        .validate_create(|definition, errors| check(definition, None, errors))
        .prepare_update(keep_stored_versions)
        .validate_update(|new, old, errors| check(new, Some(old), errors))
        .validate_status(|new, _, errors| stored::status(new, errors))
        .warnings_of_change(unknown_formats)
        .row(|d| {
            let created = d.metadata.creation_timestamp.as_ref().map(|t| base::time::rfc3339_seconds(t.0));
            vec![name_cell(&d.metadata), created.into()]
        })
        .done();
    vec![definition]
}

fn default(definition: &mut CustomResourceDefinition) {
    let storage = storage(definition);
    if let Some(status) = &mut definition.status {
        let stored = status.stored_versions.get_or_insert_default();
        stored.extend(storage.filter(|_| stored.is_empty()));
    }
    let names = &mut definition.spec.names;
    let is_empty = |name: &Option<String>| name.as_deref().unwrap_or_default().is_empty();
    if is_empty(&names.singular) {
        names.singular = Some(names.kind.to_lowercase());
    }
    if is_empty(&names.list_kind) && !names.kind.is_empty() {
        names.list_kind = Some(format!("{}List", names.kind));
    }
    let conversion = definition
        .spec
        .conversion
        .get_or_insert_with(|| CustomResourceConversion { strategy: "None".into(), ..Default::default() });
    let says_nothing = |webhook: &mut WebhookConversion| {
        webhook.client_config.is_none() && webhook.conversion_review_versions.is_empty()
    };
    if conversion.webhook.as_mut().is_some_and(says_nothing) {
        conversion.webhook = None;
    }
    let client = conversion.webhook.as_mut().and_then(|webhook| webhook.client_config.as_mut());
    if let Some(service) = client.and_then(|client| client.service.as_mut()) {
        service.port.get_or_insert(443);
    }
}

/// In what the next object is stored.
fn storage(definition: &CustomResourceDefinition) -> Option<String> {
    definition.spec.versions.iter().find(|v| v.storage).map(|v| v.name.clone())
}

/// What is stored from the first object on is told from the first moment on.
fn first_status(definition: &CustomResourceDefinition) -> CustomResourceDefinitionStatus {
    let stored = storage(definition).into_iter().collect();
    CustomResourceDefinitionStatus { stored_versions: Some(stored), ..Default::default() }
}

/// A new storage version is stored from now on.
fn keep_stored_versions(new: &mut CustomResourceDefinition, old: &CustomResourceDefinition) {
    let mut status = old.status.clone().unwrap_or_default();
    let stored = status.stored_versions.get_or_insert_default();
    let storage = storage(new).filter(|name| !stored.contains(name));
    stored.extend(storage);
    new.status = Some(status);
}

/// Schemas are compiled only where they are new: that may take seconds, and what is held is sound.
fn check(definition: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>, errors: &mut Errors) {
    let spec = &definition.spec;
    if old.is_none() {
        names::own_name(definition, errors);
    }
    names::group(spec, errors);
    match spec.scope.as_str() {
        "" => errors.required("spec.scope", true),
        scope => errors.one_of("spec.scope", Some(scope), &["Cluster", "Namespaced"]),
    }
    let preserves = spec.preserve_unknown_fields == Some(true);
    if preserves && has_defaults(spec) {
        let detail = "must be false in order to use defaults in the schema";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, detail));
    }
    version::check(spec, old.is_none_or(|old| !same_schemas(&old.spec.versions, &spec.versions)), errors);
    if let Some(given) = &spec.conversion {
        if preserves && given.strategy != "None" {
            let detail = "must be None if spec.preserveUnknownFields is true";
            let field = "spec.conversion.strategy";
            errors.push(FieldError::invalid(field, given.strategy.as_str(), detail));
        }
        conversion::check(given, errors);
        conversion::bundle(given, old, errors);
    }
    if let Some(old) = old {
        stored::unchanged(definition, old, errors);
    }
    stored::status(definition, errors);
    stored::versions(definition, errors);
    names::approval(definition, old, errors);
    let preserved = old.is_some_and(|old| old.spec.preserve_unknown_fields == Some(true));
    if preserves && !preserved {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, detail));
    }
}

/// The schemas of the versions; one that they all have counts once.
fn schemas(spec: &CustomResourceDefinitionSpec) -> Vec<Value> {
    let schema = |version: &CustomResourceDefinitionVersion| {
        let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
        schema.and_then(|schema| serde_json::to_value(schema).ok())
    };
    let mut all: Vec<Value> = spec.versions.iter().filter_map(schema).collect();
    if all.len() == spec.versions.len() && all.iter().all(|schema| Some(schema) == all.first()) {
        all.truncate(1);
    }
    all
}

fn has_defaults(spec: &CustomResourceDefinitionSpec) -> bool {
    fn within(value: &Value) -> bool {
        match value {
            Value::Object(map) => map.contains_key("default") || map.values().any(within),
            Value::Array(items) => items.iter().any(within),
            _ => false,
        }
    }
    schemas(spec).iter().any(within)
}

/// Formats that nobody checks are told of when they come.
fn unknown_formats(
    definition: &CustomResourceDefinition,
    old: Option<&CustomResourceDefinition>,
) -> Vec<String> {
    let of = |spec: &CustomResourceDefinitionSpec| -> Vec<String> {
        schemas(spec).iter().flat_map(schema::unrecognized).collect()
    };
    let known: HashSet<String> = old.map(|old| of(&old.spec)).unwrap_or_default().into_iter().collect();
    let new = of(&definition.spec).into_iter().filter(|format| !known.contains(format));
    new.map(|format| format!("unrecognized format {format:?}")).collect()
}

fn same_schemas(old: &[CustomResourceDefinitionVersion], new: &[CustomResourceDefinitionVersion]) -> bool {
    old.iter().map(|version| &version.schema).eq(new.iter().map(|version| &version.schema))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::expressions::compiled;

    #[test]
    fn schemas_that_are_as_they_were_are_not_compiled_again() {
        let kinds = kinds();
        let behaviour = &kinds[0].behaviour;
        let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"a": {"type": "integer",
            "x-kubernetes-validations": [{"rule": "self > 0"}]}}}}});
        let given = json!({"metadata": {"name": "as.example.org"}, "spec": {"group": "example.org",
            "scope": "Cluster", "names": {"plural": "as", "kind": "A"}, "versions": [version]}});
        let before = compiled();
        let old = behaviour.create(given, &mut Vec::new()).expect("is sound");
        assert_eq!(compiled(), before + 1);
        let with = |pointer: &str, value: Value| {
            let mut new = old.clone();
            let (at, field) = pointer.rsplit_once('/').expect("a field");
            new.pointer_mut(at).expect("is there")[field] = value;
            new
        };
        for (pointer, value, compilings) in [
            ("/metadata/labels", json!({"a": "b"}), 0),
            ("/spec/names", json!({"plural": "as", "kind": "A", "shortNames": ["b"]}), 0),
            ("/spec/versions/0/additionalPrinterColumns", json!([]), 0),
            ("/spec/versions/0/schema/openAPIV3Schema/description", json!("new"), 1),
        ] {
            let before = compiled();
            behaviour.update(with(pointer, value), &old, &mut Vec::new()).expect("is sound");
            assert_eq!(compiled() - before, compilings, "{pointer}");
        }
        let conditions = with("/status/conditions", json!([]));
        let before = compiled();
        behaviour.update_status(conditions, &old).expect("is sound");
        assert_eq!(compiled(), before);
        let worse = json!([{"rule": "self > 'a'"}]);
        let worse =
            with("/spec/versions/0/schema/openAPIV3Schema/properties/a/x-kubernetes-validations", worse);
        assert!(behaviour.update(worse, &old, &mut Vec::new()).is_err());
    }
}
