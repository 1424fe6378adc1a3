//! `PersistentVolumeClaim`: a request for storage.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedLocalObjectReference,
    TypedObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use serde_json::Value;

use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::names::{Rule, fault};
use crate::kinds::validate::{label_selector, qualified};
use crate::kinds::{Build, Errors, Kind};
use crate::quantity::Quantity;
use crate::status::{FieldError, Problem};

pub fn kind() -> Kind {
    Build::<PersistentVolumeClaim>::new("persistentvolumeclaims", true)
        .metadata_on_update(&[Change, Whole])
        .on_read(crate::kinds::read::claim)
        .rules(|r| r.answers_deleted = true)
        .short(&["pvc"])
        .status()
        .default(default)
        .prepare_create(|claim| {
            drop_unknown_source(claim);
            fill_data_sources(claim);
            let phase = Some("Pending".into());
            claim.status = Some(PersistentVolumeClaimStatus { phase, ..Default::default() });
        })
        .validate(validate)
        .validate_update(validate_update)
        .validate_status(validate_status)
        .row(row)
        .done()
}

/// A source that is neither a claim nor a snapshot is left out, as the original does without a gate that is off.
fn drop_unknown_source(claim: &mut PersistentVolumeClaim) {
    let Some(spec) = &mut claim.spec else { return };
    let known = spec.data_source.as_ref().is_none_or(|source| {
        let group = source.api_group.as_deref().unwrap_or_default();
        let kind = (group, source.kind.as_str());
        matches!(kind, ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
    });
    if !known {
        spec.data_source = None;
    }
}

pub(in crate::kinds) fn default(claim: &mut PersistentVolumeClaim) {
    if let Some(status) = claim.status.as_mut().filter(|s| s.phase.as_ref().is_none_or(String::is_empty)) {
        status.phase = Some("Pending".into());
    }
    if let Some(spec) = &mut claim.spec {
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    }
}

/// What the volume is filled with, said in one of two fields or in both alike.
fn check_data_sources(spec: &PersistentVolumeClaimSpec, errors: &mut Errors) {
    let one = spec.data_source.as_ref().map(|s| (s.api_group.clone(), s.kind.clone(), s.name.clone()));
    let other = spec.data_source_ref.as_ref().map(|s| (s.api_group.clone(), s.kind.clone(), s.name.clone()));
    for (part, source) in [("dataSource", &one), ("dataSourceRef", &other)] {
        let Some((group, kind, name)) = source else { continue };
        let at = format!("spec.{part}");
        errors.required(format!("{at}.name"), name.is_empty());
        errors.required(format!("{at}.kind"), kind.is_empty());
        let group = group.as_deref().unwrap_or_default();
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(at.as_str(), kind.as_str(), detail));
        }
        if let Some(fault) = Some(group).filter(|g| !g.is_empty()).and_then(|g| fault(Rule::Subdomain, g)) {
            errors.push(FieldError::invalid(format!("{at}.apiGroup"), group, fault));
        }
    }
    if let (Some(one), Some(other)) = (&one, &other)
        && one != other
    {
        // The original shows a path of its own here, which has nothing that JSON knows.
        let problem =
            Problem::Worded("FieldValueInvalid", "Invalid value: {}: must match dataSourceRef".into());
        errors.push(FieldError { field: "spec".into(), problem });
    }
}

/// Where one of the two fields says it, the other does too.
fn fill_data_sources(claim: &mut PersistentVolumeClaim) {
    let Some(spec) = &mut claim.spec else { return };
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(one), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: one.api_group.clone(),
                kind: one.kind.clone(),
                name: one.name.clone(),
                namespace: None,
            });
        }
        (None, Some(other)) if other.namespace.as_ref().is_none_or(String::is_empty) => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: other.api_group.clone(),
                kind: other.kind.clone(),
                name: other.name.clone(),
            });
        }
        _ => {}
    }
}

fn validate(claim: &PersistentVolumeClaim, errors: &mut Errors) {
    let Some(spec) = &claim.spec else { return errors.required("spec", true) };
    if let Some(selector) = &spec.selector {
        label_selector("spec.selector", selector, errors);
    }
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
    }
    const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes {
        errors.one_of("spec.accessModes", Some(mode), MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden("spec.accessModes", detail));
    }
    let storage = spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage"));
    errors.required("spec.resources[storage]", storage.is_none());
    if let Some(storage) = storage
        && Quantity::parse(&storage.0).is_ok_and(|q| q.is_negative() || q.is_zero())
    {
        let detail = "must be greater than zero";
        errors.push(FieldError::invalid("spec.resources[storage]", storage.0.as_str(), detail));
    }
    let class = spec.storage_class_name.as_deref();
    super::persistent_volume::check_class("spec.storageClassName", class, errors);
    errors.one_of("spec.volumeMode", spec.volume_mode.as_deref(), &["Block", "Filesystem"]);
    check_data_sources(spec, errors);
    let class = spec.volume_attributes_class_name.as_deref();
    super::persistent_volume::check_class("spec.volumeAttributesClassName", class, errors);
}

