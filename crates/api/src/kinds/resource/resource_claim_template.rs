//! `ResourceClaimTemplate`: claims made for each pod that names it.

use k8s_openapi::api::resource::v1::ResourceClaimTemplate;

use super::claims;
use crate::columns::{age_cell, name_cell};
use crate::kinds::validate::json;
use crate::kinds::{Build, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<ResourceClaimTemplate>::new("resourceclaimtemplates", true)
        .rules(|r| r.answers_deleted = true)
        .default(|template| claims::default(&mut template.spec.spec))
        .validate(|template, errors| claims::check("spec.spec", &template.spec.spec, errors))
        .validate_update(|new, old, errors| {
            if new.spec != old.spec {
                errors.push(FieldError::invalid("spec", json(&new.spec), "field is immutable"));
            }
        })
        .row(|t| vec![name_cell(&t.metadata), age_cell(&t.metadata)])
        .done()
}
