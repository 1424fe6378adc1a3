//! `Job`: pods that run to completion.

use base::constants::labels;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Affinity, Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::{job_policies, job_status};
use crate::columns::{age_cell, list_or_none, name_cell, selector_cell};
use crate::kinds::core::{
    pod_default_template, pod_name_warning, pod_template_warnings, pod_validate_template,
};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::validate::{json, label_selector};
use crate::kinds::{Build, Errors, Kind, names};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<Job>::new("jobs", true)
        .metadata_on_update(&[Whole, Change])
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
        .prepare_create(|job| {
            select_own_pods(job);
            label_as_pods(job);
        })
        .prepare_update(|job, _| label_as_pods(job))
        .validate(validate)
        .validate_create(check_pod_names)
        .warnings(|job| {
            let template = job.spec.as_ref().map(|s| pod_template_warnings("spec.template", &s.template));
            pod_name_warning(&job.metadata).into_iter().chain(template.unwrap_or_default()).collect()
        })
        .validate_update(|new, old, errors| {
            let (spec, held) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
            // As the original does, the spec is checked once more.
            validate_own_spec(new, errors);
            check_completions(&spec, &held, errors);
            errors.immutable("spec.selector", &spec.selector, &held.selector);
            check_template(&spec.template, old, errors);
            errors.immutable("spec.completionMode", &spec.completion_mode, &held.completion_mode);
            errors.immutable("spec.podFailurePolicy", &spec.pod_failure_policy, &held.pod_failure_policy);
            let (indexes, were) = (spec.backoff_limit_per_index, held.backoff_limit_per_index);
            errors.immutable("spec.backoffLimitPerIndex", &indexes, &were);
            errors.immutable("spec.managedBy", &spec.managed_by, &held.managed_by);
            errors.immutable("spec.successPolicy", &spec.success_policy, &held.success_policy);
        })
        .validate_status(job_status::check)
        .row(row)
        .fields(&["status.successful"], |j| {
            vec![("status.successful", j.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0).to_string())]
        })
        .done()
}

/// How many pods must be through is fixed, but where they are numbered and all run at once.
fn check_completions(new: &JobSpec, old: &JobSpec, errors: &mut Errors) {
    if new.completion_mode.as_deref() != Some("Indexed") {
        return errors.immutable("spec.completions", &new.completions, &old.completions);
    }
    if new.completions.is_some() && new.completions != old.completions && new.completions != new.parallelism {
        let detail = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid("spec.completions", json(&new.completions), detail));
    }
}

/// While a job is suspended and has no pods, where its pods run and what they may use can still be changed.
fn check_template(new: &PodTemplateSpec, old: &Job, errors: &mut Errors) {
    let spec = old.spec.clone().unwrap_or_default();
    let status = old.status.clone().unwrap_or_default();
    let suspended = spec.suspend == Some(true);
    let rests = status.conditions.iter().flatten().any(|c| c.type_ == "Suspended" && c.status == "True");
    let open = suspended && (status.start_time.is_none() || rests) && status.active.unwrap_or(0) == 0;
    let mut held = spec.template;
    if !open {
        return errors.immutable("spec.template", new, &held);
    }
    let (given, was) = (new.spec.clone().unwrap_or_default(), held.spec.get_or_insert_default());
    was.affinity = placed(given.affinity.as_ref(), was.affinity.take());
    was.node_selector.clone_from(&given.node_selector);
    was.tolerations.clone_from(&given.tolerations);
    was.scheduling_gates.clone_from(&given.scheduling_gates);
    let same = |new: &[Container], old: &mut [Container]| {
        if new.len() == old.len() {
            for (new, old) in new.iter().zip(old).filter(|(new, old)| new.name == old.name) {
                old.resources.clone_from(&new.resources);
            }
        }
    };
    same(&given.containers, &mut was.containers);
    same(
        given.init_containers.as_deref().unwrap_or_default(),
        was.init_containers.as_deref_mut().unwrap_or_default(),
    );
    errors.immutable("spec.template.spec", &given, was);
}

/// The affinity as it was, but for that to nodes.
fn placed(new: Option<&Affinity>, old: Option<Affinity>) -> Option<Affinity> {
    let nodes = new.and_then(|affinity| affinity.node_affinity.clone());
    match (new, old) {
        (None, None) => None,
        (Some(_), old) => Some(Affinity { node_affinity: nodes, ..old.unwrap_or_default() }),
        (None, Some(old)) => {
            Some(Affinity { node_affinity: None, ..old }).filter(|left| *left != Affinity::default())
        }
    }
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
        let status = condition.status.get_or_insert_default();
        if status.is_empty() {
            *status = "True".into();
        }
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

/// A job without labels has those of its pods.
fn label_as_pods(job: &mut Job) {
    let labels = job.spec.as_ref().and_then(|s| s.template.metadata.as_ref()?.labels.clone());
    if job.metadata.labels.as_ref().is_none_or(|own| own.is_empty()) {
        job.metadata.labels = labels;
    }
}

fn validate(job: &Job, errors: &mut Errors) {
    job_policies::check_selector(job, errors);
    validate_own_spec(job, errors);
}

/// The pods of an indexed job are reached by names that are made of its own and an index.
fn check_pod_names(job: &Job, errors: &mut Errors) {
    let Some(spec) = &job.spec else { return };
    let Some(completions) = spec.completions.filter(|_| spec.completion_mode.as_deref() == Some("Indexed"))
    else {
        return;
    };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let pod = format!("{name}-{}", (completions - 1).max(0));
    if names::fault(names::Rule::Label, &pod).is_some() {
        let detail = format!("will not able to create pod with invalid DNS label: {pod}");
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
}

fn validate_own_spec(job: &Job, errors: &mut Errors) {
    validate_spec("spec", job.spec.as_ref().unwrap_or(&JobSpec::default()), false, errors);
    // What a job selects are its own pods; no selector matches nothing.
    let Some(spec) = &job.spec else { return };
    let matcher = match &spec.selector {
        Some(selector) => crate::selector::Selector::from_object(selector).ok(),
        None => None,
    };
    let unreadable = spec.selector.is_some() && matcher.is_none();
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone());
    let matches = matcher.is_some_and(|matcher| matcher.matches(&labels.clone().unwrap_or_default()));
    if !matches && !unreadable {
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
    if let Some(parallelism) = spec.parallelism.filter(|n| indexed && *n > PARALLEL_INDEXES_MAX) {
        let detail =
            format!("must be less than or equal to {PARALLEL_INDEXES_MAX} when completion mode is Indexed");
        errors.push(FieldError::invalid(format!("{field}.parallelism"), parallelism, detail));
    }
    check_indexes(field, spec, indexed, errors);
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
}

/// So many pods of an indexed job run at once.
const PARALLEL_INDEXES_MAX: i32 = 100_000;

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
        } else if spec.completions.is_some_and(|completions| most > completions) {
            let detail = "must be less than or equal to completions";
            errors.push(FieldError::invalid(format!("{field}.maxFailedIndexes"), most, detail));
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
