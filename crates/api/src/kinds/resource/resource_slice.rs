//! `ResourceSlice`: devices that a driver offers.

use std::collections::HashSet;

use k8s_openapi::api::resource::v1::{ResourceSlice, ResourceSliceSpec};
use serde_json::Value;

use super::claims::check_driver;
use crate::columns::{age_cell, name_cell};
use crate::kinds::names::Rule;
use crate::kinds::validate::named;
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
    errors.required("spec.pool.name", spec.pool.name.is_empty());
    let count = spec.pool.resource_slice_count;
    if count <= 0 {
        errors.push(FieldError::invalid("spec.pool.resourceSliceCount", count, "must be greater than zero"));
    }
    errors.not_negative("spec.pool.generation", Some(spec.pool.generation));
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
        named(format!("{field}.name"), &device.name, Rule::Label, errors);
        if !seen.insert(device.name.as_str()) {
            errors.push(FieldError::duplicate(field, device.name.as_str()));
        }
    }
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
