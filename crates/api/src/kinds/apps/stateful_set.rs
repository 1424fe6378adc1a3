//! `StatefulSet`: pods with an identity and storage of their own, started and updated in order.

use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy,
};
use serde_json::Value;

use super::{check_workload, wide_cells};
use crate::columns::{age_cell, name_cell};
use crate::kinds::core::{claim_default, pod_default_template};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<StatefulSet>::new("statefulsets", true)
        .short(&["sts"])
        .in_all()
        .status()
        .generation()
        .scale()
        .default(default)
        .validate(validate)
        .validate_update(validate_update)
        .row(row)
        .done()
}

fn default(set: &mut StatefulSet) {
    let Some(spec) = &mut set.spec else { return };
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.pod_management_policy.get_or_insert_with(|| "OrderedReady".into());
    let strategy = spec.update_strategy.get_or_insert_default();
    if strategy.type_.get_or_insert_with(|| "RollingUpdate".into()) == "RollingUpdate" {
        let rolling = strategy.rolling_update.get_or_insert_with(RollingUpdateStatefulSetStrategy::default);
        rolling.partition.get_or_insert(0);
    }
    let retention = spec
        .persistent_volume_claim_retention_policy
        .get_or_insert_with(StatefulSetPersistentVolumeClaimRetentionPolicy::default);
    retention.when_deleted.get_or_insert_with(|| "Retain".into());
    retention.when_scaled.get_or_insert_with(|| "Retain".into());
    pod_default_template(&mut spec.template);
    for claim in spec.volume_claim_templates.iter_mut().flatten() {
        claim_default(claim);
        let phase = Some("Pending".into());
        claim.status.get_or_insert_default().phase = phase;
    }
}

fn validate(set: &StatefulSet, errors: &mut Errors) {
    let Some(spec) = &set.spec else { return errors.required("spec.selector", true) };
    // Claims of the templates are volumes that the pods may mount.
    let mut template = spec.template.clone();
    if let Some(pod) = &mut template.spec {
        for claim in spec.volume_claim_templates.iter().flatten() {
            let name = claim.metadata.name.clone().unwrap_or_default();
            let volumes = pod.volumes.get_or_insert_default();
            if !volumes.iter().any(|v| v.name == name) {
                volumes.push(k8s_openapi::api::core::v1::Volume { name, ..Default::default() });
            }
        }
    }
    check_workload(&spec.selector, &template, spec.replicas, errors);
    errors.one_of(
        "spec.podManagementPolicy",
        spec.pod_management_policy.as_deref(),
        &["OrderedReady", "Parallel"],
    );
    let strategy = spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref());
    errors.one_of("spec.updateStrategy.type", strategy, &["OnDelete", "RollingUpdate"]);
}

fn validate_update(new: &StatefulSet, old: &StatefulSet, errors: &mut Errors) {
    let frozen = |set: &StatefulSet| {
        let mut spec = set.spec.clone()?;
        spec.replicas = None;
        spec.ordinals = None;
        spec.template = Default::default();
        spec.update_strategy = None;
        spec.revision_history_limit = None;
        spec.persistent_volume_claim_retention_policy = None;
        spec.min_ready_seconds = None;
        Some(spec)
    };
    if frozen(new) != frozen(old) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                      'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", detail));
    }
}

fn row(set: &StatefulSet) -> Vec<Value> {
    let spec = set.spec.clone().unwrap_or_default();
    let ready = set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
    let [containers, images, _] = wide_cells(&spec.template, &spec.selector);
    vec![
        name_cell(&set.metadata),
        format!("{ready}/{}", spec.replicas.unwrap_or(0)).into(),
        age_cell(&set.metadata),
        containers,
        images,
    ]
}
