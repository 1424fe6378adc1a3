//! `LimitRange`: what a namespace allows one pod, container or claim, and gives it when it says nothing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use super::resources_validate::{check_container_resource, check_standard_resource};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::validate::qualified;
use crate::kinds::{Build, Errors, Kind, names};
use crate::quantity::Quantity;
use crate::status::FieldError;

type Amounts = Option<BTreeMap<String, Amount>>;

pub fn kind() -> Kind {
    Build::<LimitRange>::new("limitranges", true)
        .metadata_on_update(&[Whole])
        .short(&["limits"])
        .rules(|r| r.names_itself = true)
        .default(|range| range.spec.iter_mut().flat_map(|s| s.limits.iter_mut()).for_each(default))
        .validate(|range, errors| {
            let mut seen = BTreeSet::new();
            for (i, item) in range.spec.iter().flat_map(|s| s.limits.iter()).enumerate() {
                let field = format!("spec.limits[{i}]");
                if !seen.insert(item.type_.as_str()) {
                    errors.push(FieldError::duplicate(format!("{field}.type"), item.type_.as_str()));
                }
                check_item(&field, item, errors);
            }
        })
        .done()
}

/// For containers: the default limit is the maximum, the default request is the default limit or the minimum.
fn default(item: &mut LimitRangeItem) {
    if item.type_ != "Container" {
        return;
    }
    let fill = |into: &mut Amounts, from: &Amounts| {
        for (name, amount) in from.iter().flatten() {
            into.get_or_insert_default().entry(name.clone()).or_insert_with(|| amount.clone());
        }
    };
    fill(&mut item.default, &item.max);
    fill(&mut item.default_request, &item.default);
    fill(&mut item.default_request, &item.min);
}

fn check_item(field: &str, item: &LimitRangeItem, errors: &mut Errors) {
    if item.type_ == "Pod" {
        for (part, amounts) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if amounts.as_ref().is_some_and(|a| !a.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(format!("{field}.{part}"), detail));
            }
        }
    }
    if item.type_ == "PersistentVolumeClaim" {
        let has = |a: &Amounts| a.as_ref().is_some_and(|a| a.contains_key("storage"));
        if !has(&item.min) && !has(&item.max) {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(format!("{field}.limits"), detail));
        }
    }
    qualified(format!("{field}.type"), &item.type_, errors);
    for (part, amounts) in [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ] {
        for name in amounts.iter().flat_map(|a| a.keys()) {
            let at = format!("{field}.{part}[{name}]");
            match matches!(item.type_.as_str(), "Pod" | "Container") {
                true => check_container_resource(&at, name, errors),
                false => drop(check_standard_resource(&at, name, errors)),
            }
            if item.type_ == "Container" && name.contains('/') && names::key_fault(name).is_some() {
                let detail = "doesn't follow extended resource name standard";
                errors.push(FieldError::invalid(at, name.as_str(), detail));
            }
        }
    }
    let all = [&item.max, &item.min, &item.default, &item.default_request, &item.max_limit_request_ratio];
    let names: BTreeSet<&String> = all.into_iter().flatten().flat_map(|a| a.keys()).collect();
    for name in names {
        check_resource(field, name, item, errors);
    }
}

/// The least, the defaults and the most of one resource must be in that order.
fn check_resource(field: &str, name: &str, item: &LimitRangeItem, errors: &mut Errors) {
    let amount = |amounts: &Amounts| amounts.as_ref().and_then(|a| a.get(name)).map(|a| a.0.clone());
    let parsed = |text: &Option<String>| text.as_deref().and_then(|t| Quantity::parse(t).ok());
    let (min, max) = (amount(&item.min), amount(&item.max));
    let (request, limit) = (amount(&item.default_request), amount(&item.default));
    let shown = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut in_order =
        |part: &str, value: &Option<String>, low: (&str, &Option<String>), high: (&str, &Option<String>)| {
            if let (Some(l), Some(h)) = (parsed(low.1), parsed(high.1))
                && l > h
            {
                let (low_name, high_name) = (low.0, high.0);
                let detail = format!(
                    "{low_name} value {} is greater than {high_name} value {}",
                    shown(low.1),
                    shown(high.1)
                );
                errors.push(FieldError::invalid(format!("{field}.{part}[{name}]"), shown(value), detail));
            }
        };
    in_order("min", &min, ("min", &min), ("max", &max));
    in_order("defaultRequest", &request, ("min", &min), ("default request", &request));
    in_order("defaultRequest", &request, ("default request", &request), ("max", &max));
    in_order("defaultRequest", &request, ("default request", &request), ("default limit", &limit));
    in_order("default", &min, ("min", &min), ("default", &limit));
    in_order("default", &max, ("default", &limit), ("max", &max));
    let ratio = amount(&item.max_limit_request_ratio);
    if let Some(given) = parsed(&ratio).filter(|r| *r < Quantity::from_units(1)) {
        let at = format!("{field}.maxLimitRequestRatio[{name}]");
        errors.push(FieldError::invalid(at, given.to_string(), format!("ratio {given} is less than 1")));
    }
    if let (Some(given), Some(low), Some(high)) = (parsed(&ratio), parsed(&min), parsed(&max))
        && low.to_f64() > 0.0
        && given.to_f64() > high.to_f64() / low.to_f64()
    {
        let at = format!("{field}.maxLimitRequestRatio[{name}]");
        let most = high.to_f64() / low.to_f64();
        let detail = format!("ratio {given} is greater than max/min = {most:.6}");
        errors.push(FieldError::invalid(at, given.to_string(), detail));
    }
}
