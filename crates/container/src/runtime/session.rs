//! Live stdio of a process in a container: what `exec` and `attach` give their caller.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Reply, Result};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    /// Ignored with a tty, which has one stream.
    pub stderr: bool,
    /// The terminal's first size.
    pub size: Option<TerminalSize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecResult {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// The streams of a running process. A stream that was not asked for, or that the container has not, is `None`.
pub struct ExecSession {
    /// Dropping (or shutting down) it closes the process's stdin.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Ends when the process and all that hold its stdout are gone. With a tty it carries stderr too.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub resize: ResizeHandle,
    /// The exit code of the process. Dropping the session does not kill it.
    pub exit: BoxFuture<'static, Result<i32>>,
}

/// Tells the terminal its size; does nothing where there is no terminal.
#[derive(Clone)]
pub struct ResizeHandle(Arc<dyn Fn(TerminalSize) -> Reply<'static, ()> + Send + Sync>);

impl ResizeHandle {
    pub fn new(resize: impl Fn(TerminalSize) -> Reply<'static, ()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(resize))
    }

    pub async fn resize(&self, size: TerminalSize) -> Result<()> {
        (self.0)(size).await
    }
}
