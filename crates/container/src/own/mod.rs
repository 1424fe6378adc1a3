//! Our own runtime: one shim process a sandbox, and this, the agent's side of it. It holds no truth of its own: what it
//! knows it was told by the shims or has read from their files, so that it can be killed and made anew at any time.

mod connection;
mod purge;
mod runtime;
mod sandbox;
mod session;
mod signal;
pub(crate) mod state;
mod streaming;

pub use purge::{PurgeError, purge, record_killed};
pub use runtime::OwnRuntime;
