//! `admissionregistration.k8s.io/v1`: who else is asked before an object is stored.

mod policies;
mod webhooks;

use super::Kind;
pub use webhooks::check_place;

pub fn kinds() -> Vec<Kind> {
    let mut kinds = policies::kinds();
    kinds.extend([webhooks::mutating(), webhooks::validating()]);
    kinds
}
