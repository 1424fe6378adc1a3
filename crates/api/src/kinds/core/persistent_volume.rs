//! `PersistentVolume`: storage that exists, bound to at most one claim.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::persistent_volume_claim::access_modes;
use super::persistent_volume_sources;
use super::scheduling_validate::check_node_selector;
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::validate::json;
use crate::kinds::{Build, Errors, Kind, names};
use crate::quantity::Quantity;
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<PersistentVolume>::new("persistentvolumes", false)
        .metadata_on_update(&[Whole, Whole])
        .rules(|r| r.answers_deleted = true)
        .short(&["pv"])
        .status()
        .default(|volume| {
            if let Some(status) =
                volume.status.as_mut().filter(|s| s.phase.as_ref().is_none_or(String::is_empty))
            {
                status.phase = Some("Pending".into());
            }
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
            // As the original does, all of it is looked at once more.
            validate(new, errors);
            let spec = |v: &PersistentVolume| v.spec.clone().unwrap_or_default();
            let (now, before) = (spec(new), spec(old));
            if source(&now, &before) != source(&before, &before) {
                let detail = "spec.persistentvolumesource is immutable after creation";
                errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
            }
            errors.immutable("volumeMode", &now.volume_mode, &before.volume_mode);
            if before.volume_attributes_class_name.is_some() && now.volume_attributes_class_name.is_none() {
                let detail = "update from non-nil value to nil is forbidden";
                errors.push(FieldError::forbidden("spec.volumeAttributesClassName", detail));
            }
        })
        .row(row)
        .done()
}

/// What else a volume says of itself than where its storage comes from.
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

/// Where the storage comes from. The secret for its enlargement may be named later.
fn source(spec: &PersistentVolumeSpec, before: &PersistentVolumeSpec) -> Value {
    let mut spec = spec.clone();
    let held = before.csi.as_ref().and_then(|csi| csi.controller_expand_secret_ref.as_ref());
    if let Some(csi) = spec.csi.as_mut().filter(|_| held.is_none()) {
        csi.controller_expand_secret_ref = None;
    }
    let mut spec = json(&spec);
    if let Value::Object(map) = &mut spec {
        map.retain(|field, _| !OTHERS.contains(&field.as_str()));
    }
    spec
}

/// Each kind of storage that a volume can be, and whether this one is.
fn sources(volume: &PersistentVolume) -> Vec<String> {
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
        if let Some(given) = Quantity::parse(&value.0).ok().filter(|given| given.is_negative()) {
            let detail = "must be a valid resource quantity";
            errors.push(FieldError::invalid(format!("spec.capacity[{name}]"), given.to_i64(), detail));
        }
        if Quantity::parse(&value.0).is_ok_and(|q| q.is_negative() || q.is_zero()) {
            let detail = "must be greater than zero";
            errors.push(FieldError::invalid(format!("spec.capacity[{name}]"), value.0.as_str(), detail));
        }
    }
    let policy = spec.persistent_volume_reclaim_policy.as_deref();
    errors.one_of("spec.persistentVolumeReclaimPolicy", policy, &["Delete", "Recycle", "Retain"]);
    if let Some(affinity) = &spec.node_affinity {
        match &affinity.required {
            None => {
                let detail = "must specify required node constraints";
                errors.push(FieldError::required("spec.nodeAffinity.required", detail));
            }
            Some(selector) => check_node_selector("spec.nodeAffinity.required", selector, errors),
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
    if ordered.len() < 2 {
        persistent_volume_sources::check("spec", spec, errors);
    }
    if policy == Some("Recycle") && spec.host_path.as_ref().is_some_and(|source| source.path == "/") {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden("spec.persistentVolumeReclaimPolicy", detail));
    }
    check_class("spec.storageClassName", spec.storage_class_name.as_deref(), errors);
    errors.one_of("spec.volumeMode", spec.volume_mode.as_deref(), &["Block", "Filesystem"]);
    if let Some(class) = spec.volume_attributes_class_name.as_deref() {
        const FIELD: &str = "spec.volumeAttributesClassName";
        if class.is_empty() {
            errors.push(FieldError::required(FIELD, "an empty string is disallowed"));
        }
        check_class(FIELD, Some(class), errors);
        if spec.csi.is_none() {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.push(FieldError::required("spec.csi", detail));
        }
    }
}

/// The name of a class, where one is named.
pub(super) fn check_class(field: &str, name: Option<&str>, errors: &mut Errors) {
    if let Some(name) = name.filter(|n| !n.is_empty())
        && let Some(fault) = names::fault(names::Rule::Subdomain, name)
    {
        errors.push(FieldError::invalid(field, name, fault));
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