fn validate_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut Errors) {
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    let class = |claim: &PersistentVolumeClaim| {
        claim.metadata.annotations.as_ref().and_then(|a| a.get(CLASS).cloned()).unwrap_or_default()
    };
    if class(new) != class(old) {
        let at = format!("metadata.annotations.{CLASS}");
        errors.push(FieldError::immutable(at, class(new)));
    }
    // What may change: the requested size, and the volume when it is first bound.
    let frozen = |claim: &PersistentVolumeClaim| {
        let mut spec = claim.spec.clone().unwrap_or_default();
        // Only a claim that has its volume may ask for more of it.
        if old.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Bound")) {
            spec.resources = None;
            spec.volume_attributes_class_name = None;
        }
        if old.spec.as_ref().is_none_or(|s| s.volume_name.as_deref().unwrap_or_default().is_empty()) {
            spec.volume_name = None;
        }
        if old.spec.as_ref().is_none_or(|s| s.storage_class_name.is_none()) {
            spec.storage_class_name = None;
        }
        spec
    };
    let before_size = errors.0.len();
    // It may ask for less again than it has asked for, but not for less than it has.
    let requested = |claim: &PersistentVolumeClaim| {
        let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        requests.get("storage")?.0.parse::<Quantity>().ok()
    };
    let capacity =
        old.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage")?.0.parse::<Quantity>().ok());
    if let (Some(wanted), Some(before)) = (requested(new), requested(old))
        && wanted < before
        && capacity.map_or(wanted.is_zero() || wanted.is_negative(), |capacity| wanted <= capacity)
    {
        let detail = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
    if frozen(new) != frozen(old) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.0.insert(before_size, FieldError::forbidden("spec", detail));
    }
    let mode = |claim: &PersistentVolumeClaim| claim.spec.as_ref().and_then(|s| s.volume_mode.clone());
    errors.immutable("volumeMode", &mode(new), &mode(old));
    let wanted = |claim: &PersistentVolumeClaim| {
        claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone())
    };
    let has = old.status.as_ref().is_some_and(|s| s.current_volume_attributes_class_name.is_some());
    if has && wanted(new) != wanted(old) && wanted(new).is_none_or(|class| class.is_empty()) {
        let what = if wanted(new).is_none() { "nil" } else { "empty string" };
        let detail =
            format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", detail));
    }
}

/// What a claim has and is being given. Amounts are told of as whole numbers, as the original does.
fn validate_status(new: &PersistentVolumeClaim, _old: &PersistentVolumeClaim, errors: &mut Errors) {
    if new.spec.as_ref().is_none_or(|s| s.access_modes.as_ref().is_none_or(Vec::is_empty)) {
        errors.required("Spec.accessModes", true);
    }
    let status = new.status.clone().unwrap_or_default();
    for (name, amount) in status.capacity.iter().flatten() {
        check_amount(&format!("status.capacity[{name}]"), amount, errors);
    }
    let at = "status.allocatedResourceStatuses";
    for (name, state) in status.allocated_resource_statuses.iter().flatten() {
        check_resource(at, name, errors);
        if !RESIZING.contains(&state.as_str()) {
            errors.push(FieldError::not_supported(at, name.as_str(), RESIZING));
        }
    }
    for (name, amount) in status.allocated_resources.iter().flatten() {
        if check_resource("status.allocatedResources", name, errors) {
            check_amount(&format!("status.allocatedResources[{name}]"), amount, errors);
        }
    }
}

const RESIZING: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

fn check_amount(field: &str, amount: &Amount, errors: &mut Errors) {
    if let Ok(amount) = Quantity::parse(&amount.0)
        && amount.is_negative()
    {
        let detail = "must be a valid resource quantity";
        errors.push(FieldError::invalid(field, amount.to_i64(), detail));
    }
}

/// Of the resources that everybody knows, a claim has storage alone.
fn check_resource(field: &str, name: &str, errors: &mut Errors) -> bool {
    let before = errors.0.len();
    qualified(field, name, errors);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if errors.0.len() == before && native && name != "storage" {
        errors.push(FieldError::not_supported(field, name, &["storage"]));
    }
    errors.0.len() == before
}

/// `RWO,ROX`, as kubectl prints access modes.
pub(super) fn access_modes(modes: Option<&[String]>) -> String {
    let short = |mode: &String| match mode.as_str() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    modes.unwrap_or_default().iter().map(short).collect::<Vec<_>>().join(",")
}

fn row(claim: &PersistentVolumeClaim) -> Vec<Value> {
    let spec = claim.spec.clone().unwrap_or_default();
    let status = claim.status.clone().unwrap_or_default();
    let deleting = claim.metadata.deletion_timestamp.is_some();
    let phase = if deleting { "Terminating".into() } else { status.phase.unwrap_or_default() };
    let bound = spec.volume_name.as_ref().is_some_and(|v| !v.is_empty());
    let capacity = status.capacity.filter(|_| bound).and_then(|c| c.get("storage").map(|q| q.0.clone()));
    let modes = status.access_modes.filter(|_| bound);
    vec![
        name_cell(&claim.metadata),
        phase.into(),
        spec.volume_name.unwrap_or_default().into(),
        capacity.unwrap_or_default().into(),
        access_modes(modes.as_deref()).into(),
        spec.storage_class_name.unwrap_or_default().into(),
        spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into()).into(),
        age_cell(&claim.metadata),
        spec.volume_mode.unwrap_or_default().into(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_may_not_ask_for_less_than_it_has() {
        let claim = |wanted: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {"volumeName": "v",
                "resources": {"requests": {"storage": wanted}}},
                "status": {"phase": "Bound", "capacity": {"storage": "16Mi"}}}))
            .expect("a claim")
        };
        let check = |from: &str, to: &str, faults: usize| {
            let mut errors = Errors::default();
            validate_update(&claim(to), &claim(from), &mut errors);
            assert_eq!(errors.0.len(), faults, "{from} → {to}");
        };
        check("16Mi", "8Mi", 1);
        check("16Mi", "16384Ki", 0);
        check("16Mi", "32Mi", 0);
        // An enlargement that has not come about may be taken back, down to more than there is.
        check("64Mi", "32Mi", 0);
        check("64Mi", "16Mi", 1);
    }
}
