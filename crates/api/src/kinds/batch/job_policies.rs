//! What a job's policies may say: which failures of pods count, and when enough of them have succeeded.

use std::collections::HashSet;

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicyRule,
};

use crate::kinds::validate::{json, qualified};
use crate::kinds::{Errors, names};
use crate::status::{FieldError, Problem};

const RULES: usize = 20;
const EXIT_CODES: usize = 255;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const INDEXES_BYTES: usize = 64 * 1024;

fn too_many(field: String, actual: usize, limit: usize, errors: &mut Errors) {
    if actual > limit {
        errors.push(FieldError { field, problem: Problem::TooMany(actual, limit) });
    }
}

/// A fault of a rule as a whole, whose value is not shown.
fn fault(field: &str, detail: &str, errors: &mut Errors) {
    let problem = Problem::Worded("FieldValueInvalid", format!("Invalid value: {detail}"));
    errors.push(FieldError { field: field.to_owned(), problem });
}

fn listed(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

pub fn check_failure(field: &str, spec: &JobSpec, errors: &mut Errors) {
    let Some(policy) = &spec.pod_failure_policy else { return };
    let rules = format!("{field}.podFailurePolicy.rules");
    too_many(rules.clone(), policy.rules.len(), RULES, errors);
    let restarts = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    if restarts != Some("Never") {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        let at = format!("{field}.template.spec.restartPolicy");
        errors.push(FieldError::invalid(at, restarts.unwrap_or_default(), detail));
    }
    let pod = spec.template.spec.iter();
    let containers: HashSet<&str> = pod
        .flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()))
        .map(|c| c.name.as_str())
        .collect();
    for (i, rule) in policy.rules.iter().enumerate() {
        let at = format!("{rules}[{i}]");
        check_action(&at, spec, rule, errors);
        if let Some(codes) = &rule.on_exit_codes {
            check_exit_codes(&format!("{at}.onExitCodes"), codes, &containers, errors);
        }
        let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
        check_conditions(&format!("{at}.onPodConditions"), conditions, errors);
        match (rule.on_exit_codes.is_some(), !conditions.is_empty()) {
            (true, true) => {
                fault(&at, "specifying both OnExitCodes and OnPodConditions is not supported", errors);
            }
            (false, false) => {
                fault(&at, "specifying one of OnExitCodes and OnPodConditions is required", errors);
            }
            _ => {}
        }
    }
}

fn check_action(field: &str, spec: &JobSpec, rule: &PodFailurePolicyRule, errors: &mut Errors) {
    let at = format!("{field}.action");
    match rule.action.as_str() {
        "" => errors.push(FieldError::required(at, listed(ACTIONS))),
        "FailIndex" if spec.backoff_limit_per_index.is_none() => {
            errors.push(FieldError::invalid(at, "FailIndex", "requires the backoffLimitPerIndex to be set"));
        }
        action => errors.one_of(at, Some(action), ACTIONS),
    }
}

fn check_exit_codes(
    field: &str,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    containers: &HashSet<&str>,
    errors: &mut Errors,
) {
    const OPERATORS: &[&str] = &["In", "NotIn"];
    match codes.operator.as_str() {
        "" => errors.push(FieldError::required(format!("{field}.operator"), listed(OPERATORS))),
        operator => errors.one_of(format!("{field}.operator"), Some(operator), OPERATORS),
    }
    if let Some(name) = codes.container_name.as_deref().filter(|n| !containers.contains(n)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(format!("{field}.containerName"), name, detail));
    }
    let at = format!("{field}.values");
    if codes.values.is_empty() {
        errors.push(FieldError::invalid(at.as_str(), json(&codes.values), "at least one value is required"));
    }
    too_many(at.clone(), codes.values.len(), EXIT_CODES, errors);
    let mut seen = HashSet::new();
    for (i, code) in codes.values.iter().enumerate() {
        if codes.operator == "In" && *code == 0 {
            let detail = "must not be 0 for the In operator";
            errors.push(FieldError::invalid(format!("{at}[{i}]"), *code, detail));
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(format!("{at}[{i}]"), *code));
        }
    }
    if !codes.values.is_sorted() {
        errors.push(FieldError::invalid(at, json(&codes.values), "must be ordered"));
    }
}

fn check_conditions(field: &str, conditions: &[PodFailurePolicyOnPodConditionsPattern], errors: &mut Errors) {
    const STATUSES: &[&str] = &["False", "True", "Unknown"];
    too_many(field.to_owned(), conditions.len(), RULES, errors);
    for (i, pattern) in conditions.iter().enumerate() {
        qualified(format!("{field}[{i}].type"), &pattern.type_, errors);
        // Without one that the defaults have seen, as in templates, there is none.
        match pattern.status.as_deref().unwrap_or_default() {
            "" => errors.push(FieldError::required(format!("{field}[{i}].status"), listed(STATUSES))),
            status => errors.one_of(format!("{field}[{i}].status"), Some(status), STATUSES),
        }
    }
}

