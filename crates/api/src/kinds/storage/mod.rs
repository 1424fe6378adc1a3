//! `storage.k8s.io/v1`: how volumes come to be, and what drivers say of themselves.

mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod storage_class;
mod volume_attachment;
mod volume_attributes_class;

use super::{Errors, Kind, names};
use crate::status::{FieldError, Problem};

pub fn kinds() -> Vec<Kind> {
    vec![
        csi_driver::kind(),
        csi_node::kind(),
        csi_storage_capacity::kind(),
        storage_class::kind(),
        volume_attachment::kind(),
        volume_attributes_class::kind(),
    ]
}

/// The name of a driver: a domain name, not too long.
fn check_driver(field: &str, name: &str, errors: &mut Errors) {
    const LIMIT: usize = 63;
    if name.is_empty() {
        return errors.required(field, true);
    }
    if name.len() > LIMIT {
        errors.push(FieldError { field: field.into(), problem: Problem::TooLong(LIMIT) });
    }
    if let Some(fault) = names::fault(names::Rule::Subdomain, &name.to_lowercase()) {
        errors.push(FieldError::invalid(field, name, fault));
    }
}
