//! Policies: rules in expressions that refuse or change objects, and the bindings that put them in force.

mod expressions;
mod mutating;
mod mutating_binding;
mod shared;
mod type_checking;
mod validating;
mod validating_binding;

use super::Kind;

pub(super) use shared::check_conditions;

pub fn kinds() -> Vec<Kind> {
    vec![validating::kind(), validating_binding::kind(), mutating::kind(), mutating_binding::kind()]
}
