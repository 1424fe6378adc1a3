//! `PersistentVolumeClaim`: a request for storage.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimStatus};
use serde_json::Value;

use crate::columns::{age_cell, name_cell};
use crate::kinds::{Build, Errors, Kind};
use crate::quantity::Quantity;
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<PersistentVolumeClaim>::new("persistentvolumeclaims", true)
        .on_read(crate::kinds::read::claim)
        .rules(|r| r.answers_deleted = true)
        .short(&["pvc"])
        .status()
        .default(default)
        .prepare_create(|claim| {
            drop_unknown_source(claim);
            let phase = Some("Pending".into());
            claim.status = Some(PersistentVolumeClaimStatus { phase, ..Default::default() });
        })
        .validate(validate)
        .validate_update(validate_update)
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
    super::persistent_volume::check_class(spec.storage_class_name.as_deref(), errors);
    errors.one_of("spec.volumeMode", spec.volume_mode.as_deref(), &["Block", "Filesystem"]);
}

fn validate_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut Errors) {
    // What may change: the requested size, and the volume when it is first bound.
    let frozen = |claim: &PersistentVolumeClaim| {
        let mut spec = claim.spec.clone().unwrap_or_default();
        // Only a claim that has its volume may ask for more of it.
        if old.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Bound")) {
            spec.resources = None;
        }
        spec.volume_attributes_class_name = None;
        if old.spec.as_ref().is_none_or(|s| s.volume_name.as_deref().unwrap_or_default().is_empty()) {
            spec.volume_name = None;
        }
        if old.spec.as_ref().is_none_or(|s| s.storage_class_name.is_none()) {
            spec.storage_class_name = None;
        }
        spec
    };
    // It may ask for less again than it has asked for, but not for less than it has.
    let requested = |claim: &PersistentVolumeClaim| {
        let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        requests.get("storage")?.0.parse::<Quantity>().ok()
    };
    let capacity =
        old.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage")?.0.parse::<Quantity>().ok());
    if let (Some(wanted), Some(before)) = (requested(new), requested(old))
        && wanted < before
        && capacity.is_some_and(|capacity| wanted <= capacity)
    {
        let detail = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
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
