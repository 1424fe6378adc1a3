//! `ServiceAccount`: who a pod is. Tokens are asked for through its `token` subresource.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::{Build, CREATE_ONLY, Kind};

pub fn kind() -> Kind {
    Build::<ServiceAccount>::new("serviceaccounts", true)
        .metadata_on_update(&[Change, Whole])
        .rules(|r| r.answers_deleted = true)
        .short(&["sa"])
        .subresource("token", ("authentication.k8s.io", "v1", "TokenRequest"), CREATE_ONLY)
        .row(|s| vec![name_cell(&s.metadata), age_cell(&s.metadata)])
        .done()
}
