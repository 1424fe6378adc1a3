//! `ResourceClaim`: devices that somebody asks for.

use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::Value;

use super::{claim_status, claims};
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::validate::json;
use crate::kinds::{Build, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<ResourceClaim>::new("resourceclaims", true)
        .metadata_on_update(&[Whole, Change])
        .rules(|r| r.answers_deleted = true)
        .status()
        .rules(|r| r.status_keeps = &["metadata"])
        .default(|claim| claims::default(&mut claim.spec))
        .validate_create(|claim, errors| claims::check("spec", &claim.spec, errors))
        .validate_update(|new, old, errors| {
            if new.spec != old.spec {
                errors.push(FieldError::invalid("spec", json(&new.spec), "field is immutable"));
            }
        })
        .validate_status(claim_status::check)
        .row(row)
        .done()
}

fn row(claim: &ResourceClaim) -> Vec<Value> {
    let status = claim.status.clone().unwrap_or_default();
    let mut states = Vec::new();
    if claim.metadata.deletion_timestamp.is_some() {
        states.push("deleted");
    }
    match status.allocation {
        None => states.push("pending"),
        Some(_) => {
            states.push("allocated");
            if status.reserved_for.is_some_and(|r| !r.is_empty()) {
                states.push("reserved");
            }
        }
    }
    vec![name_cell(&claim.metadata), states.join(",").into(), age_cell(&claim.metadata)]
}
