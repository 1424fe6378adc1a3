//! `ResourceClaim`: devices that somebody asks for.

use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::Value;

use super::claims;
use crate::columns::{age_cell, name_cell};
use crate::kinds::validate::json;
use crate::kinds::{Build, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<ResourceClaim>::new("resourceclaims", true)
        .rules(|r| r.answers_deleted = true)
        .status()
        .rules(|r| r.status_keeps = &["metadata"])
        .default(|claim| claims::default(&mut claim.spec))
        .validate(|claim, errors| claims::check("spec", &claim.spec, errors))
        .validate_update(|new, old, errors| {
            if new.spec != old.spec {
                errors.push(FieldError::invalid("spec", json(&new.spec), "field is immutable"));
            }
        })
        .validate_status(|new, _, errors| {
            let status = new.status.clone().unwrap_or_default();
            for (i, user) in status.reserved_for.iter().flatten().enumerate() {
                let field = format!("status.reservedFor[{i}]");
                errors.required(format!("{field}.resource"), user.resource.is_empty());
                errors.required(format!("{field}.name"), user.name.is_empty());
                errors.required(format!("{field}.uid"), user.uid.is_empty());
            }
            if status.allocation.is_none() && status.reserved_for.is_some_and(|r| !r.is_empty()) {
                let detail = "may not be specified when `allocated` is not set";
                errors.push(FieldError::forbidden("status.reservedFor", detail));
            }
        })
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
