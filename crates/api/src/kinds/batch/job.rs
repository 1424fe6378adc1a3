//! `Job`: pods that run to completion.

use base::constants::labels;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::job_policies;
use crate::columns::{age_cell, list_or_none, name_cell, selector_cell};
use crate::kinds::core::{
    pod_default_template, pod_name_warning, pod_template_warnings, pod_validate_template,
};
use crate::kinds::validate::{json, label_selector};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<Job>::new("jobs", true)
        .on_read(crate::kinds::read::job)
        .rules(|r| {
            r.orphans_dependents = true;
            r.unknown_field = "field label \"{}\" not supported for Job";
            r.deletion_warning = Some(
                "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or \
                 set propagationPolicy=Orphan to suppress this warning",
            );
        })
        .in_all()
        .status()
        .generation()
        .default(default)
        .prepare_create(select_own_pods)
        .validate(validate)
        .warnings(|job| {
            let template = job.spec.as_ref().map(|s| pod_template_warnings("spec.template", &s.template));
            pod_name_warning(&job.metadata).into_iter().chain(template.unwrap_or_default()).collect()
        })
        .validate_update(|new, old, errors| {
            let part =
                |j: &Job| j.spec.clone().map(|s| (s.completions, s.selector, s.template, s.completion_mode));
            let (new, old) = (part(new).unwrap_or_default(), part(old).unwrap_or_default());
            errors.immutable("spec.completions", &new.0, &old.0);
            errors.immutable("spec.selector", &new.1, &old.1);
            errors.immutable("spec.template", &new.2, &old.2);
            errors.immutable("spec.completionMode", &new.3, &old.3);
        })
        .row(row)
        .fields(&["status.successful"], |j| {
            vec![("status.successful", j.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0).to_string())]
        })
        .done()
}

fn default(job: &mut Job) {
    let Some(spec) = &mut job.spec else { return };
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let per_index = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if per_index { i32::MAX } else { 6 });
    spec.completion_mode.get_or_insert_with(|| "NonIndexed".into());
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    let policy = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    spec.pod_replacement_policy.get_or_insert_with(|| policy.into());
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|p| p.rules.iter_mut());
    for condition in rules.flat_map(|r| r.on_pod_conditions.iter_mut().flatten()) {
        condition.status.get_or_insert_with(|| "True".into());
    }
    default_template_spec(spec);
}

/// What holds of a job in a template too: only its pods are defaulted, the rest is when a job is made of it.
pub(super) fn default_template_spec(spec: &mut JobSpec) {
    pod_default_template(&mut spec.template);
}

/// A job selects its pods by its own uid, unless the user takes that on.
fn select_own_pods(job: &mut Job) {
    let (name, uid) =
        (job.metadata.name.clone().unwrap_or_default(), job.metadata.uid.clone().unwrap_or_default());
    let Some(spec) = &mut job.spec else { return };
    if spec.manual_selector == Some(true) {
        return;
    }
    let own = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    own.insert("controller-uid".into(), uid.clone());
    own.insert("job-name".into(), name.clone());
    own.insert(labels::JOB_CONTROLLER_UID.into(), uid.clone());
    own.insert(labels::JOB_NAME.into(), name);
    // What else the user selects by stays, and is refused unless the pods have it.
    let selector = spec.selector.get_or_insert_with(LabelSelector::default);
    selector.match_labels.get_or_insert_default().insert(labels::JOB_CONTROLLER_UID.to_owned(), uid);
}

fn validate(job: &Job, errors: &mut Errors) {
    job_policies::check_selector(job, errors);
    validate_spec("spec", job.spec.as_ref().unwrap_or(&JobSpec::default()), false, errors);
    if job.spec.as_ref().is_some_and(|s| s.selector.is_none()) {
        // No selector matches nothing.
        let labels = job.spec.as_ref().and_then(|s| s.template.metadata.as_ref()?.labels.clone());
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", json(&labels), detail));
    }
}

