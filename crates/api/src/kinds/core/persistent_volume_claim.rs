//! `PersistentVolumeClaim`: a request for storage.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimStatus};
use serde_json::Value;

use crate::columns::{age_cell, name_cell};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<PersistentVolumeClaim>::new("persistentvolumeclaims", true)
        .rules(|r| r.answers_deleted = true)
        .short(&["pvc"])
        .status()
        .default(default)
        .prepare_create(|claim| {
            let phase = Some("Pending".into());
            claim.status = Some(PersistentVolumeClaimStatus { phase, ..Default::default() });
        })
        .validate(validate)
        .validate_update(validate_update)
        .row(row)
        .done()
}

pub(in crate::kinds) fn default(claim: &mut PersistentVolumeClaim) {
    if let Some(spec) = &mut claim.spec {
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    }
}

fn validate(claim: &PersistentVolumeClaim, errors: &mut Errors) {
    let Some(spec) = &claim.spec else { return errors.required("spec", true) };
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
    }
    const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for (i, mode) in modes.iter().enumerate() {
        errors.one_of(format!("spec.accessModes[{i}]"), Some(mode), MODES);
    }
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    errors.required("spec.resources[storage]", !requests.is_some_and(|r| r.contains_key("storage")));
}

fn validate_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut Errors) {
    // What may change: the requested size, and the volume when it is first bound.
    let frozen = |claim: &PersistentVolumeClaim| {
        let mut spec = claim.spec.clone().unwrap_or_default();
        spec.resources = None;
        spec.volume_attributes_class_name = None;
        if old.spec.as_ref().is_none_or(|s| s.volume_name.as_deref().unwrap_or_default().is_empty()) {
            spec.volume_name = None;
        }
        if old.spec.as_ref().is_none_or(|s| s.storage_class_name.is_none()) {
            spec.storage_class_name = None;
        }
        spec
    };
    if frozen(new) != frozen(old) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
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
    let capacity = status.capacity.and_then(|c| c.get("storage").map(|q| q.0.clone()));
    vec![
        name_cell(&claim.metadata),
        phase.into(),
        spec.volume_name.unwrap_or_default().into(),
        capacity.unwrap_or_default().into(),
        access_modes(status.access_modes.as_deref()).into(),
        spec.storage_class_name.unwrap_or_default().into(),
        spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into()).into(),
        age_cell(&claim.metadata),
        spec.volume_mode.unwrap_or_default().into(),
    ]
}
