//! The contract between the node and whatever runs its containers, modelled on CRI v1's `RuntimeService`.
//!
//! Ids are chosen by the caller, so that a call that was cut short can be repeated. Every call that removes or stops is
//! idempotent: what is not there is already stopped and removed. Calls about one sandbox are carried out in the
//! order they arrive; different sandboxes do not wait for each other.

mod config;
mod error;
mod session;
mod status;

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::broadcast;

pub use config::{
    Capabilities, ContainerConfig, Device, Dns, ImageConfig, ImageRef, Mount, MountKind, Propagation,
    Resources, Rootfs, SandboxConfig, Seccomp, Security, UserSpec,
};
pub use error::RuntimeError;
pub use session::{ExecRequest, ExecResult, ExecSession, ResizeHandle, TerminalSize};
pub use status::{
    ContainerEvent, ContainerEventKind, ContainerState, ContainerStats, ContainerStatus, RuntimeVersion,
    SandboxState, SandboxStatus, reason,
};

pub type Result<T> = std::result::Result<T, RuntimeError>;
/// What every operation returns: boxed, so that the trait can be used as `Arc<dyn Runtime>`.
pub type Reply<'a, T> = BoxFuture<'a, Result<T>>;

/// How many events a slow receiver of [`Runtime::events`] may fall behind before it is told that it lagged.
pub const EVENT_BUFFER: usize = 4096;

/// Runs sandboxes (what the containers of one pod share) and containers within them.
pub trait Runtime: Send + Sync + 'static {
    fn version(&self) -> RuntimeVersion;

    /// Makes the sandbox and returns its id. A live sandbox of the same id is left as it is and returned.
    fn run_pod_sandbox(&self, config: SandboxConfig) -> Reply<'_, String>;
    /// Kills what still runs in it and releases its namespaces; its containers' records stay.
    fn stop_pod_sandbox<'a>(&'a self, sandbox_id: &'a str) -> Reply<'a, ()>;
    /// Stops it and removes it with all its containers.
    fn remove_pod_sandbox<'a>(&'a self, sandbox_id: &'a str) -> Reply<'a, ()>;
    fn pod_sandbox_status<'a>(&'a self, sandbox_id: &'a str) -> Reply<'a, SandboxStatus>;
    fn list_pod_sandboxes(&self) -> Reply<'_, Vec<SandboxStatus>>;

    /// Prepares the container: its root is mounted and its first process waits to be started.
    fn create_container<'a>(&'a self, sandbox_id: &'a str, config: ContainerConfig) -> Reply<'a, String>;
    fn start_container<'a>(&'a self, container_id: &'a str) -> Reply<'a, ()>;
    /// Sends the stop signal and, when `timeout` has passed, SIGKILL; returns when no process is left.
    fn stop_container<'a>(&'a self, container_id: &'a str, timeout: Duration) -> Reply<'a, ()>;
    /// Kills it if it still runs, unmounts its root and forgets it. Its log stays.
    fn remove_container<'a>(&'a self, container_id: &'a str) -> Reply<'a, ()>;
    fn container_status<'a>(&'a self, container_id: &'a str) -> Reply<'a, ContainerStatus>;
    /// The containers of one sandbox, or of all.
    fn list_containers<'a>(&'a self, sandbox_id: Option<&'a str>) -> Reply<'a, Vec<ContainerStatus>>;
    /// Of all containers together; a limit below what one of them has is refused by some kernels.
    fn update_sandbox_resources<'a>(&'a self, sandbox_id: &'a str, resources: Resources) -> Reply<'a, ()>;
    fn update_resources<'a>(&'a self, container_id: &'a str, resources: Resources) -> Reply<'a, ()>;
    fn container_stats<'a>(&'a self, container_id: &'a str) -> Reply<'a, ContainerStats>;
    /// Opens the log file again, after the caller has moved it away.
    fn reopen_log<'a>(&'a self, container_id: &'a str) -> Reply<'a, ()>;

    /// Runs a command to its end and collects its output (at most 16 MiB of each stream). At `timeout` the command is
    /// killed and [`RuntimeError::Timeout`] returned; zero means no timeout.
    fn exec_sync<'a>(
        &'a self,
        container_id: &'a str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Reply<'a, ExecResult>;
    fn exec<'a>(&'a self, container_id: &'a str, request: ExecRequest) -> Reply<'a, ExecSession>;
    /// Joins the stdio of the container's first process. Dropping the session detaches.
    fn attach<'a>(&'a self, container_id: &'a str) -> Reply<'a, ExecSession>;

    /// What happens to containers from now on, so that nobody polls. A receiver that lags lists again.
    fn events(&self) -> broadcast::Receiver<ContainerEvent>;
}
