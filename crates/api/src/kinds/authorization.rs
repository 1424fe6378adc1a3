//! `authorization.k8s.io/v1`: questions about what somebody may do.

use super::Kind;
use super::typed::review;

pub const GROUP: &str = "authorization.k8s.io";

pub fn kinds() -> Vec<Kind> {
    vec![
        review(GROUP, "LocalSubjectAccessReview", "localsubjectaccessreviews", true),
        review(GROUP, "SelfSubjectAccessReview", "selfsubjectaccessreviews", false),
        review(GROUP, "SelfSubjectRulesReview", "selfsubjectrulesreviews", false),
        review(GROUP, "SubjectAccessReview", "subjectaccessreviews", false),
    ]
}
