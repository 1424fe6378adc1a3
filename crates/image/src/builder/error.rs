//! Why a build failed, and at which line.

use std::io;
use std::path::PathBuf;

use crate::error::ImageError;

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("failed to read {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the Dockerfile has no FROM: no build stage in current context")]
    Empty,
    /// With what may have been meant.
    #[error("target stage {target:?} could not be found{hint}")]
    NoTarget { target: String, hint: String },
    #[error("dockerfile parse error on line {line}: {message}")]
    Parse { line: usize, message: String },
    #[error("dockerfile line {line}: {instruction}")]
    Step { line: usize, instruction: String, source: StepError },
    #[error(transparent)]
    Image(ImageError),
}

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("only ARG may come before the first FROM")]
    BeforeFrom,
    #[error("{0}")]
    Invalid(String),
    #[error("{0:?}: not found in the build context (check .dockerignore)")]
    NoSource(String),
    /// A name that stands for an image, as no stage is called so, though one is called nearly so.
    #[error("no stage is called {name:?}{hint}, and as an image it cannot be had")]
    NoStage { name: String, hint: String, source: Box<StepError> },
    #[error("process {command:?} did not complete successfully: exit code: {exit_code}")]
    Command { command: String, exit_code: i32, output: String },
    #[error("{operation}")]
    Io { operation: String, source: io::Error },
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl StepError {
    pub(super) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Io { operation, source }
    }
}
