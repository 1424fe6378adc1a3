//! The instructions of a Dockerfile, understood but not yet expanded.

use crate::manifest::Healthcheck;

use super::error::{BuildError, StepError};

/// An instruction where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub line: usize,
    /// As it was written, on one line: what the user is shown.
    pub text: String,
    pub instruction: Instruction,
}

impl Step {
    pub fn failed(&self, source: StepError) -> BuildError {
        BuildError::Step { line: self.line, instruction: self.text.clone(), source }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    From { image: String, alias: Option<String> },
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run { command: Command, heredocs: Vec<Heredoc> },
    Copy(Copy),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Entrypoint(Command),
    Cmd(Command),
    Volume(Vec<String>),
    StopSignal(String),
    Shell(Vec<String>),
    Healthcheck(Healthcheck),
}

/// A line for the shell, or the words of a program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Shell(String),
    Exec(Vec<String>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// `ADD`, which unpacks archives.
    pub add: bool,
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub sources: Vec<String>,
    pub destination: String,
    pub heredocs: Vec<Heredoc>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    pub content: String,
    /// The name was not quoted: variables in it are replaced.
    pub expand: bool,
}
