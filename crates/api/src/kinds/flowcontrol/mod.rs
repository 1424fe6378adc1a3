//! `flowcontrol.apiserver.k8s.io/v1`: which requests wait for which others.

mod flow_schema;
mod priority_level_configuration;

use std::collections::HashSet;

use super::{Errors, Kind};
use crate::status::FieldError;

pub fn kinds() -> Vec<Kind> {
    vec![flow_schema::kind(), priority_level_configuration::kind()]
}

/// Each condition has a type of its own.
fn check_conditions<'a>(types: impl Iterator<Item = &'a str>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, condition) in types.enumerate() {
        let field = format!("status.conditions[{i}].type");
        if !seen.insert(condition) {
            errors.push(FieldError::duplicate(&field, condition));
        }
        errors.required(field, condition.is_empty());
    }
}
