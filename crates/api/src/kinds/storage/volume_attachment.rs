//! `VolumeAttachment`: a volume that is to be on a node.

use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::Value;

use super::check_driver;
use crate::columns::{age_cell, name_cell};
use crate::kinds::names::{Rule, fault};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<VolumeAttachment>::new("volumeattachments", false)
        .rules(|r| {
            r.update_needs_version = true;
            r.answers_deleted = true;
        })
        .status()
        .rules(|r| r.status_keeps = &["metadata"])
        .validate(validate)
        .validate_update(|new, old, errors| {
            if new.spec != old.spec {
                let shown = crate::kinds::validate::json(&new.spec);
                errors.push(FieldError::invalid("spec", shown, "field is immutable"));
            }
        })
        .row(row)
        .done()
}

fn validate(attachment: &VolumeAttachment, errors: &mut Errors) {
    let spec = &attachment.spec;
    check_driver("spec.attacher", &spec.attacher, errors);
    let named = |field: &str, name: &str, errors: &mut Errors| {
        if let Some(fault) = fault(Rule::Subdomain, name) {
            errors.push(FieldError::invalid(field, name, fault));
        }
    };
    named("spec.nodeName", &spec.node_name, errors);
    let source = &spec.source;
    match (&source.inline_volume_spec, source.persistent_volume_name.as_deref()) {
        (Some(_), Some(_)) => {
            let detail = "inlineVolumeSpec and persistentVolumeName may not be both set";
            errors.push(FieldError::forbidden("spec.source", detail));
        }
        (None, Some("")) => {
            errors.push(FieldError::required(
                "spec.source.persistentVolumeName",
                "must specify non empty persistentVolumeName",
            ));
            named("spec.source.persistentVolumeName", "", errors);
        }
        (None, None) => {
            let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.push(FieldError::required("spec.source", detail));
        }
        (None, Some(name)) => named("spec.source.persistentVolumeName", name, errors),
        (Some(_), None) => {}
    }
}

fn row(attachment: &VolumeAttachment) -> Vec<Value> {
    let spec = &attachment.spec;
    vec![
        name_cell(&attachment.metadata),
        spec.attacher.clone().into(),
        spec.source.persistent_volume_name.clone().unwrap_or_default().into(),
        spec.node_name.clone().into(),
        attachment.status.as_ref().is_some_and(|s| s.attached).into(),
        age_cell(&attachment.metadata),
    ]
}
