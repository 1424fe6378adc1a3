//! `PersistentVolume`: storage that exists, bound to at most one claim.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::persistent_volume_claim::access_modes;
use crate::columns::{age_cell, name_cell};
use crate::kinds::validate::json;
use crate::kinds::{Build, Errors, Kind, names};
use crate::quantity::Quantity;
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
            let last_phase_transition_time = Some(Time(base::time::now()));
            volume.status =
                Some(PersistentVolumeStatus { phase, last_phase_transition_time, ..Default::default() });
        })
        .prepare_status(|new, old| {
            let phase = |v: &PersistentVolume| v.status.as_ref().and_then(|s| s.phase.clone());
            let since =
                |v: &PersistentVolume| v.status.as_ref().and_then(|s| s.last_phase_transition_time.clone());
            let moved = phase(new) != phase(old);
            let said = since(new).is_some() && since(new) != since(old);
            let since = if moved && !said {
                Some(Time(base::time::now()))
            } else {
                since(new).or_else(|| since(old))
            };
            if let Some(status) = &mut new.status {
                status.last_phase_transition_time = since;
            }
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
            let mode = |v: &PersistentVolume| v.spec.as_ref().and_then(|s| s.volume_mode.clone());
            errors.immutable("volumeMode", &mode(new), &mode(old));
        })
        .row(row)
        .done()
}

/// Each kind of storage that a volume can be, and whether this one is.
fn sources(volume: &PersistentVolume) -> Vec<String> {
    const OTHERS: &[&str] = &[
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let spec = json(&volume.spec);
    let fields = spec.as_object().into_iter().flatten().map(|(name, _)| name.clone());
    fields.filter(|name| !OTHERS.contains(&name.as_str())).collect()
}

fn validate(volume: &PersistentVolume, errors: &mut Errors) {
    let Some(spec) = &volume.spec else { return errors.required("spec", true) };
    const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    errors.required("spec.accessModes", modes.is_empty());
    for mode in modes {
        errors.one_of("spec.accessModes", Some(mode), MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden("spec.accessModes", detail));
    }
    let capacity = spec.capacity.clone().unwrap_or_default();
    errors.required("spec.capacity", capacity.is_empty());
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        let shown = if capacity.is_empty() { Value::Null } else { json(&capacity) };
        errors.push(FieldError::not_supported("spec.capacity", shown, &["storage"]));
    }
    for (name, value) in &capacity {
        if Quantity::parse(&value.0).is_ok_and(|q| q.is_negative() || q.is_zero()) {
            let detail = "must be greater than zero";
            errors.push(FieldError::invalid(format!("spec.capacity[{name}]"), value.0.as_str(), detail));
        }
    }
    let sources = sources(volume);
    if sources.is_empty() {
        errors.push(FieldError::required("spec", "must specify a volume type"));
    }
    let order = |name: &String| (name != "hostPath", name.clone());
    let mut ordered = sources;
    ordered.sort_by_key(order);
    for second in ordered.iter().skip(1) {
        let detail = "may not specify more than 1 volume type";
        errors.push(FieldError::forbidden(format!("spec.{second}"), detail));
    }
    if let Some(path) = spec.host_path.as_ref().map(|h| h.path.as_str()) {
        errors.required("spec.hostPath.path", path.is_empty());
        super::volume_validate::no_backsteps("spec.hostPath.path", path, errors);
    }
    if let Some(local) = &spec.local {
        errors.required("spec.local.path", local.path.is_empty());
        super::volume_validate::no_backsteps("spec.local.path", &local.path, errors);
        let placed = spec.node_affinity.as_ref().is_some_and(|a| a.required.is_some());
        if !placed {
            errors.push(FieldError::required("spec.nodeAffinity", "Local volume requires node affinity"));
        }
    }
    let policy = spec.persistent_volume_reclaim_policy.as_deref();
    errors.one_of("spec.persistentVolumeReclaimPolicy", policy, &["Delete", "Recycle", "Retain"]);
    check_class(spec.storage_class_name.as_deref(), errors);
    errors.one_of("spec.volumeMode", spec.volume_mode.as_deref(), &["Block", "Filesystem"]);
}

/// The name of a class, where one is named.
pub(super) fn check_class(name: Option<&str>, errors: &mut Errors) {
    if let Some(name) = name.filter(|n| !n.is_empty())
        && let Some(fault) = names::fault(names::Rule::Subdomain, name)
    {
        errors.push(FieldError::invalid("spec.storageClassName", name, fault));
    }
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
