//! `Job`: pods that run to completion.

use base::constants::labels;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use crate::columns::{age, age_cell, list_or_none, name, name_cell, selector_cell, text, wide};
use crate::kinds::core::{pod_default_template, pod_validate_template};
use crate::kinds::{Build, Errors, Kind};

pub fn kind() -> Kind {
    let columns = [
        name(),
        text("Status"),
        text("Completions"),
        text("Duration"),
        age(),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ];
    Build::<Job>::new("jobs", true)
        .in_all()
        .status()
        .generation()
        .default(default)
        .prepare_create(select_own_pods)
        .validate(validate)
        .validate_update(|new, old, errors| {
            let part =
                |j: &Job| j.spec.clone().map(|s| (s.completions, s.selector, s.template, s.completion_mode));
            let (new, old) = (part(new).unwrap_or_default(), part(old).unwrap_or_default());
            errors.immutable("spec.completions", &new.0, &old.0);
            errors.immutable("spec.selector", &new.1, &old.1);
            errors.immutable("spec.template", &new.2, &old.2);
            errors.immutable("spec.completionMode", &new.3, &old.3);
        })
        .columns(&columns, row)
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
    spec.backoff_limit.get_or_insert(6);
    spec.completion_mode.get_or_insert_with(|| "NonIndexed".into());
    spec.suspend.get_or_insert(false);
    spec.pod_replacement_policy.get_or_insert_with(|| "TerminatingOrFailed".into());
    pod_default_template(&mut spec.template);
}

/// A job selects its pods by its own uid, unless the user takes that on.
fn select_own_pods(job: &mut Job) {
    let (name, uid) =
        (job.metadata.name.clone().unwrap_or_default(), job.metadata.uid.clone().unwrap_or_default());
    let Some(spec) = &mut job.spec else { return };
    spec.manual_selector.get_or_insert(false);
    if spec.manual_selector == Some(true) {
        return;
    }
    let own = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    own.insert("controller-uid".into(), uid.clone());
    own.insert("job-name".into(), name.clone());
    own.insert(labels::JOB_CONTROLLER_UID.into(), uid.clone());
    own.insert(labels::JOB_NAME.into(), name);
    let match_labels = Some([(labels::JOB_CONTROLLER_UID.to_owned(), uid)].into());
    spec.selector = Some(LabelSelector { match_labels, match_expressions: None });
}

fn validate(job: &Job, errors: &mut Errors) {
    let Some(spec) = &job.spec else { return errors.required("spec.template", true) };
    for (field, value) in [
        ("spec.parallelism", spec.parallelism),
        ("spec.completions", spec.completions),
        ("spec.backoffLimit", spec.backoff_limit),
        ("spec.ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
    ] {
        errors.not_negative(field, value.map(i64::from));
    }
    errors.one_of("spec.completionMode", spec.completion_mode.as_deref(), &["Indexed", "NonIndexed"]);
    pod_validate_template("spec.template", &spec.template, errors);
    let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    errors.one_of("spec.template.spec.restartPolicy", policy, &["Never", "OnFailure"]);
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
