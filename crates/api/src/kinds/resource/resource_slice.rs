//! `ResourceSlice`: devices that a driver offers.

use std::collections::HashSet;

use k8s_openapi::api::resource::v1::{Device, ResourceSlice, ResourceSliceSpec};
use serde_json::Value;

use super::claim_status::{check_name, check_pool};
use super::claims::{EFFECTS, check_driver, check_qualified_name};
use crate::columns::{age_cell, name_cell};
use crate::kinds::core::check_node_selector;
use crate::kinds::names::{self, Rule};
use crate::kinds::validate::{json, qualified};
use crate::kinds::{Build, Errors, Kind};
use crate::status::{FieldError, Problem};

const DEVICES: usize = 128;

pub fn kind() -> Kind {
    Build::<ResourceSlice>::new("resourceslices", false)
        .rules(|r| {
            r.answers_deleted = true;
            r.no_namespace_field = true;
            r.unknown_field = "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {}";
        })
        .generation()
        .default(|slice| {
            let devices = slice.spec.devices.iter_mut().flatten();
            for taint in devices.flat_map(|d| d.taints.iter_mut().flatten()) {
                if taint.time_added.is_none() {
                    let now = base::time::now();
                    taint.time_added = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
                }
            }
        })
        .validate(|slice, errors| validate(&slice.spec, errors))
        .changes_first()
        .validate_update(|new, old, errors| {
            let (new, old) = (&new.spec, &old.spec);
            errors.immutable("spec.driver", &new.driver, &old.driver);
            errors.immutable("spec.pool.name", &new.pool.name, &old.pool.name);
            errors.immutable("spec.nodeName", &new.node_name, &old.node_name);
        })
        .row(row)
        .fields(&["spec.nodeName", "spec.driver"], |s| {
            vec![
                ("spec.nodeName", s.spec.node_name.clone().unwrap_or_default()),
                ("spec.driver", s.spec.driver.clone()),
            ]
        })
        .done()
}

fn validate(spec: &ResourceSliceSpec, errors: &mut Errors) {
    check_driver("spec.driver", &spec.driver, errors);
    check_pool("spec.pool.name", &spec.pool.name, errors);
    let count = spec.pool.resource_slice_count;
    if count <= 0 {
        errors.push(FieldError::invalid("spec.pool.resourceSliceCount", count, "must be greater than zero"));
    }
    if spec.pool.generation < 0 {
        let detail = "must be greater than or equal to zero";
        errors.push(FieldError::invalid("spec.pool.generation", spec.pool.generation, detail));
    }
    if let Some(name) = spec.node_name.as_deref()
        && let Some(fault) = names::fault(Rule::Subdomain, name)
    {
        errors.push(FieldError::invalid("spec.nodeName", name, fault));
    }
    if let Some(selector) = &spec.node_selector {
        const FIELD: &str = "spec.nodeSelector";
        check_node_selector(FIELD, selector, errors);
        if selector.node_selector_terms.len() != 1 {
            let shown = json(&selector.node_selector_terms);
            let detail = "must have exactly one node selector term";
            errors.push(FieldError::invalid(format!("{FIELD}.nodeSelectorTerms"), shown, detail));
        }
    }
    let places = [
        spec.node_name.is_some(),
        spec.node_selector.is_some(),
        spec.all_nodes == Some(true),
        spec.per_device_node_selection == Some(true),
    ];
    const PLACES: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match places.iter().filter(|p| **p).count() {
        0 => errors.push(FieldError::required("spec", PLACES)),
        1 => {}
        _ => {
            let names = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
            let set = names.iter().zip(places).filter(|(_, set)| *set).map(|(name, _)| format!("`{name}`"));
            let shown = format!("{{{}}}", set.collect::<Vec<_>>().join(", "));
            errors.push(FieldError::invalid("spec", shown, format!("{PLACES}, but multiple fields are set")));
        }
    }
    let devices = spec.devices.as_deref().unwrap_or_default();
    if devices.len() > DEVICES {
        let problem = Problem::TooMany(devices.len(), DEVICES);
        errors.push(FieldError { field: "spec.devices".into(), problem });
    }
    let mut seen = HashSet::new();
    for (i, device) in devices.iter().enumerate() {
        let field = format!("spec.devices[{i}]");
        check_name(&format!("{field}.name"), &device.name, errors);
        if !seen.insert(device.name.as_str()) {
            errors.push(FieldError::duplicate(field.as_str(), device.name.as_str()));
        }
        let placed =
            device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some();
        if placed && spec.per_device_node_selection != Some(true) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in \
                          the ResourceSlice spec";
            errors.push(FieldError::invalid(field.as_str(), Value::Null, detail));
        }
        check_device(&field, device, errors);
    }
    let shared = spec.shared_counters.as_ref().is_some_and(|counters| !counters.is_empty());
    if shared && !devices.is_empty() {
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid("spec", "", detail));
    }
}

/// What a device is and how much it has, by names; and why it is not for everybody.
fn check_device(field: &str, device: &Device, errors: &mut Errors) {
    let name = |at: &str, name: &str, errors: &mut Errors| {
        let (domain, id) = name.split_once('/').map_or((None, name), |(domain, id)| (Some(domain), id));
        check_qualified_name(at, domain, id, errors);
    };
    let at = format!("{field}.attributes");
    for (key, value) in device.attributes.iter().flatten() {
        name(&at, key, errors);
        let at = format!("{at}[{key}]");
        let given =
            [value.bool.is_some(), value.int.is_some(), value.string.is_some(), value.version.is_some()];
        match given.iter().filter(|given| **given).count() {
            1 => {}
            0 => errors.push(FieldError::invalid(at.as_str(), "", "exactly one value must be specified")),
            _ => errors.push(FieldError::invalid(
                at.as_str(),
                json(value),
                "exactly one value must be specified",
            )),
        }
        if let Some(version) = value.version.as_deref().filter(|version| !is_version(version)) {
            let detail = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(FieldError::invalid(format!("{at}.version"), version, detail));
        }
    }
    for key in device.capacity.iter().flatten().map(|(key, _)| key) {
        name(&format!("{field}.capacity"), key, errors);
    }
    for (i, taint) in device.taints.iter().flatten().enumerate() {
        let at = format!("{field}.taints[{i}]");
        qualified(format!("{at}.key"), &taint.key, errors);
        match taint.effect.as_str() {
            "" => errors.required(format!("{at}.effect"), true),
            effect => errors.one_of(format!("{at}.effect"), Some(effect), EFFECTS),
        }
    }
}

/// Three numbers, what comes before them and what they were built of.
fn is_version(text: &str) -> bool {
    let (text, built) = text.split_once('+').map_or((text, None), |(text, built)| (text, Some(built)));
    let (numbers, before) = text.split_once('-').map_or((text, None), |(text, before)| (text, Some(before)));
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let are_words = |text: Option<&str>| text.is_none_or(|text| text.split('.').all(is_word));
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && are_words(before)
        && are_words(built)
}

fn row(slice: &ResourceSlice) -> Vec<Value> {
    let spec = &slice.spec;
    vec![
        name_cell(&slice.metadata),
        spec.node_name.clone().unwrap_or_else(|| "<none>".into()).into(),
        spec.driver.clone().into(),
        spec.pool.name.clone().into(),
        age_cell(&slice.metadata),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_three_numbers() {
        for good in ["1.2.3", "0.0.0", "1.2.3-rc.1", "1.2.3+build", "1.2.3-a+b.c"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "1", "1.2", "01.2.3", "1.2.3-", "1.2.x", "v1.2.3"] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