pub fn check_success(field: &str, spec: &JobSpec, indexed: bool, errors: &mut Errors) {
    let Some(policy) = &spec.success_policy else { return };
    let field = format!("{field}.successPolicy");
    if !indexed {
        let shown = json(policy);
        return errors.push(FieldError::invalid(field, shown, "requires indexed completion mode"));
    }
    let rules = format!("{field}.rules");
    if policy.rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(rules.as_str(), detail));
    }
    too_many(rules.clone(), policy.rules.len(), RULES, errors);
    for (i, rule) in policy.rules.iter().enumerate() {
        check_success_rule(&format!("{rules}[{i}]"), rule, spec.completions.unwrap_or(0), errors);
    }
}

fn check_success_rule(field: &str, rule: &SuccessPolicyRule, completions: i32, errors: &mut Errors) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(field, detail));
    }
    let mut total = None;
    if let Some(text) = &rule.succeeded_indexes {
        let at = format!("{field}.succeededIndexes");
        if text.len() > INDEXES_BYTES {
            let problem = Problem::TooLong(INDEXES_BYTES);
            errors.push(FieldError { field: at.clone(), problem });
        }
        match count_indexes(text, completions) {
            Ok(count) => total = Some(count),
            Err(why) => {
                let detail = format!("error parsing succeededIndexes: {why}");
                errors.push(FieldError::invalid(at, text.as_str(), detail));
            }
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let at = format!("{field}.succeededCount");
    errors.not_negative(at.as_str(), Some(i64::from(count)));
    if count > completions {
        let detail =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(FieldError::invalid(at.as_str(), count, detail));
    }
    if let Some(total) = total.filter(|total| i64::from(count) > *total) {
        let detail = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.push(FieldError::invalid(at, count, detail));
    }
}

/// How many indexes a text such as `1,3-5` names; they rise and are below the completions.
pub fn count_indexes(text: &str, completions: i32) -> Result<i64, String> {
    let (mut total, mut last) = (0, None::<i32>);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = index_range(part, completions)?;
        if let Some(last) = last.filter(|last| first <= *last) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += i64::from(end) - i64::from(first) + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The ranges that such a text names, without those that are none.
pub fn index_ranges(text: &str, completions: i32) -> Vec<(i32, i32)> {
    text.split(',').filter_map(|part| index_range(part, completions).ok()).collect()
}

fn index_range(part: &str, completions: i32) -> Result<(i32, i32), String> {
    let parse = |text: &str| -> Result<i32, String> {
        let index: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        match index < i64::from(completions) {
            true => i32::try_from(index).map_err(|_| format!("too small index: {text:?}")),
            false => Err(format!("too large index: {text:?}")),
        }
    };
    let mut ends = part.split('-');
    let (first, end) = (ends.next().unwrap_or_default(), ends.next());
    if ends.next().is_some() {
        return Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let first = parse(first)?;
    let end = end.map_or(Ok(first), parse)?;
    if part.contains('-') && end <= first {
        return Err(format!("non-increasing order, previous: {first}, current: {end}"));
    }
    Ok((first, end))
}

/// The selector is the job's own.
pub fn check_selector(job: &k8s_openapi::api::batch::v1::Job, errors: &mut Errors) {
    let Some(spec) = &job.spec else { return };
    let Some(selector) = &spec.selector else { return };
    let Ok(matcher) = crate::selector::Selector::from_object(selector) else { return };
    if spec.manual_selector != Some(true) {
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let own = [
            (base::constants::labels::JOB_CONTROLLER_UID.to_owned(), uid.clone()),
            ("controller-uid".into(), uid),
        ];
        if !matcher.matches(&own.into_iter().collect()) {
            let detail = "`selector` not auto-generated";
            errors.push(FieldError::invalid("spec.selector", json(selector), detail));
        }
    }
}

/// Names of domains with a path, as whoever takes a job over is named.
pub fn is_manager(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, path)| names::is_subdomain(domain) && !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_rise_and_are_below_the_completions() {
        assert_eq!(count_indexes("0,2-4", 5), Ok(4));
        assert_eq!(count_indexes("", 5), Ok(0));
        assert_eq!(count_indexes("5", 5), Err("too large index: \"5\"".into()));
        assert_eq!(count_indexes("x", 5), Err("cannot convert string to integer for index: \"x\"".into()));
        assert_eq!(count_indexes("2,1", 5), Err("non-increasing order, previous: 2, current: 1".into()));
        assert_eq!(count_indexes("3-3", 5), Err("non-increasing order, previous: 3, current: 3".into()));
    }
}
