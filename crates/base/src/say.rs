//! Words for whoever watches. They are written where that can be done: a log on a disk without room, or a pipe that nobody reads
//! any more, is no reason to stop what is being done, and `eprintln!` would break the program off.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Tells a line on standard error; where that cannot be, nobody is told.
#[macro_export]
macro_rules! tell {
    ($($words:tt)*) => { $crate::say::told(&mut ::std::io::stderr().lock(), ::std::format_args!($($words)*)) };
}

/// What [`tell!`] does.
pub fn told(to: &mut dyn Write, words: Arguments<'_>) {
    // One write, so that lines of several processes do not mix.
    drop(to.write_all(format!("{words}\n").as_bytes()).and_then(|()| to.flush()));
}

/// Why what a command answers did not get to whoever asked.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// They have seen enough.
    #[error("nobody reads standard output")]
    Unread,
    /// Not as a source: it says nothing of what the command was about.
    #[error("cannot write to standard output: {0}")]
    Unwritten(String),
}

/// Writes a line of what a command answers to standard output.
pub fn answer(words: Arguments<'_>) -> Result<(), AnswerError> {
    answered(&mut io::stdout().lock(), words)
}

fn answered(to: &mut dyn Write, words: Arguments<'_>) -> Result<(), AnswerError> {
    let written = to.write_all(format!("{words}\n").as_bytes()).and_then(|()| to.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => AnswerError::Unread,
        _ => AnswerError::Unwritten(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place that takes nothing, for this reason.
    struct Full(io::ErrorKind);

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn what_cannot_be_written_breaks_nothing_off() {
        let mut written = Vec::new();
        told(&mut written, format_args!("{} {}", "a", 1));
        assert_eq!(written, b"a 1\n");
        told(&mut Full(io::ErrorKind::StorageFull), format_args!("a"));
        crate::tell!("{} as {}", "on standard error", "any line");
        let why = |kind| answered(&mut Full(kind), format_args!("a"));
        assert!(matches!(why(io::ErrorKind::BrokenPipe), Err(AnswerError::Unread)));
        let full = why(io::ErrorKind::StorageFull).expect_err("it is full");
        assert_eq!(full.to_string(), "cannot write to standard output: no storage space");
        assert!(!crate::disk::is_full(&full), "another disk than the command is about");
    }
}
