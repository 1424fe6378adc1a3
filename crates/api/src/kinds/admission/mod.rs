//! `admissionregistration.k8s.io/v1`: who else is asked before an object is stored.

mod policies;

use super::Kind;

pub fn kinds() -> Vec<Kind> {
    policies::kinds()
}
