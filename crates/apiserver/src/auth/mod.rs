//! Who asks, and whether they may.

pub mod authentication;
mod bootstrap_tokens;
pub mod certificates;
mod gate;
mod impersonation;
pub(crate) mod jwk;
pub(crate) mod legacy_tokens;
pub mod node;
mod oidc;
pub mod rbac;
pub mod request_header;
pub mod tokens;
mod webhook;

use std::collections::BTreeMap;

/// What a header says, in any language. Whoever takes a name from one must not go on as if it were not there where this
/// is nothing.
pub(crate) fn said(value: &::http::HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// A user as authentication found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub username: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

pub const MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

impl Identity {
    pub fn new(username: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push(AUTHENTICATED.into());
        Self { username: username.into(), groups, ..Default::default() }
    }

    /// Nobody: allowed what health checks need and nothing else.
    pub fn anonymous() -> Self {
        Self {
            username: "system:anonymous".into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..Default::default()
        }
    }

    /// A component of the control plane: its rights are those of its role, like anybody's.
    pub fn component(name: &str) -> Self {
        Self::new(format!("system:{name}"), &[])
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
