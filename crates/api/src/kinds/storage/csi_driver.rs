//! `CSIDriver`: what a volume driver needs of the cluster.

use std::collections::HashSet;

use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::Value;

use crate::columns::{age_cell, name_cell};
use crate::kinds::validate::json;
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<CSIDriver>::new("csidrivers", false)
        .rules(|r| {
            r.update_needs_version = true;
            r.answers_deleted = true;
            r.born_without_generation = true;
        })
        .generation()
        .default(|driver| {
            let spec = &mut driver.spec;
            spec.attach_required.get_or_insert(true);
            spec.pod_info_on_mount.get_or_insert(false);
            spec.storage_capacity.get_or_insert(false);
            spec.requires_republish.get_or_insert(false);
            spec.se_linux_mount.get_or_insert(false);
            spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".into());
            if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
                spec.volume_lifecycle_modes = Some(vec!["Persistent".into()]);
            }
        })
        .validate(validate)
        .validate_update(|new, old, errors| {
            let (new, old) = (&new.spec, &old.spec);
            errors.immutable("spec.attachedRequired", &new.attach_required, &old.attach_required);
            let (now, before) = (&new.volume_lifecycle_modes, &old.volume_lifecycle_modes);
            errors.immutable("spec.volumeLifecycleModes", now, before);
        })
        .row(row)
        .done()
}

fn validate(driver: &CSIDriver, errors: &mut Errors) {
    let spec = &driver.spec;
    const POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
    errors.one_of("spec.fsGroupPolicy", spec.fs_group_policy.as_deref(), POLICIES);
    const SHORTEST_SECONDS: i64 = 600;
    const LONGEST_SECONDS: i64 = 1 << 32;
    let requests = spec.token_requests.as_deref().unwrap_or_default();
    let mut seen = HashSet::new();
    for (i, request) in requests.iter().enumerate() {
        let field = format!("spec.tokenRequests[{i}]");
        if !seen.insert(request.audience.as_str()) {
            errors.push(FieldError::duplicate(format!("{field}.audience"), request.audience.as_str()));
        }
        if let Some(seconds) = request.expiration_seconds.filter(|s| *s < SHORTEST_SECONDS) {
            let detail = "may not specify a duration less than 10 minutes";
            errors.push(FieldError::invalid(format!("{field}.expirationSeconds"), seconds, detail));
        }
        if let Some(seconds) = request.expiration_seconds.filter(|s| *s > LONGEST_SECONDS) {
            let detail = "may not specify a duration larger than 2^32 seconds";
            errors.push(FieldError::invalid(format!("{field}.expirationSeconds"), seconds, detail));
        }
    }
    const SHORTEST_PERIOD_SECONDS: i64 = 10;
    let period = spec.node_allocatable_update_period_seconds;
    if let Some(seconds) = period.filter(|seconds| *seconds < SHORTEST_PERIOD_SECONDS) {
        let detail = format!("must be greater than or equal to {SHORTEST_PERIOD_SECONDS} seconds");
        errors.push(FieldError::invalid("spec.nodeAllocatableUpdatePeriodSeconds", seconds, detail));
    }
    const MODES: &[&str] = &["Persistent", "Ephemeral"];
    for mode in spec.volume_lifecycle_modes.iter().flatten() {
        let field = "spec.volumeLifecycleModes";
        if !MODES.contains(&mode.as_str()) {
            errors.push(FieldError::not_supported(field, json(mode), MODES));
        }
    }
}

fn row(driver: &CSIDriver) -> Vec<Value> {
    let spec = &driver.spec;
    let audiences = spec.token_requests.iter().flatten().map(|r| match r.audience.as_str() {
        "" => "<default>".to_owned(),
        audience => audience.to_owned(),
    });
    let tokens = audiences.collect::<Vec<_>>().join(",");
    vec![
        name_cell(&driver.metadata),
        spec.attach_required.unwrap_or(true).into(),
        spec.pod_info_on_mount.unwrap_or(false).into(),
        spec.storage_capacity.unwrap_or(false).into(),
        if tokens.is_empty() { "<unset>".into() } else { tokens.into() },
        spec.requires_republish.unwrap_or(false).into(),
        spec.volume_lifecycle_modes.clone().unwrap_or_default().join(",").into(),
        age_cell(&driver.metadata),
    ]
}
