//! `PersistentVolume`: storage that exists, bound to at most one claim.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeStatus};
use serde_json::Value;

use super::persistent_volume_claim::access_modes;
use crate::columns::{age_cell, name_cell};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<PersistentVolume>::new("persistentvolumes", false)
        .rules(|r| r.answers_deleted = true)
        .short(&["pv"])
        .status()
        .default(|volume| {
            if let Some(spec) = &mut volume.spec {
                spec.persistent_volume_reclaim_policy.get_or_insert_with(|| "Retain".into());
                spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
                if let Some(host_path) = &mut spec.host_path {
                    host_path.type_.get_or_insert_default();
                }
            }
        })
        .prepare_create(|volume| {
            let phase = Some("Pending".into());
            volume.status = Some(PersistentVolumeStatus { phase, ..Default::default() });
        })
        .validate(validate)
        .validate_update(|new, old, errors| {
            let source = |v: &PersistentVolume| {
                v.spec.as_ref().map(|s| (s.host_path.clone(), s.local.clone(), s.csi.clone()))
            };
            if source(new) != source(old) {
                let detail = "spec.persistentvolumesource is immutable after creation";
                errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
            }
        })
        .row(row)
        .done()
}

fn validate(volume: &PersistentVolume, errors: &mut Errors) {
    let Some(spec) = &volume.spec else { return errors.required("spec", true) };
    errors.required("spec.accessModes", spec.access_modes.as_ref().is_none_or(Vec::is_empty));
    errors.required("spec.capacity", spec.capacity.as_ref().is_none_or(|c| c.is_empty()));
    let policy = spec.persistent_volume_reclaim_policy.as_deref();
    errors.one_of("spec.persistentVolumeReclaimPolicy", policy, &["Delete", "Recycle", "Retain"]);
}

fn row(volume: &PersistentVolume) -> Vec<Value> {
    let spec = volume.spec.clone().unwrap_or_default();
    let status = volume.status.clone().unwrap_or_default();
    let deleting = volume.metadata.deletion_timestamp.is_some();
    let phase = if deleting { "Terminating".into() } else { status.phase.unwrap_or_default() };
    let claim =
        spec.claim_ref.map(|c| format!("{}/{}", c.namespace.unwrap_or_default(), c.name.unwrap_or_default()));
    let capacity = spec.capacity.and_then(|c| c.get("storage").map(|q| q.0.clone()));
    vec![
        name_cell(&volume.metadata),
        capacity.unwrap_or_default().into(),
        access_modes(spec.access_modes.as_deref()).into(),
        spec.persistent_volume_reclaim_policy.unwrap_or_default().into(),
        phase.into(),
        claim.unwrap_or_default().into(),
        spec.storage_class_name.unwrap_or_default().into(),
        spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into()).into(),
        status.reason.unwrap_or_default().into(),
        age_cell(&volume.metadata),
        spec.volume_mode.unwrap_or_default().into(),
    ]
}
