//! `CSIStorageCapacity`: how much a driver has left in some part of the cluster.

use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::names::{Rule, fault};
use crate::kinds::validate::{amount, label_selector};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<CSIStorageCapacity>::new("csistoragecapacities", true)
        .metadata_on_update(&[Whole, Change])
        .rules(|r| r.update_needs_version = true)
        .validate(validate)
        .validate_update(|new, old, errors| {
            errors.immutable("nodeTopology", &new.node_topology, &old.node_topology);
            errors.immutable("storageClassName", &new.storage_class_name, &old.storage_class_name);
        })
        .done()
}

fn validate(capacity: &CSIStorageCapacity, errors: &mut Errors) {
    if let Some(topology) = &capacity.node_topology {
        label_selector("nodeTopology", topology, errors);
    }
    if let Some(fault) = fault(Rule::Subdomain, &capacity.storage_class_name) {
        errors.push(FieldError::invalid("storageClassName", capacity.storage_class_name.as_str(), fault));
    }
    if let Some(value) = &capacity.capacity {
        amount("capacity", value, errors);
    }
}
