//! Reading a log as `kubectl logs` asks for it, and following it as it grows.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::{Line, Stream};

const CHUNK_BYTES: usize = 64 * 1024;
/// A line longer than this is handed out in pieces.
const LINE_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    /// `None`: both.
    pub stream: Option<Stream>,
}

/// Turns lines of the file into bytes for the reader.
struct Filter {
    options: LogOptions,
    left: Option<u64>,
    /// Whether what came last left a line open, so that no second timestamp is put into it.
    open: bool,
}

impl Filter {
    fn new(options: LogOptions) -> Self {
        Self { left: options.limit_bytes, options, open: false }
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    fn push(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = Line::parse(line) else { return };
        let wanted = self.options.stream.is_none_or(|stream| stream == line.stream)
            && self.options.since.is_none_or(|since| line.timestamp().is_none_or(|time| time >= since));
        if !wanted || self.is_full() {
            return;
        }
        let start = out.len();
        if self.options.timestamps && !self.open {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.open = line.partial;
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX);
            out.truncate(out.len().min(start.saturating_add(allowed)));
            *left -= u64::try_from(out.len() - start).unwrap_or(0);
        }
    }
}

/// Where reading begins so that `lines` lines follow.
fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    let (mut at, mut found) = (length, 0);
    let mut buffer = vec![0; CHUNK_BYTES];
    while at > 0 {
        let size = at.min(CHUNK_BYTES as u64);
        at -= size;
        let chunk = &mut buffer[..usize::try_from(size).unwrap_or(0)];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(chunk)?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            let here = at + index as u64;
            // The newline at the very end closes the last line, it does not begin another.
            if *byte == b'\n' && here + 1 != length {
                found += 1;
                if found == lines {
                    return Ok(here + 1);
                }
            }
        }
    }
    Ok(0)
}

/// A log being read: knows how far it has come in which file.
struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    inode: u64,
    /// Another has taken its place: nothing is written into it any more.
    is_rotated: bool,
    /// A line whose end has not been written yet.
    rest: Vec<u8>,
}

