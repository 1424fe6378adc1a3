//! `authentication.k8s.io/v1`: questions about who somebody is.

use super::Kind;
use super::typed::review;

pub const GROUP: &str = "authentication.k8s.io";

pub fn kinds() -> Vec<Kind> {
    vec![
        review(GROUP, "SelfSubjectReview", "selfsubjectreviews", false),
        review(GROUP, "TokenReview", "tokenreviews", false),
    ]
}
