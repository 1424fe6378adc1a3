//! What `up` shows while it works: a step that turns until it is ticked, each with the time it took. Where nobody
//! looks (a file, a CI log) each step is one plain line when it ends, and what is said in between only when it changes.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::duration;
use crate::output::Paint;

#[derive(Clone, Copy, Debug)]
pub struct Progress {
    terminal: bool,
}

impl Progress {
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }

    pub fn step(self, name: impl Into<String>) -> Step {
        let name = name.into();
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            let style =
                ProgressStyle::with_template("{spinner:.cyan} {prefix}  {elapsed:.dim} {wide_msg:.dim}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Step { name, bar, started: Instant::now(), said: String::new() }
    }
}

/// A step that is neither done nor failed was interrupted, and leaves no line.
pub struct Step {
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
    said: String,
}

impl Step {
    /// What the step is at just now.
    pub fn say(&mut self, message: &str) {
        let message = message.lines().next().unwrap_or_default();
        if message == self.said {
            return;
        }
        self.said = message.to_owned();
        match &self.bar {
            Some(bar) => bar.set_message(self.said.clone()),
            None => eprintln!("  {}: {message}", self.name),
        }
    }

    /// What it was at last.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// The same, where somebody looks; a log of it would be noise.
    pub fn hint(&mut self, message: &str) {
        if self.bar.is_some() {
            self.say(message);
        }
    }

    pub fn done(self, detail: &str) {
        let mark = Paint::stderr().good("✓");
        self.end(&mark, detail);
    }

    pub fn failed(self) {
        let mark = Paint::stderr().bad("✗");
        self.end(&mark, "");
    }

    fn end(self, mark: &str, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let paint = Paint::stderr();
        let detail = if detail.is_empty() { String::new() } else { format!("  {detail}") };
        let time = paint.soft(&duration::show(self.started.elapsed()));
        eprintln!("{mark} {}{detail}  {time}", self.name);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
