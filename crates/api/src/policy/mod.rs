//! Admission by expressions: match conditions of webhooks, validating and mutating policies. All of it is pure: who
//! calls it has looked up the objects, and does what comes out.

mod conditions;
mod variables;

pub use conditions::{ConditionFault, MatchConditions};
pub use variables::{AdmissionVars, Declared};
