//! `ServiceAccount`: who a pod is. Tokens are asked for through its `token` subresource.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::columns::{age, age_cell, name, name_cell, text};
use crate::kinds::{Build, CREATE_ONLY, Kind};

pub fn kind() -> Kind {
    Build::<ServiceAccount>::new("serviceaccounts", true)
        .short(&["sa"])
        .subresource("token", ("authentication.k8s.io", "v1", "TokenRequest"), CREATE_ONLY)
        .columns(&[name(), text("Secrets"), age()], |s| {
            let secrets = s.secrets.as_ref().map_or(0, Vec::len).to_string();
            vec![name_cell(&s.metadata), secrets.into(), age_cell(&s.metadata)]
        })
        .done()
}
