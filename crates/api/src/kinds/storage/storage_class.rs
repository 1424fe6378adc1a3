//! `StorageClass`: a way in which volumes are made.

use base::constants::annotations::DEFAULT_STORAGE_CLASS;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySelectorTerm;
use k8s_openapi::api::storage::v1::StorageClass;

use crate::columns::age_cell;
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::validate::qualified;
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<StorageClass>::new("storageclasses", false)
        .metadata_on_update(&[Whole, Change])
        .rules(|r| r.answers_deleted = true)
        .short(&["sc"])
        .default(|class| {
            class.reclaim_policy.get_or_insert_with(|| "Delete".into());
            class.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
        })
        .validate(|class, errors| {
            match class.provisioner.to_lowercase().as_str() {
                "" => errors.required("provisioner", true),
                lower => qualified("provisioner", lower, errors),
            }
            if class.parameters.iter().flatten().any(|(key, _)| key.is_empty()) {
                errors.push(FieldError::invalid("parameters", "", "field can not be empty."));
            }
            check_topologies(class.allowed_topologies.as_deref().unwrap_or_default(), errors);
            errors.one_of("reclaimPolicy", class.reclaim_policy.as_deref(), &["Delete", "Retain"]);
            const MODES: &[&str] = &["Immediate", "WaitForFirstConsumer"];
            errors.one_of("volumeBindingMode", class.volume_binding_mode.as_deref(), MODES);
        })
        .validate_update(|new, old, errors| {
            errors.immutable("parameters", &new.parameters, &old.parameters);
            errors.immutable("provisioner", &new.provisioner, &old.provisioner);
            errors.immutable("reclaimPolicy", &new.reclaim_policy, &old.reclaim_policy);
            errors.immutable("volumeBindingMode", &new.volume_binding_mode, &old.volume_binding_mode);
        })
        .row(|c| {
            let annotations = c.metadata.annotations.iter().flatten();
            let mut is_default = annotations.filter(|(k, v)| *k == DEFAULT_STORAGE_CLASS && *v == "true");
            let mark = if is_default.next().is_some() { " (default)" } else { "" };
            vec![
                format!("{}{mark}", c.metadata.name.as_deref().unwrap_or_default()).into(),
                c.provisioner.clone().into(),
                c.reclaim_policy.clone().unwrap_or_default().into(),
                c.volume_binding_mode.clone().unwrap_or_default().into(),
                c.allow_volume_expansion.unwrap_or(false).into(),
                age_cell(&c.metadata),
            ]
        })
        .done()
}

/// Where volumes may be: each key once in a term, each value once, each term once.
fn check_topologies(terms: &[TopologySelectorTerm], errors: &mut Errors) {
    let mut earlier: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for (t, term) in terms.iter().enumerate() {
        let at = format!("allowedTopologies[{t}].matchLabelExpressions");
        let mut keys = BTreeMap::new();
        for (e, expression) in term.match_label_expressions.iter().flatten().enumerate() {
            let at = format!("{at}[{e}]");
            errors.required(format!("{at}.values"), expression.values.is_empty());
            let mut values = BTreeSet::new();
            for (v, value) in expression.values.iter().enumerate() {
                if !values.insert(value.as_str()) {
                    errors.push(FieldError::duplicate(format!("{at}.values[{v}]"), value.as_str()));
                }
            }
            if keys.contains_key(expression.key.as_str()) {
                errors.push(FieldError::duplicate(format!("{at}.key"), expression.key.as_str()));
            }
            keys.insert(expression.key.as_str(), values);
            qualified(format!("{at}.key"), &expression.key, errors);
        }
        if earlier.contains(&keys) {
            errors.push(FieldError::duplicate(at, ""));
        }
        earlier.push(keys);
    }
}
