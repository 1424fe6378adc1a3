//! `VolumeAttachment`: a volume that is to be on a node.

use k8s_openapi::api::core::v1::PersistentVolumeSpec;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::Value;

use super::check_driver;
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::names::{Rule, fault};
use crate::kinds::{Build, Errors, Kind};
use crate::status::{FieldError, Problem};

pub fn kind() -> Kind {
    Build::<VolumeAttachment>::new("volumeattachments", false)
        .metadata_on_update(&[Whole])
        .rules(|r| {
            r.update_needs_version = true;
            r.answers_deleted = true;
        })
        .status()
        .rules(|r| r.status_keeps = &["metadata"])
        .validate(validate)
        .validate_update(check_spec)
        // As the original does, all of it is looked at once more.
        .validate_status(|new, old, errors| {
            validate(new, errors);
            check_status(new, errors);
            check_spec(new, old, errors);
        })
        .row(row)
        .done()
}

fn check_spec(new: &VolumeAttachment, old: &VolumeAttachment, errors: &mut Errors) {
    if new.spec != old.spec {
        let shown = crate::kinds::validate::json(&new.spec);
        errors.push(FieldError::invalid("spec", shown, "field is immutable"));
    }
}

/// In bytes.
const METADATA_LIMIT: usize = 256 * 1024;
const MESSAGE_LIMIT: usize = 1024;

fn check_status(attachment: &VolumeAttachment, errors: &mut Errors) {
    let Some(status) = &attachment.status else { return };
    let metadata = status.attachment_metadata.iter().flatten();
    if metadata.map(|(key, value)| key.len() + value.len()).sum::<usize>() > METADATA_LIMIT {
        let problem = Problem::TooLong(METADATA_LIMIT);
        errors.push(FieldError { field: "status.attachmentMetadata".into(), problem });
    }
    for (part, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        let Some(error) = error else { continue };
        if error.message.as_ref().is_some_and(|message| message.len() > MESSAGE_LIMIT) {
            // The original names the limit of the metadata.
            let problem = Problem::TooLong(METADATA_LIMIT);
            errors.push(FieldError { field: format!("status.{part}.message"), problem });
        }
        if let Some(code) = error.error_code.filter(|code| *code < 0) {
            let detail = format!("must be between 0 and {}, inclusive", i32::MAX);
            errors.push(FieldError::invalid(format!("status.{part}.errorCode"), code, detail));
        }
    }
}

fn validate(attachment: &VolumeAttachment, errors: &mut Errors) {
    let spec = &attachment.spec;
    check_driver("spec.attacher", &spec.attacher, errors);
    let named = |field: &str, name: &str, errors: &mut Errors| {
        if let Some(fault) = fault(Rule::Subdomain, name) {
            errors.push(FieldError::invalid(field, name, fault));
        }
    };
    let source = &spec.source;
    match (&source.inline_volume_spec, source.persistent_volume_name.as_deref()) {
        (Some(_), Some(_)) => {
            let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.push(FieldError::forbidden("spec.source", detail));
        }
        (None, Some("")) => {
            errors.push(FieldError::required(
                "spec.source.persistentVolumeName",
                "must specify non empty persistentVolumeName",
            ));
        }
        (None, None) => {
            let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.push(FieldError::required("spec.source", detail));
        }
        (Some(inline), None) => check_inline("spec.source.inlineVolumeSpec", inline, errors),
        (None, Some(_)) => {}
    }
    named("spec.nodeName", &spec.node_name, errors);
    if let Some(name) = source.persistent_volume_name.as_deref() {
        named("spec.source.persistentVolumeName", name, errors);
    }
}

/// A volume that was a pod's own, of a driver.
fn check_inline(field: &str, volume: &PersistentVolumeSpec, errors: &mut Errors) {
    let mut forbid = |part: &str, given: bool| {
        if given {
            let detail = "may not be specified in the context of inline volumes";
            errors.push(FieldError::forbidden(format!("{field}.{part}"), detail));
        }
    };
    forbid("claimRef", volume.claim_ref.is_some());
    forbid("capacity", volume.capacity.as_ref().is_some_and(|c| !c.is_empty()));
    if volume.csi.is_none() {
        let detail = "has to be specified in the context of inline volumes";
        errors.push(FieldError::required(format!("{field}.csi"), detail));
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
