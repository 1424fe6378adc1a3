//! Checks that many kinds share, each worded as the API words it.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde_json::Value;

use super::{Errors, names, network};
use crate::quantity::Quantity;
use crate::status::{FieldError, Problem};

pub fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

pub fn is_empty(text: Option<&str>) -> bool {
    text.is_none_or(str::is_empty)
}

/// `value` must be within the bounds.
pub fn range(field: impl Into<String>, value: i64, low: i64, high: i64, errors: &mut Errors) {
    if !(low..=high).contains(&value) {
        let detail = format!("must be between {low} and {high}, inclusive");
        errors.push(FieldError::invalid(field, value, detail));
    }
}

pub fn port(field: impl Into<String>, port: i32, errors: &mut Errors) {
    range(field, i64::from(port), 1, 65_535, errors);
}

/// A name under `rule`; an empty one is missing.
pub fn named(field: impl Into<String>, name: &str, rule: names::Rule, errors: &mut Errors) {
    let field = field.into();
    match name {
        "" => errors.push(FieldError::required(field, "")),
        name => {
            if let Some(fault) = names::fault(rule, name) {
                errors.push(FieldError::invalid(field, name, fault));
            }
        }
    }
}

/// A key of the form of labels: an optional prefix and a name.
pub fn qualified(field: impl Into<String>, key: &str, errors: &mut Errors) {
    let field = field.into();
    for fault in names::key_faults(key) {
        errors.push(FieldError::invalid(field.as_str(), key, fault));
    }
}

pub fn label_selector(field: &str, selector: &LabelSelector, errors: &mut Errors) {
    let labels = selector.match_labels.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    names::check_labels(&format!("{field}.matchLabels"), labels, errors);
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let at = format!("{field}.matchExpressions[{i}]");
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{at}.values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{at}.values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{at}.operator"), other, detail));
            }
        }
        qualified(format!("{at}.key"), &expression.key, errors);
        for (v, value) in values.iter().enumerate() {
            if let Some(fault) = names::label_value_fault(value) {
                errors.push(FieldError::invalid(format!("{at}.values[{v}]"), value.as_str(), fault));
            }
        }
    }
}

pub fn is_empty_selector(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// A number that is not negative, or a percentage.
pub fn share(field: impl Into<String>, share: Option<&IntOrString>, errors: &mut Errors) {
    let field = field.into();
    match share {
        Some(IntOrString::Int(n)) => errors.not_negative(field, Some(i64::from(*n))),
        Some(IntOrString::String(text)) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex \
                              used for validation is '[0-9]+%')";
                errors.push(FieldError::invalid(field, text.as_str(), detail));
            }
        }
        None => {}
    }
}

/// Not more than all.
pub fn at_most_all(field: impl Into<String>, share: Option<&IntOrString>, errors: &mut Errors) {
    if let Some(percent) = share.and_then(percent).filter(|p| *p > 100) {
        let shown = format!("{percent}%");
        errors.push(FieldError::invalid(field, shown, "must not be greater than 100%"));
    }
}

fn percent(share: &IntOrString) -> Option<i64> {
    match share {
        IntOrString::String(text) => text.strip_suffix('%')?.parse().ok(),
        IntOrString::Int(_) => None,
    }
}

/// Whether it can be read as one.
pub fn is_share(share: Option<&IntOrString>) -> bool {
    share.is_some_and(|share| matches!(share, IntOrString::Int(_)) || percent(share).is_some())
}

/// Nothing, as a number or as a percentage.
pub fn is_zero(share: Option<&IntOrString>) -> bool {
    match share {
        Some(IntOrString::Int(n)) => *n == 0,
        Some(text @ IntOrString::String(_)) => percent(text) == Some(0),
        None => false,
    }
}

/// A quantity that is not negative.
pub fn amount_is_valid(amount: &Amount) -> bool {
    Quantity::parse(&amount.0).is_ok_and(|q| !q.is_negative())
}

/// Amounts may not be negative.
pub fn amount(field: impl Into<String>, amount: &Amount, errors: &mut Errors) {
    match Quantity::parse(&amount.0) {
        Ok(parsed) if parsed.is_negative() => {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(field, amount.0.as_str(), detail));
        }
        Ok(_) => {}
        Err(error) => errors.push(FieldError::invalid(field, amount.0.as_str(), error.to_string())),
    }
}

/// An address in its one spelling, unless it stood there before.
pub fn new_address(field: impl Into<String>, ip: &str, before: &[&str], errors: &mut Errors) {
    if let Some(fault) = network::address_fault(ip).filter(|_| !before.contains(&ip)) {
        errors.push(FieldError::invalid(field, ip, fault));
    }
}

/// The name under which something is reached from outside: none that is an address.
pub fn reachable_name(field: impl Into<String>, name: &str, errors: &mut Errors) {
    let field = field.into();
    if let Some(fault) = names::fault(names::Rule::Subdomain, name) {
        errors.push(FieldError::invalid(field.as_str(), name, fault));
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        errors.push(FieldError::invalid(field, name, "must be a DNS name, not an IP address"));
    }
}

const REASON_LIMIT: usize = 1024;
const MESSAGE_LIMIT: usize = 32 * 1024;

/// Conditions in the form that all newer kinds have.
pub fn conditions(field: &str, conditions: &[Condition], errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = format!("{field}[{i}]");
        if !seen.insert(condition.type_.as_str()) {
            errors.push(FieldError::duplicate(format!("{at}.type"), condition.type_.as_str()));
        }
        qualified(format!("{at}.type"), &condition.type_, errors);
        errors.one_of(format!("{at}.status"), Some(&condition.status), &["False", "True", "Unknown"]);
        if let Some(generation) = condition.observed_generation.filter(|generation| *generation < 0) {
            let detail = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(format!("{at}.observedGeneration"), generation, detail));
        }
        // One that was not given is read as the first second of all.
        errors
            .required(format!("{at}.lastTransitionTime"), condition.last_transition_time.0.as_second() == 0);
        check_reason(&format!("{at}.reason"), &condition.reason, errors);
        if condition.message.len() > MESSAGE_LIMIT {
            let problem = Problem::TooLong(MESSAGE_LIMIT);
            errors.push(FieldError { field: format!("{at}.message"), problem });
        }
    }
}

fn check_reason(field: &str, reason: &str, errors: &mut Errors) {
    let bytes = reason.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let is_one = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|b| word(b) || matches!(b, b',' | b':'));
    if reason.is_empty() {
        errors.required(field, true);
    } else if !is_one {
        let detail = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
                      characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or \
                      'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
                      '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
        errors.push(FieldError::invalid(field, reason, detail));
    }
    if reason.len() > REASON_LIMIT {
        errors.push(FieldError { field: field.into(), problem: Problem::TooLong(REASON_LIMIT) });
    }
}
