//! `apiextensions.k8s.io/v1`: kinds that users define.

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionSpec,
    CustomResourceDefinitionStatus, CustomResourceDefinitionVersion,
};
use serde_json::Value;

mod validate;

use super::{Build, Errors, Kind};
use crate::columns::name_cell;
use crate::schema::pattern::Patterns;
use crate::status::{FieldError, Problem};

pub fn kinds() -> Vec<Kind> {
    let definition = Build::<CustomResourceDefinition>::new("customresourcedefinitions", false)
        .rules(|r| {
            r.update_needs_version = true;
            r.plain_preconditions = true;
        })
        .short(&["crd", "crds"])
        .prefix("/registry/apiextensions.k8s.io/customresourcedefinitions")
        .on_read(super::read::definition)
        .status()
        .generation()
        .default(default)
        .prepare_create(|definition| definition.status = Some(first_status(definition)))
        .validate_create(|definition, errors| check(definition, None, errors))
        .prepare_update(keep_stored_versions)
        .validate_update(|new, old, errors| {
            check(new, Some(old), errors);
            validate::update(new, old, errors);
        })
        .validate_status(|new, _, errors| validate::status(new, errors))
        .row(|d| {
            let created = d.metadata.creation_timestamp.as_ref().map(|t| base::time::rfc3339_seconds(t.0));
            vec![name_cell(&d.metadata), created.into()]
        })
        .done();
    vec![definition]
}

fn default(definition: &mut CustomResourceDefinition) {
    let names = &mut definition.spec.names;
    names.singular.get_or_insert_with(|| names.kind.to_lowercase());
    names.list_kind.get_or_insert_with(|| format!("{}List", names.kind));
    definition
        .spec
        .conversion
        .get_or_insert_with(|| CustomResourceConversion { strategy: "None".into(), ..Default::default() });
}

/// What is stored from the first object on is told from the first moment on.
fn first_status(definition: &CustomResourceDefinition) -> CustomResourceDefinitionStatus {
    let storage = definition.spec.versions.iter().filter(|v| v.storage).map(|v| v.name.clone());
    CustomResourceDefinitionStatus { stored_versions: Some(storage.collect()), ..Default::default() }
}

/// A new storage version is stored from now on.
fn keep_stored_versions(new: &mut CustomResourceDefinition, old: &CustomResourceDefinition) {
    let mut status = old.status.clone().unwrap_or_default();
    let stored = status.stored_versions.get_or_insert_default();
    let mut known: HashSet<String> = stored.iter().cloned().collect();
    let storage = new.spec.versions.iter().filter(|v| v.storage);
    stored.extend(storage.map(|v| v.name.clone()).filter(|name| known.insert(name.clone())));
    new.status = Some(status);
}

/// Schemas are compiled only where they are new: that may take seconds, and what is held is sound.
fn check(definition: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>, errors: &mut Errors) {
    let spec = &definition.spec;
    validate::group(spec, errors);
    errors.one_of("spec.scope", Some(&spec.scope), &["Cluster", "Namespaced"]);
    let expected = format!("{}.{}", spec.names.plural, spec.group);
    let name = definition.metadata.name.as_deref().unwrap_or_default();
    // That there is none is said of all kinds.
    if name != expected && !name.is_empty() {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
    if old.is_none_or(|old| !same_schemas(&old.spec.versions, &spec.versions)) {
        schemas(spec, errors);
    }
    validate::versions(&spec.versions, errors);
    validate::names(&spec.names, errors);
    if let Some(conversion) = &spec.conversion {
        validate::conversion(conversion, errors);
    }
}

fn same_schemas(old: &[CustomResourceDefinitionVersion], new: &[CustomResourceDefinitionVersion]) -> bool {
    old.iter().map(|version| &version.schema).eq(new.iter().map(|version| &version.schema))
}

/// The schemas' own faults, and those of their rules. One schema of all versions is told of once, where the original
/// keeps it.
fn schemas(spec: &CustomResourceDefinitionSpec, errors: &mut Errors) {
    let schema = |version: &CustomResourceDefinitionVersion| {
        version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()).map(serde_json::to_value)
    };
    let given: Vec<Option<Value>> = spec.versions.iter().map(|v| schema(v).and_then(Result::ok)).collect();
    let mut patterns = Patterns::default();
    if let [Some(first), rest @ ..] = given.as_slice()
        && rest.iter().all(|other| other.as_ref() == Some(first))
    {
        return check_schema(first, "spec.validation.openAPIV3Schema", &mut patterns, errors);
    }
    for (i, schema) in given.iter().enumerate() {
        let field = format!("spec.versions[{i}].schema.openAPIV3Schema");
        match schema {
            Some(schema) => check_schema(schema, &field, &mut patterns, errors),
            None => errors.push(FieldError::required(field, "schemas are required")),
        }
    }
}

fn check_schema(schema: &Value, field: &str, patterns: &mut Patterns, errors: &mut Errors) {
    match crate::schema::from_version(schema, patterns) {
        Ok(_) => {
            let (_, faults) = crate::schema::expressions::compile(schema, field);
            faults.into_iter().for_each(|fault| errors.push(fault));
        }
        Err(faults) => {
            for fault in faults {
                let (below, message) = fault.split_once(": ").unwrap_or(("", &fault));
                let reason = match message {
                    _ if message.starts_with("Required value") => "FieldValueRequired",
                    _ if message.starts_with("Forbidden") => "FieldValueForbidden",
                    _ if message.starts_with("Unsupported value") => "FieldValueNotSupported",
                    _ => "FieldValueInvalid",
                };
                let problem = Problem::Worded(reason, message.to_owned());
                errors.push(FieldError { field: format!("{field}.{below}"), problem });
            }
        }
    }
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
