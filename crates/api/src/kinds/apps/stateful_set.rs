//! `StatefulSet`: pods with an identity and storage of their own, started and updated in order.

use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy,
    StatefulSetSpec,
};
use serde_json::Value;

use super::{
    Wording, check_collisions, check_counts, check_workload, shown_strategy, wide_cells, workload_warnings,
};
use crate::columns::{age_cell, name_cell};
use crate::kinds::core::{claim_default, pod_default_template};
use crate::kinds::{Build, Errors, Kind};
use crate::status::{FieldError, Problem};

pub fn kind() -> Kind {
    Build::<StatefulSet>::new("statefulsets", true)
        .on_read(crate::kinds::read::stateful_set)
        .short(&["sts"])
        .in_all()
        .status()
        .generation()
        .scale()
        .default(default)
        .prepare_create(drop_unavailable)
        .prepare_update(|new, _| drop_unavailable(new))
        .validate(validate)
        .warnings(|set| {
            let mut told = workload_warnings(&set.metadata, false, set.spec.as_ref().map(|s| &s.template));
            if set.spec.as_ref().and_then(|s| s.revision_history_limit).is_some_and(|limit| limit < 0) {
                let text = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                            recommended";
                told.push(text.into());
            }
            told
        })
        .validate_update(validate_update)
        .validate_status(validate_status)
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

/// How many pods may be away at once is a gate that is off by default.
fn drop_unavailable(set: &mut StatefulSet) {
    let strategy = set.spec.as_mut().and_then(|s| s.update_strategy.as_mut());
    if let Some(rolling) = strategy.and_then(|s| s.rolling_update.as_mut()) {
        rolling.max_unavailable = None;
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
    check_policies(spec, errors);
    if let Some(name) = spec.service_name.as_deref().filter(|name| !name.is_empty())
        && let Some(fault) = crate::kinds::names::fault(crate::kinds::names::Rule::Label, name)
    {
        errors.push(FieldError::invalid("spec.serviceName", name, fault));
    }
    let wording = Wording { selector_required: true, shows_faulty_selector: Some(""), owner: "StatefulSet" };
    check_workload(&wording, &spec.selector, &template, spec.replicas, errors);
}

fn check_policies(spec: &StatefulSetSpec, errors: &mut Errors) {
    let management = spec.pod_management_policy.as_deref().unwrap_or_default();
    if !matches!(management, "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        errors.push(FieldError::invalid("spec.podManagementPolicy", management, detail));
    }
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    let kind = strategy.type_.unwrap_or_default();
    let partition = strategy.rolling_update.as_ref().and_then(|r| r.partition);
    let mut strategy_fault = |part: &str, message: String| {
        let problem = Problem::Worded("FieldValueInvalid", message);
        errors.push(FieldError { field: format!("spec.updateStrategy{part}"), problem });
    };
    match kind.as_str() {
        "RollingUpdate" => {}
        "OnDelete" if strategy.rolling_update.is_some() => {
            let shown = partition.map_or_else(|| "null".to_owned(), |p| p.to_string());
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            let message =
                format!("Invalid value: {{\"Partition\":{shown},\"MaxUnavailable\":null}}: {detail}");
            strategy_fault(".rollingUpdate", message);
        }
        "OnDelete" => {}
        other => {
            let shown = shown_strategy(other);
            strategy_fault("", format!("Invalid value: {shown}: must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
    errors.not_negative("spec.updateStrategy.rollingUpdate.partition", partition.map(i64::from));
    if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
        for (part, policy) in
            [("whenDeleted", &retention.when_deleted), ("whenScaled", &retention.when_scaled)]
        {
            let at = format!("spec.persistentVolumeClaimRetentionPolicy.{part}");
            errors.one_of(at, policy.as_deref(), &["Retain", "Delete"]);
        }
    }
    errors.not_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from));
    let start = spec.ordinals.as_ref().and_then(|o| o.start);
    errors.not_negative("spec.ordinals.start", start.map(i64::from));
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

fn validate_status(new: &StatefulSet, old: &StatefulSet, errors: &mut Errors) {
    let (status, old) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    let counts = [
        ("replicas", Some(i64::from(status.replicas))),
        ("readyReplicas", status.ready_replicas.map(i64::from)),
        ("currentReplicas", status.current_replicas.map(i64::from)),
        ("updatedReplicas", status.updated_replicas.map(i64::from)),
        ("availableReplicas", status.available_replicas.map(i64::from)),
        ("observedGeneration", status.observed_generation),
        ("collisionCount", status.collision_count.map(i64::from)),
    ];
    check_counts(&counts, &parts, "status.readyReplicas", errors);
    check_collisions(status.collision_count, old.collision_count, errors);
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
