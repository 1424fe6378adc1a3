//! `Deployment`: replicas of a template, rolled from one version to the next.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{
    Wording, check_collisions, check_counts, check_workload, shown_strategy, wide_cells, workload_warnings,
};
use crate::columns::{age_cell, name_cell};
use crate::kinds::core::pod_default_template;
use crate::kinds::validate::{at_most_all, is_zero, share};
use crate::kinds::{Build, Errors, Kind};
use crate::status::{FieldError, Problem};

pub fn kind() -> Kind {
    Build::<Deployment>::new("deployments", true)
        .rules(|r| {
            r.annotations_count = true;
            r.status_keeps = &["metadata.labels"];
        })
        .short(&["deploy"])
        .in_all()
        .status()
        .generation()
        .scale()
        .default(default)
        .validate(validate)
        .warnings(|set| workload_warnings(&set.metadata, true, set.spec.as_ref().map(|s| &s.template)))
        .validate_update(|new, old, errors| {
            let selector = |d: &Deployment| {
                d.spec.as_ref().map(|s| s.selector.clone()).filter(|s| *s != Default::default())
            };
            errors.immutable("spec.selector", &selector(new), &selector(old));
        })
        .validate_status(validate_status)
        .row(row)
        .done()
}

fn default(deployment: &mut Deployment) {
    let Some(spec) = &mut deployment.spec else { return };
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.progress_deadline_seconds.get_or_insert(600);
    let strategy = spec.strategy.get_or_insert_default();
    let kind = strategy.type_.get_or_insert_with(|| "RollingUpdate".into());
    if kind == "RollingUpdate" {
        let quarter = || IntOrString::String("25%".into());
        let rolling = strategy.rolling_update.get_or_insert_with(RollingUpdateDeployment::default);
        rolling.max_surge.get_or_insert_with(quarter);
        rolling.max_unavailable.get_or_insert_with(quarter);
    }
    pod_default_template(&mut spec.template);
}

fn validate(deployment: &Deployment, errors: &mut Errors) {
    let default = DeploymentSpec::default();
    let spec = deployment.spec.as_ref().unwrap_or(&default);
    let wording = Wording {
        selector_required: true,
        shows_faulty_selector: Some(": invalid label selector"),
        owner: "ReplicaSet",
    };
    check_workload(&wording, &spec.selector, &spec.template, spec.replicas, errors);
    errors.not_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from));
    errors.not_negative("spec.revisionHistoryLimit", spec.revision_history_limit.map(i64::from));
    if let (Some(deadline), ready) = (spec.progress_deadline_seconds, spec.min_ready_seconds.unwrap_or(0))
        && deadline <= ready
    {
        let detail = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", deadline, detail));
    }
    let Some(strategy) = &spec.strategy else { return };
    let kind = strategy.type_.as_deref().unwrap_or_default();
    if !matches!(kind, "Recreate" | "RollingUpdate") {
        let message = format!(
            "Unsupported value: {}: supported values: \"Recreate\", \"RollingUpdate\"",
            shown_strategy(kind)
        );
        let problem = Problem::Worded("FieldValueNotSupported", message);
        errors.push(FieldError { field: "spec.strategy".into(), problem });
    }
    match (strategy.type_.as_deref(), &strategy.rolling_update) {
        (Some("Recreate"), Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
        }
        (_, Some(rolling)) => {
            let at = "spec.strategy.rollingUpdate";
            share(format!("{at}.maxUnavailable"), rolling.max_unavailable.as_ref(), errors);
            share(format!("{at}.maxSurge"), rolling.max_surge.as_ref(), errors);
            if is_zero(rolling.max_surge.as_ref()) && is_zero(rolling.max_unavailable.as_ref()) {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid("spec.strategy.rollingUpdate.maxUnavailable", 0, detail));
            }
            at_most_all(format!("{at}.maxUnavailable"), rolling.max_unavailable.as_ref(), errors);
        }
        _ => {}
    }
}

fn validate_status(new: &Deployment, old: &Deployment, errors: &mut Errors) {
    let (status, old) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let counts = [
        ("observedGeneration", status.observed_generation),
        ("replicas", status.replicas.map(i64::from)),
        ("updatedReplicas", status.updated_replicas.map(i64::from)),
        ("readyReplicas", status.ready_replicas.map(i64::from)),
        ("availableReplicas", status.available_replicas.map(i64::from)),
        ("unavailableReplicas", status.unavailable_replicas.map(i64::from)),
        ("terminatingReplicas", status.terminating_replicas.map(i64::from)),
        ("collisionCount", status.collision_count.map(i64::from)),
    ];
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    check_counts(&counts, &parts, "readyReplicas", errors);
    check_collisions(status.collision_count, old.collision_count, errors);
}

fn row(deployment: &Deployment) -> Vec<Value> {
    let spec = deployment.spec.clone().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    let [containers, images, selector] = wide_cells(&spec.template, &spec.selector);
    vec![
        name_cell(&deployment.metadata),
        format!("{}/{}", status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(0)).into(),
        status.updated_replicas.unwrap_or(0).into(),
        status.available_replicas.unwrap_or(0).into(),
        age_cell(&deployment.metadata),
        containers,
        images,
        selector,
    ]
}
