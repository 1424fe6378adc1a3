//! Why an operation on a sandbox or container failed, in the terms the node acts upon.

use serde::{Deserialize, Serialize};

/// Serialisable because it also crosses the socket between the runtime and its shims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RuntimeError {
    #[error("{object} {id:?} not found")]
    NotFound { object: String, id: String },
    #[error("{object} {id:?} already exists")]
    AlreadyExists { object: String, id: String },
    /// The configuration can never work: `CreateContainerConfigError`.
    #[error("invalid configuration of {id:?}: {message}")]
    InvalidConfig { id: String, message: String },
    /// Making the container failed: `CreateContainerError`.
    #[error("failed to create container {id:?}: {message}")]
    Create { id: String, message: String },
    /// Its first process could not be executed: `RunContainerError`. 127 means not found, 126 not executable.
    #[error("failed to start container {id:?}: {message}")]
    Start { id: String, message: String, exit_code: i32 },
    #[error("container {id:?} is {state}, not running")]
    NotRunning { id: String, state: String },
    /// A command could not be executed in a running container. 127 means not found, 126 not executable.
    #[error("failed to exec in container {id:?}: {message}")]
    Exec { id: String, message: String, exit_code: i32 },
    #[error("{operation} of {id:?} timed out after {timeout_ms} ms")]
    Timeout { operation: String, id: String, timeout_ms: u64 },
    #[error("cannot run sandbox {id:?}: {message}")]
    Sandbox { id: String, message: String },
    /// The process that holds the sandbox is gone or does not answer.
    #[error("the shim of sandbox {sandbox_id:?} is not reachable: {message}")]
    Unreachable { sandbox_id: String, message: String },
    #[error("{operation} of {id:?}: {message}")]
    Io { operation: String, id: String, message: String },
}

impl RuntimeError {
    pub fn container_not_found(id: &str) -> Self {
        Self::NotFound { object: "container".into(), id: id.into() }
    }

    pub fn sandbox_not_found(id: &str) -> Self {
        Self::NotFound { object: "sandbox".into(), id: id.into() }
    }

    pub fn io(operation: &str, id: &str, error: impl std::fmt::Display) -> Self {
        Self::Io { operation: operation.into(), id: id.into(), message: error.to_string() }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
