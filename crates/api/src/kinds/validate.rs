//! Checks that many kinds share, each worded as the API words it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde_json::Value;

use super::{Errors, names};
use crate::quantity::Quantity;
use crate::status::FieldError;

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
