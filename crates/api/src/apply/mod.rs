//! Field ownership and server-side apply, after "Server-Side Apply" of the Kubernetes documentation: who set which
//! field is kept in `metadata.managedFields`; applying a configuration sets its fields, removes those its manager
//! no longer lists and nobody else owns, and refuses to change what others own unless forced.

mod compare;
#[cfg(test)]
mod corner_tests;
mod element;
mod fieldset;
mod last_applied;
pub mod managed;
mod merge;
mod prune;
pub mod scale;
#[cfg(test)]
mod tests;
mod versions;

pub use compare::{Comparison, compare};
pub use fieldset::{FieldSet, FieldSetError, PathElement};
pub use merge::{atomics, field_set_of, merged};
pub use versions::Versions;

use std::fmt;

use crate::schema::Schema;

/// Who writes, and how. The same identity is used for every write of one request.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// `fieldManager`, or what [`managed::default_manager`] makes of the user agent.
    pub manager: &'a str,
    /// The version the request is made in, such as `apps/v1`.
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339, whole seconds; empty where none is kept.
    pub time: &'a str,
    /// Without one, objects merge and lists are atomic.
    pub schema: Option<&'a Schema>,
    /// Fields this endpoint resets, such as `status` of the object itself: they are never owned through it.
    pub reset: Option<&'a FieldSet>,
    /// What the fields of managers that wrote in another version are called in this one. Without it there is one version.
    pub versions: Option<&'a dyn Versions>,
}

/// One field another manager owns, and that the configuration wants to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// `"kubectl-client-side-apply" using apps/v1`
    pub manager: String,
    /// `.spec.replicas`
    pub field: String,
}

/// Answered with 409; each conflict is a `StatusCause` of reason `FieldManagerConflict`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflict {
    /// The message of the `StatusCause`.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "Apply failed with {count} conflict{}: ", if count == 1 { "" } else { "s" })?;
        if let [only] = self.0.as_slice() {
            return write!(f, "conflict with {}: {}", only.manager, only.field);
        }
        let mut last = None;
        for conflict in &self.0 {
            if last != Some(&conflict.manager) {
                let line_break = if last.is_some() { "\n" } else { "" };
                write!(f, "{line_break}conflicts with {}:", conflict.manager)?;
                last = Some(&conflict.manager);
            }
            write!(f, "\n- {}", conflict.field)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{0}")]
    Conflicts(Conflicts),
    /// The configuration is not valid: 400.
    #[error("{0}")]
    Invalid(String),
    /// The configuration carries ownership itself: 400.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
}
