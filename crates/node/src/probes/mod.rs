//! Probes: thresholds as a pure state machine, the four ways to ask, and the task that keeps asking.

mod ask;
mod grpc;
mod http;
mod state;
mod task;

pub use ask::port_of;
pub use http::{HookError, http_hook};
pub use state::{ProbeKind, Verdict};
pub use task::{ProbeNews, ProbeReport, ProbeTarget, spawn};
