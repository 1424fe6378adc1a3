//! `DeviceClass`: a name for devices of a sort.

use k8s_openapi::api::resource::v1::DeviceClass;

use super::claims::{check_opaque, check_selectors};
use crate::columns::{age_cell, name_cell};
use crate::kinds::core::is_counted;
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::{Build, Kind, names};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<DeviceClass>::new("deviceclasses", false)
        .metadata_on_update(&[Whole, Change])
        .rules(|r| r.answers_deleted = true)
        .generation()
        .validate(|class, errors| {
            check_selectors("spec.selectors", class.spec.selectors.as_deref(), errors);
            for (i, config) in class.spec.config.iter().flatten().enumerate() {
                check_opaque(&format!("spec.config[{i}]"), config.opaque.as_ref(), errors);
            }
            if let Some(name) = class.spec.extended_resource_name.as_deref()
                && !(is_counted(name) && name.contains('/') && names::key_fault(name).is_none())
            {
                let detail = "must be a valid extended resource name";
                errors.push(FieldError::invalid("spec.extendedResourceName", name, detail));
            }
        })
        .row(|c| vec![name_cell(&c.metadata), age_cell(&c.metadata)])
        .done()
}
