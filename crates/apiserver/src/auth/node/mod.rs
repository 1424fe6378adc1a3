//! What a node may do: read what its own pods refer to, and write what is its own. Its rights follow from the pods that
//! are bound to it, not from a role.

mod follow;
mod graph;
pub mod references;
mod rules;

use super::Identity;

pub use follow::Follower;
pub use graph::Graph;
pub use rules::{decide, reason};

const USER_PREFIX: &str = "system:node:";
pub const GROUP: &str = "system:nodes";

/// The node that somebody is: by name and by group, one without the other is nothing.
pub fn name_of(who: &Identity) -> Option<&str> {
    who.username.strip_prefix(USER_PREFIX).filter(|name| !name.is_empty() && who.is_in(GROUP))
}

/// Of the nodes, and none of them.
pub fn is_nameless(who: &Identity) -> bool {
    who.username == USER_PREFIX && who.is_in(GROUP)
}
