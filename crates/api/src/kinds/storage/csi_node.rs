//! `CSINode`: the drivers that a node has.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::storage::v1::CSINode;

use super::check_driver;
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::validate::json;
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

const NODE_ID_LIMIT: usize = 256;

pub fn kind() -> Kind {
    Build::<CSINode>::new("csinodes", false)
        .metadata_on_update(&[Whole])
        .rules(|r| {
            r.update_needs_version = true;
            r.answers_deleted = true;
        })
        .validate(validate)
        .validate_update(|new, old, errors| {
            // Of several old ones alike the first counts.
            let drivers = old.spec.drivers.iter().rev();
            let drivers: HashMap<&str, _> = drivers.map(|d| (d.name.as_str(), d)).collect();
            for driver in &new.spec.drivers {
                let held = drivers.get(driver.name.as_str());
                if held.is_some_and(|held| {
                    held.node_id != driver.node_id || held.topology_keys != driver.topology_keys
                }) {
                    errors.push(FieldError::invalid("spec.drivers", json(driver), "field is immutable"));
                }
            }
        })
        .row(|n| vec![name_cell(&n.metadata), n.spec.drivers.len().into(), age_cell(&n.metadata)])
        .done()
}

fn validate(node: &CSINode, errors: &mut Errors) {
    let drivers = &node.spec.drivers;
    let mut seen = HashSet::new();
    for (i, driver) in drivers.iter().enumerate() {
        let field = format!("spec.drivers[{i}]");
        check_driver(&format!("{field}.name"), &driver.name, errors);
        if !seen.insert(driver.name.as_str()) {
            errors.push(FieldError::duplicate(format!("{field}.name"), driver.name.as_str()));
        }
        errors.required(format!("{field}.nodeID"), driver.node_id.is_empty());
        if driver.node_id.len() > NODE_ID_LIMIT {
            let detail = format!("must be {NODE_ID_LIMIT} characters or less");
            errors.push(FieldError::invalid(format!("{field}.nodeID"), driver.node_id.as_str(), detail));
        }
        let count = driver.allocatable.as_ref().and_then(|a| a.count);
        errors.not_negative(format!("{field}.allocatable.count"), count.map(i64::from));
        // The original lays the faults of the keys to the driver.
        let mut keys = HashSet::new();
        for key in driver.topology_keys.iter().flatten() {
            if !keys.insert(key.as_str()) {
                errors.push(FieldError::duplicate(field.as_str(), key.as_str()));
            }
            errors.required(field.as_str(), key.is_empty());
            crate::kinds::validate::qualified(field.as_str(), key, errors);
        }
    }
}
