//! Random patches: an object, and then patches of all four kinds by several managers, with values from small pools so that
//! they meet. A case is made from its seed alone.

mod directives;
mod maker;
mod objects;
mod random;
mod subjects;
mod wider;
mod workloads;

pub use subjects::{DEFINITIONS, definition};
pub use wider::FIRST as FIRST_WIDER;

use super::cases::Case;

/// Patches of a case.
pub const STEPS: usize = 8;
const MANAGERS: &[&str] = &["a", "b", "c", "kubectl"];

/// The case of a seed: those from [`FIRST_WIDER`] on go through more than one face of an object.
pub fn of(seed: u64) -> Case {
    if seed < FIRST_WIDER { maker::of(seed) } else { wider::of(seed) }
}
