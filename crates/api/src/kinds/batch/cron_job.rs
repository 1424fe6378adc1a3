//! `CronJob`: jobs at given times.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};
use serde_json::Value;

use super::{job, schedule};
use crate::columns::{age_cell, list_or_none, name_cell, or_none, selector_cell, since_cell};
use crate::kinds::core::{pod_name_warning, pod_template_warnings};
use crate::kinds::validate::is_empty;
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

/// A job's name is the cron job's and eleven characters more.
const NAME_LIMIT: usize = 52;

pub fn kind() -> Kind {
    Build::<CronJob>::new("cronjobs", true)
        .metadata_on_status(&[])
        .short(&["cj"])
        .in_all()
        .status()
        .generation()
        .default(|c| default(&mut c.spec))
        .warnings(|c| {
            let job = c.spec.job_template.spec.as_ref();
            let template = job.map(|j| pod_template_warnings("spec.jobTemplate.spec.template", &j.template));
            pod_name_warning(&c.metadata).into_iter().chain(template.unwrap_or_default()).collect()
        })
        .validate(|c, errors| {
            validate(&c.spec, errors);
            let name = c.metadata.name.as_deref().unwrap_or_default();
            if name.len() > NAME_LIMIT {
                let detail = format!("must be no more than {NAME_LIMIT} characters");
                errors.push(FieldError::invalid("metadata.name", name, detail));
            }
        })
        .row(row)
        .done()
}

fn default(spec: &mut CronJobSpec) {
    spec.concurrency_policy.get_or_insert_with(|| "Allow".into());
    spec.suspend.get_or_insert(false);
    spec.successful_jobs_history_limit.get_or_insert(3);
    spec.failed_jobs_history_limit.get_or_insert(1);
    if let Some(job) = &mut spec.job_template.spec {
        job::default_template_spec(job);
    }
}

fn validate(spec: &CronJobSpec, errors: &mut Errors) {
    match spec.schedule.as_str() {
        "" => errors.required("spec.schedule", true),
        text => {
            if let Err(fault) = schedule::check(text) {
                errors.push(FieldError::invalid("spec.schedule", text, fault));
            }
            if text.contains("TZ") {
                let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                errors.push(FieldError::invalid("spec.schedule", text, detail));
            }
        }
    }
    errors.not_negative("spec.startingDeadlineSeconds", spec.starting_deadline_seconds);
    const POLICIES: &[&str] = &["Allow", "Forbid", "Replace"];
    match is_empty(spec.concurrency_policy.as_deref()) {
        true => errors.required("spec.concurrencyPolicy", true),
        false => errors.one_of("spec.concurrencyPolicy", spec.concurrency_policy.as_deref(), POLICIES),
    }
    for (field, limit) in [
        ("spec.successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("spec.failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ] {
        errors.not_negative(field, limit.map(i64::from));
    }
    if let Some(zone) = &spec.time_zone {
        check_zone(zone, errors);
    }
    let job_spec = spec.job_template.spec.clone().unwrap_or_default();
    job::validate_spec("spec.jobTemplate.spec", &job_spec, true, errors);
}

fn check_zone(zone: &str, errors: &mut Errors) {
    const FIELD: &str = "spec.timeZone";
    if zone.is_empty() {
        return errors.push(FieldError::invalid(FIELD, "", "timeZone must be nil or non-empty string"));
    }
    if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(FieldError::invalid(FIELD, zone, detail));
    }
    if !schedule::is_zone(zone) {
        errors.push(FieldError::invalid(FIELD, zone, format!("unknown time zone {zone}")));
    }
}

fn row(cron: &CronJob) -> Vec<Value> {
    let spec = cron.spec.clone();
    let status = cron.status.clone().unwrap_or_default();
    let job = spec.job_template.spec.unwrap_or_default();
    let containers = || job.template.spec.iter().flat_map(|s| s.containers.iter());
    let last = match &status.last_schedule_time {
        Some(time) => since_cell(Some(time)),
        None => "<none>".into(),
    };
    let suspended = spec.suspend.map_or("<unset>", |s| if s { "True" } else { "False" });
    vec![
        name_cell(&cron.metadata),
        spec.schedule.into(),
        or_none(spec.time_zone.as_deref()),
        suspended.into(),
        status.active.map_or(0, |a| a.len()).into(),
        last,
        age_cell(&cron.metadata),
        list_or_none(containers().map(|c| c.name.clone())),
        list_or_none(containers().map(|c| c.image.clone().unwrap_or_default())),
        selector_cell(job.selector.as_ref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kube-apiserver v1.36.2 answers it.
    #[test]
    fn zones_are_spelled_out() {
        let check = |zone: &str, expected: &[&str]| {
            let mut errors = Errors::default();
            check_zone(zone, &mut errors);
            let told: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
            let expected: Vec<String> =
                expected.iter().map(|e| format!("spec.timeZone: Invalid value: {zone:?}: {e}")).collect();
            assert_eq!(told, expected);
        };
        const EXPLICIT: &str =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        check("Europe/Berlin", &[]);
        check("UTC", &[]);
        check("Etc/GMT+5", &[]);
        check("", &["timeZone must be nil or non-empty string"]);
        check("Local", &[EXPLICIT]);
        check("local", &[EXPLICIT, "unknown time zone local"]);
        for unknown in ["utc", "europe/berlin", " UTC", "Mars/X", "../etc"] {
            check(unknown, &[&format!("unknown time zone {unknown}")]);
        }
    }
}
