//! The log of a container, in the form CRI prescribes: `<RFC 3339 with nanoseconds> <stream> <tag> <text>`, where the
//! tag is `P` when the line goes on in the next entry and `F` when it ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Longer lines are written in parts.
pub const LINE_MAX_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts what a stream delivers into lines. Pure.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Appends finished entries to `out`, keeping an unfinished line for later.
    fn feed(&mut self, stream: Stream, bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        for chunk in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match chunk.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (chunk, false),
            };
            let mut text = text;
            while self.rest.len() + text.len() > LINE_MAX_BYTES {
                let (head, tail) = text.split_at(LINE_MAX_BYTES - self.rest.len());
                self.rest.extend_from_slice(head);
                self.entry(stream, b'P', now, out);
                text = tail;
            }
            self.rest.extend_from_slice(text);
            if ended {
                self.entry(stream, b'F', now, out);
            }
        }
    }

    /// The stream has ended: what is left is a line.
    fn finish(&mut self, stream: Stream, now: Timestamp, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            self.entry(stream, b'F', now, out);
        }
    }

    fn entry(&mut self, stream: Stream, tag: u8, now: Timestamp, out: &mut Vec<u8>) {
        out.extend_from_slice(base::time::rfc3339_nanos(now).as_bytes());
        out.push(b' ');
        out.extend_from_slice(stream.name().as_bytes());
        out.extend_from_slice(&[b' ', tag, b' ']);
        out.append(&mut self.rest);
        out.push(b'\n');
    }
}

/// Both streams of one container into one file.
pub struct ContainerLog {
    path: PathBuf,
    file: File,
    stdout: Lines,
    stderr: Lines,
    buffer: Vec<u8>,
}

impl ContainerLog {
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let file = open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            stdout: Lines::default(),
            stderr: Lines::default(),
            buffer: Vec::new(),
        })
    }

    /// After the file was moved away.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let (lines, out) = self.parts(stream);
        lines.feed(stream, bytes, base::time::now(), out);
        self.flush()
    }

    pub fn finish(&mut self, stream: Stream) -> io::Result<()> {
        let (lines, out) = self.parts(stream);
        lines.finish(stream, base::time::now(), out);
        self.flush()
    }

    fn parts(&mut self, stream: Stream) -> (&mut Lines, &mut Vec<u8>) {
        match stream {
            Stream::Stdout => (&mut self.stdout, &mut self.buffer),
            Stream::Stderr => (&mut self.stderr, &mut self.buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // What cannot be written (a full disk) is dropped rather than kept: memory must stay bounded.
        let result = self.file.write_all(&self.buffer);
        self.buffer.clear();
        result
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        let now = Timestamp::UNIX_EPOCH;
        chunks.iter().for_each(|chunk| lines.feed(Stream::Stdout, chunk, now, &mut out));
        lines.finish(Stream::Stdout, now, &mut out);
        let text = String::from_utf8(out).expect("text");
        text.lines()
            .map(|line| line.strip_prefix("1970-01-01T00:00:00.000000000Z stdout ").unwrap().into())
            .collect()
    }

    #[test]
    fn lines_are_whole_whatever_the_reads_were() {
        assert_eq!(entries(&[b"one\ntw", b"o\n", b"\nlast"]), ["F one", "F two", "F ", "F last"]);
        assert_eq!(entries(&[]), [""; 0]);
    }

    #[test]
    fn long_lines_come_in_parts() {
        let long = [b'x'; LINE_MAX_BYTES + 10];
        let got = entries(&[&long[..100], &long[100..], b"\n"]);
        assert_eq!(got.len(), 2);
        assert!(got[0].starts_with("P x") && got[0].len() == LINE_MAX_BYTES + 2);
        assert_eq!(got[1], "F xxxxxxxxxx");
        let exact = [b'y'; LINE_MAX_BYTES];
        assert!(entries(&[&exact, b"\n"])[0].starts_with("F y"), "a line of exactly the maximum is whole");
    }
}
