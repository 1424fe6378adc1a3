//! Container logs: the CRI line format, reading with the options of `kubectl logs`, last words, rotation.

pub mod read;
pub mod rotate;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;

/// What a status shows of a container's last words.
const MESSAGE_BYTES_MAX: u64 = 4096;
const MESSAGE_FROM_LOG_BYTES: u64 = 2048;
const MESSAGE_FROM_LOG_LINES: usize = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// One line of a log file: `2026-01-02T03:04:05.678901234Z stdout F text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// As written.
    pub time: &'a str,
    pub stream: Stream,
    /// A long line comes in parts; the last part ends it.
    pub partial: bool,
    pub text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Parses a line without its newline. `None`: not of this format.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let partial = parts.next()?.split(|byte| *byte == b':').next()? == b"P";
        Some(Self { time, stream, partial, text: parts.next().unwrap_or_default() })
    }

    pub fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// A container's termination message: its file, or the end of its log if it left none and may be quoted.
pub fn last_words(file: Option<&Path>, log: Option<&Path>) -> String {
    let said = file.and_then(|path| tail_bytes(path, MESSAGE_BYTES_MAX)).unwrap_or_default();
    if !said.is_empty() {
        return String::from_utf8_lossy(&said).into_owned();
    }
    let Some(bytes) = log.and_then(|path| tail_bytes(path, MESSAGE_FROM_LOG_BYTES * 2)) else {
        return String::new();
    };
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let start = lines.len().saturating_sub(MESSAGE_FROM_LOG_LINES);
    let mut text = Vec::new();
    for line in lines[start..].iter().filter_map(|line| Line::parse(line)) {
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let from = text.len().saturating_sub(usize::try_from(MESSAGE_FROM_LOG_BYTES).unwrap_or(usize::MAX));
    String::from_utf8_lossy(&text[from..]).into_owned()
}

/// The last bytes of a file; `None` if it cannot be read.
fn tail_bytes(path: &Path, max: u64) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(max))).ok()?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_parse() {
        let line = Line::parse(b"2026-01-02T03:04:05.678901234Z stderr P a b  c").expect("a line");
        assert_eq!((line.stream, line.partial, line.text), (Stream::Stderr, true, &b"a b  c"[..]));
        assert_eq!(line.timestamp().map(|t| t.subsec_nanosecond()), Some(678_901_234));
        assert_eq!(Line::parse(b"2026-01-02T03:04:05Z stdout F ").map(|l| l.text), Some(&b""[..]));
        assert_eq!(Line::parse(b"2026-01-02T03:04:05Z stdout F").map(|l| l.text), Some(&b""[..]));
        assert_eq!(Line::parse(b"garbage"), None);
    }

    #[test]
    fn last_words_come_from_the_file_or_the_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, log) = (directory.path().join("m"), directory.path().join("l"));
        std::fs::write(&file, "").expect("writes");
        std::fs::write(&log, "2026-01-02T03:04:05Z stdout P he\n2026-01-02T03:04:05Z stdout F llo\n")
            .expect("writes");
        assert_eq!(last_words(Some(&file), None), "");
        assert_eq!(last_words(Some(&file), Some(&log)), "hello\n");
        std::fs::write(&file, "done").expect("writes");
        assert_eq!(last_words(Some(&file), Some(&log)), "done");
    }
}
