//! What is wrong with an expression's text, printed as `cel-go` prints it: place, words, the line, a caret.

use std::fmt;

/// More than these are counted but not kept.
const MAX_ISSUES: usize = 100;
/// A longer line is not shown again.
const MAX_SNIPPET: usize = 16_384;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// In code points from the start; `None` is about the whole.
    pub at: Option<usize>,
    pub message: String,
}

/// All that was found, in the order of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issues {
    source: String,
    found: Vec<Issue>,
    count: usize,
}

impl std::error::Error for Issues {}

impl Issues {
    pub(crate) fn new(source: &str) -> Self {
        Self { source: source.to_owned(), ..Self::default() }
    }

    pub(crate) fn push(&mut self, at: usize, message: String) {
        self.add(Some(at), message);
    }

    pub(crate) fn add(&mut self, at: Option<usize>, message: String) {
        self.count += 1;
        if self.count <= MAX_ISSUES {
            self.found.push(Issue { at, message });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = &Issue> {
        self.found.iter()
    }

    /// Line from 1, column from 0.
    fn place(&self, at: Option<usize>) -> (i64, i64) {
        let Some(at) = at else { return (-1, -1) };
        let (mut line, mut column) = (1, 0);
        for c in self.source.chars().take(at) {
            (line, column) = if c == '\n' { (line + 1, 0) } else { (line, column + 1) };
        }
        (line, column)
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut found: Vec<(i64, i64, &str)> = self
            .found
            .iter()
            .map(|issue| {
                let (line, column) = self.place(issue.at);
                (line, column, issue.message.as_str())
            })
            .collect();
        found.sort_by_key(|(line, column, _)| (*line, *column));
        for (index, (line, column, message)) in found.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "ERROR: <input>:{line}:{}: {message}", column + 1)?;
            let Some(text) = usize::try_from(line - 1).ok().and_then(|n| self.source.split('\n').nth(n))
            else {
                continue;
            };
            if text.len() <= MAX_SNIPPET {
                let text = text.replace('\t', " ");
                write!(f, "\n | {text}\n | ")?;
                let mut chars = text.chars();
                for c in chars.by_ref().take(usize::try_from(*column).unwrap_or(0)) {
                    f.write_str(if c.len_utf8() > 1 { "\u{ff0e}" } else { "." })?;
                }
                f.write_str(if chars.next().is_some_and(|c| c.len_utf8() > 1) { "\u{ff3e}" } else { "^" })?;
            }
        }
        if self.count > MAX_ISSUES {
            write!(f, "\n{} more errors were truncated", self.count - MAX_ISSUES)?;
        }
        Ok(())
    }
}
