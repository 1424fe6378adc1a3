//! `VolumeAttributesClass`: parameters of a volume that may change while it lives.

use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::validate::qualified;
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<VolumeAttributesClass>::new("volumeattributesclasses", false)
        .metadata_on_update(&[Change, Whole])
        .rules(|r| r.answers_deleted = true)
        .short(&["vac"])
        .validate(validate)
        .changes_first()
        .validate_update(|new, old, errors| {
            for (field, changed) in [
                ("driverName", new.driver_name != old.driver_name),
                ("parameters", new.parameters != old.parameters),
            ] {
                if changed {
                    errors.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
                }
            }
        })
        .row(|c| vec![name_cell(&c.metadata), c.driver_name.clone().into(), age_cell(&c.metadata)])
        .done()
}

fn validate(class: &VolumeAttributesClass, errors: &mut Errors) {
    match class.driver_name.to_lowercase().as_str() {
        "" => errors.required("driverName", true),
        lower => qualified("driverName", lower, errors),
    }
    let parameters = class.parameters.clone().unwrap_or_default();
    if parameters.is_empty() {
        errors.push(FieldError::required("parameters", "must contain at least one key/value pair"));
    }
    const KEYS: usize = 512;
    if parameters.len() > KEYS {
        let problem = crate::status::Problem::TooMany(parameters.len(), KEYS);
        errors.push(FieldError { field: "parameters".into(), problem });
    }
    if parameters.keys().any(String::is_empty) {
        errors.push(FieldError::invalid("parameters", "", "field can not be empty."));
    }
}
