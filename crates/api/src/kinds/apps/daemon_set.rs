//! `DaemonSet`: one pod on each node that fits.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{Wording, check_collisions, check_workload, shown_strategy, wide_cells, workload_warnings};
use crate::columns::{age_cell, labels_cell, name_cell};
use crate::kinds::core::pod_default_template;
use crate::kinds::validate::{at_most_all, is_share, is_zero, json, share};
use crate::kinds::{Build, Errors, Kind};
use crate::status::{FieldError, Problem};

pub fn kind() -> Kind {
    Build::<DaemonSet>::new("daemonsets", true)
        .rules(|r| r.field_annotation = TEMPLATE_GENERATION)
        .short(&["ds"])
        .in_all()
        .status()
        .generation()
        .default(default)
        .prepare_create(|set| set_template_generation(set, 1))
        .prepare_update(|new, old| {
            let template = |s: &DaemonSet| s.spec.as_ref().map(|s| s.template.clone());
            let held = template_generation(old);
            let changed = i64::from(template(new) != template(old));
            set_template_generation(new, held.unwrap_or(1) + changed);
        })
        .prepare_status(|new, old| set_template_generation(new, template_generation(old).unwrap_or(1)))
        .validate(validate)
        .warnings(|set| workload_warnings(&set.metadata, false, set.spec.as_ref().map(|s| &s.template)))
        .changes_first()
        .validate_update(|new, old, errors| {
            let selector = |s: &DaemonSet| {
                s.spec.as_ref().map(|s| s.selector.clone()).filter(|s| *s != Default::default())
            };
            errors.immutable("spec.selector", &selector(new), &selector(old));
        })
        .validate_status(validate_status)
        .row(row)
        .done()
}

fn validate_status(new: &DaemonSet, old: &DaemonSet, errors: &mut Errors) {
    let (status, old) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let counts = [
        ("currentNumberScheduled", Some(i64::from(status.current_number_scheduled))),
        ("numberMisscheduled", Some(i64::from(status.number_misscheduled))),
        ("desiredNumberScheduled", Some(i64::from(status.desired_number_scheduled))),
        ("numberReady", Some(i64::from(status.number_ready))),
        ("observedGeneration", status.observed_generation),
        ("updatedNumberScheduled", status.updated_number_scheduled.map(i64::from)),
        ("numberAvailable", status.number_available.map(i64::from)),
        ("numberUnavailable", status.number_unavailable.map(i64::from)),
        ("collisionCount", status.collision_count.map(i64::from)),
    ];
    for (name, count) in counts {
        errors.not_negative(format!("status.{name}"), count);
    }
    check_collisions(status.collision_count, old.collision_count, errors);
}

/// How often the template has changed: a field of an older version, kept as an annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(TEMPLATE_GENERATION)?.parse().ok()
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string());
}

fn default(set: &mut DaemonSet) {
    // Whoever writes the template counts as its writer.
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.entry(TEMPLATE_GENERATION.into()).or_insert_with(|| "0".into());
    let Some(spec) = &mut set.spec else { return };
    spec.revision_history_limit.get_or_insert(10);
    let strategy = spec.update_strategy.get_or_insert_with(DaemonSetUpdateStrategy::default);
    if strategy.type_.get_or_insert_with(|| "RollingUpdate".into()) == "RollingUpdate" {
        let rolling = strategy.rolling_update.get_or_insert_with(RollingUpdateDaemonSet::default);
        rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        rolling.max_surge.get_or_insert(IntOrString::Int(0));
    }
    // What may be too many is a number of its own there, of whatever strategy.
    if let Some(rolling) = &mut strategy.rolling_update {
        rolling.max_surge.get_or_insert(IntOrString::Int(0));
    }
    pod_default_template(&mut spec.template);
}

fn validate(set: &DaemonSet, errors: &mut Errors) {
    let spec = set.spec.clone().unwrap_or_default();
    let wording = Wording { selector_required: false, shows_faulty_selector: None, owner: "DaemonSet" };
    check_workload(&wording, &spec.selector, &spec.template, None, errors);
    errors.not_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from));
    check_strategy(spec.update_strategy.as_ref(), errors);
    errors.not_negative("spec.revisionHistoryLimit", spec.revision_history_limit.map(i64::from));
}

fn check_strategy(strategy: Option<&DaemonSetUpdateStrategy>, errors: &mut Errors) {
    let Some(strategy) = strategy else { return };
    let kind = strategy.type_.as_deref().unwrap_or_default();
    if !matches!(kind, "OnDelete" | "RollingUpdate") {
        let message = format!(
            "Unsupported value: {}: supported values: \"RollingUpdate\", \"OnDelete\"",
            shown_strategy(kind)
        );
        let problem = Problem::Worded("FieldValueNotSupported", message);
        errors.push(FieldError { field: "spec.updateStrategy".into(), problem });
    }
    if strategy.type_.as_deref() != Some("RollingUpdate") {
        return;
    }
    let at = "spec.updateStrategy.rollingUpdate";
    let Some(rolling) = &strategy.rolling_update else { return errors.required(at, true) };
    let (unavailable, surge) = (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
    share(format!("{at}.maxUnavailable"), unavailable, errors);
    at_most_all(format!("{at}.maxUnavailable"), unavailable, errors);
    share(format!("{at}.maxSurge"), surge, errors);
    at_most_all(format!("{at}.maxSurge"), surge, errors);
    match (is_zero(unavailable), is_zero(surge)) {
        (true, true) => {
            let detail = "cannot be 0 when maxSurge is 0";
            errors.push(FieldError::required(format!("{at}.maxUnavailable"), detail));
        }
        (false, false) if is_share(surge) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            let shown = json(&rolling.max_surge);
            errors.push(FieldError::invalid(format!("{at}.maxSurge"), shown, detail));
        }
        _ => {}
    }
}

fn row(set: &DaemonSet) -> Vec<Value> {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let [containers, images, selector] = wide_cells(&spec.template, &spec.selector);
    let pod = spec.template.spec.unwrap_or_default();
    vec![
        name_cell(&set.metadata),
        status.desired_number_scheduled.into(),
        status.current_number_scheduled.into(),
        status.number_ready.into(),
        status.updated_number_scheduled.unwrap_or(0).into(),
        status.number_available.unwrap_or(0).into(),
        labels_cell(pod.node_selector.as_ref()),
        age_cell(&set.metadata),
        containers,
        images,
        selector,
    ]
}
