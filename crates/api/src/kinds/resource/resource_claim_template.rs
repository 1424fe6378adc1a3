//! `ResourceClaimTemplate`: claims made for each pod that names it.

use k8s_openapi::api::resource::v1::ResourceClaimTemplate;

use super::claims;
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::validate::json;
use crate::kinds::{Build, Kind, names};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<ResourceClaimTemplate>::new("resourceclaimtemplates", true)
        .metadata_on_update(&[Whole, Change])
        .rules(|r| r.answers_deleted = true)
        .default(|template| claims::default(&mut template.spec.spec))
        .validate_create(|template, errors| {
            let metadata = template.spec.metadata.clone().unwrap_or_default();
            let labels = metadata.labels.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
            names::check_labels("spec.metadata.labels", labels, errors);
            if metadata.name.is_some_and(|name| !name.is_empty()) {
                errors.push(FieldError::forbidden("spec.metadata.name", "cannot be set"));
            }
            claims::check("spec.spec", &template.spec.spec, errors);
        })
        .validate_update(|new, old, errors| {
            if new.spec != old.spec {
                errors.push(FieldError::invalid("spec", json(&new.spec), "field is immutable"));
            }
        })
        .row(|t| vec![name_cell(&t.metadata), age_cell(&t.metadata)])
        .done()
}
