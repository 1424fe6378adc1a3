//! Admission by expressions: match conditions of webhooks, validating and mutating policies. All of it is pure: who
//! calls it has looked up the objects, and does what comes out.

mod composed;
mod conditions;
mod construct;
mod matching;
mod mutating;
mod params;
mod validating;
mod variables;

pub(crate) use composed::{Expression, compile_variables};
pub use conditions::{ConditionFault, MatchConditions};
pub(crate) use construct::TYPES;
pub use matching::{Criteria, GroupVersionResource, Subject, rule_fits};
pub use mutating::MutatingPolicy;
pub use params::{Params, denies_without};
pub use validating::{Denial, ValidatingPolicy, Verdict};
pub use variables::{AdmissionVars, Declared};
