//! `coordination.k8s.io/v1`: leases, by which holders show that they live.

use k8s_openapi::api::coordination::v1::Lease;

use super::{Build, Kind};
use crate::columns::{age_cell, name_cell};

pub fn kinds() -> Vec<Kind> {
    let lease = Build::<Lease>::new("leases", true)
        .rules(|r| {
            r.create_on_update = true;
            r.update_needs_version = true;
        })
        .prepare_create(without_gated)
        .prepare_update(|new, _| without_gated(new))
        .validate(|lease, errors| {
            let transitions = lease.spec.as_ref().and_then(|s| s.lease_transitions);
            errors.not_negative("spec.leaseTransitions", transitions.map(i64::from));
            let duration = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
            if let Some(seconds) = duration.filter(|s| *s <= 0) {
                let field = "spec.leaseDurationSeconds";
                errors.push(crate::status::FieldError::invalid(field, seconds, "must be greater than 0"));
            }
        })
        .row(|l| {
            let holder = l.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
            vec![name_cell(&l.metadata), holder.into(), age_cell(&l.metadata)]
        })
        .done();
    vec![lease]
}

/// What the gate of coordinated leader election holds, which is off.
fn without_gated(lease: &mut Lease) {
    if let Some(spec) = &mut lease.spec {
        spec.strategy = None;
        spec.preferred_holder = None;
    }
}
