//! Standard output. A reader that has seen enough (`| head`) ends the command quietly instead of with a panic.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

/// Of a process that died of SIGPIPE, as the shell counts.
const PIPE_CLOSED: i32 = 141;

pub fn bytes(data: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(PIPE_CLOSED),
        Err(error) => Err(anyhow::Error::from(error).context("cannot write to standard output")),
        Ok(()) => Ok(()),
    }
}

pub fn text(text: &str) -> anyhow::Result<()> {
    bytes(text.as_bytes())
}

pub fn line(text: &str) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

pub fn json(value: &Value) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

pub fn yaml(value: &Value) -> anyhow::Result<()> {
    text(&api::yaml::to_string(value))
}

/// What a terminal understands; plain text elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

impl Paint {
    pub fn stdout() -> Self {
        Self(io::stdout().is_terminal())
    }

    pub fn stderr() -> Self {
        Self(io::stderr().is_terminal())
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub fn soft(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }
}