impl Reader {
    fn open(path: &Path, tail_lines: Option<u64>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let offset = tail_lines.map_or(Ok(0), |lines| tail_offset(&mut file, lines))?;
        file.seek(SeekFrom::Start(offset))?;
        let inode = file.metadata()?.ino();
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            inode,
            is_rotated: false,
            rest: Vec::new(),
        })
    }

    /// Reads up to a chunk of what is there; empty when nothing is.
    fn read(&mut self, filter: &mut Filter) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < CHUNK_BYTES && !filter.is_full() {
            let read = (&mut self.file).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut self.rest)?;
            if read == 0 {
                break;
            }
            if self.rest.last() == Some(&b'\n') {
                self.rest.pop();
                filter.push(&self.rest, &mut out);
                self.rest.clear();
            } else if self.rest.len() > LINE_BYTES_MAX {
                self.rest.clear();
            }
        }
        Ok(out)
    }

    /// Whether there may be more, now that the end was reached. When the log was rotated, what was written into the old file
    /// meanwhile comes first, and then the new one.
    fn goes_on(&mut self) -> io::Result<bool> {
        if self.is_rotated {
            *self = Self::open(&self.path, None)?;
            return Ok(true);
        }
        match std::fs::metadata(&self.path) {
            Ok(metadata) if metadata.ino() != self.inode => {
                self.is_rotated = true;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Tells when something in the log's directory is written or moved.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn of(path: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVE;
        inotify::add_watch(&fd, directory, what)?;
        // SAFETY: the descriptor is owned by what is registered and is neither replaced nor closed before it.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    async fn next(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [0u8; 4096];
        loop {
            match rustix::io::read(self.0.get_ref(), &mut buffer) {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

/// Sends the log to `out` until its end; when following, until `ended` resolves and all is read.
pub async fn stream_log(
    path: PathBuf,
    options: LogOptions,
    ended: impl Future<Output = ()> + Send,
    out: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let follow = options.follow;
    // Watched before the first read, so that nothing falls between.
    let changes = if follow { Some(Changes::of(&path)?) } else { None };
    let mut reader = Reader::open(&path, options.tail_lines)?;
    let mut filter = Filter::new(options);
    let mut ended = std::pin::pin!(ended);
    let mut over = false;
    loop {
        loop {
            let bytes = reader.read(&mut filter)?;
            if bytes.is_empty() && !reader.goes_on()? {
                break;
            }
            if !bytes.is_empty() && out.send(bytes.into()).await.is_err() {
                return Ok(());
            }
        }
        let Some(changes) = changes.as_ref().filter(|_| !over && !filter.is_full()) else { return Ok(()) };
        tokio::select! {
            changed = changes.next() => changed?,
            () = &mut ended => over = true,
            () = out.closed() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LOG: &str = "2026-01-02T03:04:01Z stdout F one\n2026-01-02T03:04:02Z stderr P tw\n\
                       2026-01-02T03:04:02Z stderr F o\n2026-01-02T03:04:03Z stdout F three\n";

    async fn read(options: LogOptions) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        std::fs::write(&path, LOG).expect("writes");
        let (sender, mut receiver) = mpsc::channel(8);
        stream_log(path, options, std::future::pending(), sender).await.expect("reads");
        let mut all = Vec::new();
        while let Some(bytes) = receiver.recv().await {
            all.extend(bytes);
        }
        String::from_utf8(all).expect("text")
    }

    #[tokio::test]
    async fn options_select_what_is_read() {
        let all = LogOptions::default;
        let cases = [
            (all(), "one\ntwo\nthree\n"),
            (LogOptions { tail_lines: Some(1), ..all() }, "three\n"),
            (LogOptions { tail_lines: Some(0), ..all() }, ""),
            (LogOptions { tail_lines: Some(99), ..all() }, "one\ntwo\nthree\n"),
            (LogOptions { since: "2026-01-02T03:04:03Z".parse().ok(), ..all() }, "three\n"),
            (LogOptions { limit_bytes: Some(6), ..all() }, "one\ntw"),
            (LogOptions { stream: Some(Stream::Stderr), ..all() }, "two\n"),
            (
                LogOptions { timestamps: true, tail_lines: Some(3), ..all() },
                "2026-01-02T03:04:02Z two\n2026-01-02T03:04:03Z three\n",
            ),
        ];
        for (options, expected) in cases {
            assert_eq!(read(options.clone()).await, expected, "{options:?}");
        }
    }

    #[test]
    fn what_is_written_before_a_log_is_rotated_is_read_after_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        std::fs::write(&path, LOG).expect("writes");
        let (mut reader, mut filter) =
            (Reader::open(&path, None).expect("opens"), Filter::new(LogOptions::default()));
        let mut next =
            |reader: &mut Reader| String::from_utf8(reader.read(&mut filter).expect("reads")).expect("text");
        assert_eq!(next(&mut reader), "one\ntwo\nthree\n");
        assert_eq!(next(&mut reader), "", "its end");
        let mut file = File::options().append(true).open(&path).expect("opens");
        file.write_all(b"2026-01-02T03:04:04Z stdout F four\n").expect("writes");
        std::fs::rename(&path, directory.path().join("0.log.1")).expect("moves");
        std::fs::write(&path, "2026-01-02T03:04:05Z stdout F five\n").expect("writes");
        assert!(reader.goes_on().expect("looks"));
        assert_eq!(next(&mut reader), "four\n");
        assert_eq!(next(&mut reader), "");
        assert!(reader.goes_on().expect("looks"));
        assert_eq!(next(&mut reader), "five\n");
        assert!(!reader.goes_on().expect("looks"));
    }

    #[tokio::test]
    async fn following_sees_what_is_written_and_survives_rotation() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        std::fs::write(&path, LOG).expect("writes");
        let (sender, mut receiver) = mpsc::channel(8);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let options = LogOptions { follow: true, tail_lines: Some(1), ..LogOptions::default() };
        let following = tokio::spawn(stream_log(path.clone(), options, async { drop(ended.await) }, sender));
        assert_eq!(receiver.recv().await.as_deref(), Some(&b"three\n"[..]));
        let mut file = File::options().append(true).open(&path).expect("opens");
        file.write_all(b"2026-01-02T03:04:04Z stdout F fo").expect("writes");
        file.write_all(b"ur\n").expect("writes");
        assert_eq!(receiver.recv().await.as_deref(), Some(&b"four\n"[..]));
        std::fs::rename(&path, directory.path().join("0.log.1")).expect("moves");
        std::fs::write(&path, "2026-01-02T03:04:05Z stdout F five\n").expect("writes");
        assert_eq!(receiver.recv().await.as_deref(), Some(&b"five\n"[..]));
        end.send(()).expect("listens");
        following.await.expect("joins").expect("ends");
        assert_eq!(receiver.recv().await, None);
    }
}