pub(super) fn validate_spec(field: &str, spec: &JobSpec, in_template: bool, errors: &mut Errors) {
    for (part, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        errors.not_negative(format!("{field}.{part}"), value);
    }
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let modes = &["NonIndexed", "Indexed"];
    errors.one_of(format!("{field}.completionMode"), spec.completion_mode.as_deref(), modes);
    if indexed && spec.completions.is_none() {
        let detail = "when completion mode is Indexed";
        errors.push(FieldError::required(format!("{field}.completions"), detail));
    }
    check_indexes(field, spec, indexed, errors);
    if in_template {
        if spec.selector.is_some() {
            let shown = json(&spec.selector);
            let detail = "`selector` will be auto-generated";
            errors.push(FieldError::invalid(format!("{field}.selector"), shown, detail));
        }
        if spec.manual_selector == Some(true) {
            let supported =
                [FieldError::not_supported(format!("{field}.manualSelector"), true, &["nil", "false"])];
            supported.into_iter().for_each(|e| errors.push(e));
        }
    } else {
        match &spec.selector {
            None => errors.required(format!("{field}.selector"), true),
            Some(selector) => label_selector(&format!("{field}.selector"), selector, errors),
        }
    }
    job_policies::check_failure(field, spec, errors);
    job_policies::check_success(field, spec, indexed, errors);
    let policies: &[&str] = match spec.pod_failure_policy {
        Some(_) => &["Failed"],
        None => &["Failed", "TerminatingOrFailed"],
    };
    errors.one_of(format!("{field}.podReplacementPolicy"), spec.pod_replacement_policy.as_deref(), policies);
    pod_validate_template(&format!("{field}.template"), &spec.template, errors);
    let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    let at = format!("{field}.template.spec.restartPolicy");
    match policy {
        Some("Always") => errors.push(FieldError::required(at, "valid values: \"OnFailure\", \"Never\"")),
        policy => errors.one_of(at, policy, &["Never", "OnFailure"]),
    }
}

/// What only a job that counts its pods by index may ask for.
fn check_indexes(field: &str, spec: &JobSpec, indexed: bool, errors: &mut Errors) {
    const DETAIL: &str = "requires indexed completion mode";
    if let Some(limit) = spec.backoff_limit_per_index.filter(|_| !indexed) {
        errors.push(FieldError::invalid(format!("{field}.backoffLimitPerIndex"), limit, DETAIL));
    }
    if let Some(most) = spec.max_failed_indexes {
        if spec.backoff_limit_per_index.is_none() {
            let detail = "when maxFailedIndexes is specified";
            errors.push(FieldError::required(format!("{field}.backoffLimitPerIndex"), detail));
        }
        if !indexed {
            errors.push(FieldError::invalid(format!("{field}.maxFailedIndexes"), most, DETAIL));
        }
    }
    if let Some(manager) = spec.managed_by.as_deref().filter(|m| !job_policies::is_manager(m)) {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(format!("{field}.managedBy"), manager, detail));
    }
}

fn row(job: &Job) -> Vec<Value> {
    let spec = job.spec.clone().unwrap_or_default();
    let status = job.status.clone().unwrap_or_default();
    let succeeded = status.succeeded.unwrap_or(0);
    let completions = match (spec.completions, spec.parallelism.unwrap_or(0)) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let has = |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True");
    let phase = ["Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"]
        .into_iter()
        .find(|k| has(k));
    let duration = status.start_time.as_ref().map(|start| {
        let end = status.completion_time.as_ref().map_or_else(base::time::now, |t| t.0);
        base::time::human_age(end.as_second() - start.0.as_second())
    });
    let containers = || spec.template.spec.iter().flat_map(|s| s.containers.iter());
    vec![
        name_cell(&job.metadata),
        phase
            .unwrap_or(if job.metadata.deletion_timestamp.is_some() { "Terminating" } else { "Running" })
            .into(),
        completions.into(),
        duration.unwrap_or_default().into(),
        age_cell(&job.metadata),
        list_or_none(containers().map(|c| c.name.clone())),
        list_or_none(containers().map(|c| c.image.clone().unwrap_or_default())),
        selector_cell(spec.selector.as_ref()),
    ]
}
