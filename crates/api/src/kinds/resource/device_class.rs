//! `DeviceClass`: a name for devices of a sort.

use k8s_openapi::api::resource::v1::DeviceClass;

use super::claims::{check_opaque, check_selectors};
use crate::columns::{age_cell, name_cell};
use crate::kinds::{Build, Kind};

pub fn kind() -> Kind {
    Build::<DeviceClass>::new("deviceclasses", false)
        .rules(|r| r.answers_deleted = true)
        .generation()
        .validate(|class, errors| {
            check_selectors("spec.selectors", class.spec.selectors.as_deref(), errors);
            for (i, config) in class.spec.config.iter().flatten().enumerate() {
                check_opaque(&format!("spec.config[{i}]"), config.opaque.as_ref(), errors);
            }
        })
        .row(|c| vec![name_cell(&c.metadata), age_cell(&c.metadata)])
        .done()
}
