//! Events in a file, one a line, readable by its owner alone. A file that has grown is set aside under the time at which
//! that was done, and those that were set aside are kept for as long, and as many of them, as is asked for.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use parking_lot::Mutex;

const MEGABYTE: u64 = 1 << 20;
const DEFAULT_MAX_MEGABYTES: u64 = 100;
const DAY_SECONDS: i64 = 24 * 60 * 60;
const COMPRESSED: &str = ".gz";
/// What is still being compressed; left behind where that was stopped, and made anew.
const UNFINISHED: &str = ".part";
const TIME: &str = "%Y-%m-%dT%H-%M-%S.%3f";

/// When a file is set aside and when one that was is deleted. Zero: no bound, for the size the usual one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotation {
    pub max_megabytes: u64,
    pub max_days: u32,
    pub max_backups: u32,
    /// Whether what is set aside is compressed (gzip), beside those who write.
    pub compress: bool,
}

pub enum Output {
    Stdout,
    File(Rotating),
}

pub struct Rotating {
    path: PathBuf,
    file: Option<File>,
    size_bytes: u64,
    limit_bytes: u64,
    /// When it is as large as this, it is set aside.
    due_bytes: u64,
    rotation: Rotation,
    tidying: Arc<Mutex<()>>,
}

impl Output {
    /// `-` is the standard output.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        let megabytes = match rotation.max_megabytes {
            0 => DEFAULT_MAX_MEGABYTES,
            given => given,
        };
        let limit_bytes = megabytes.saturating_mul(MEGABYTE);
        let tidying = Arc::default();
        let mut file = Rotating {
            path: path.to_owned(),
            file: None,
            size_bytes: 0,
            limit_bytes,
            due_bytes: limit_bytes,
            rotation,
            tidying,
        };
        file.reopen()?;
        // What a server that was stopped has left.
        file.tidy(base::time::now())?;
        Ok(Self::File(file))
    }

    pub fn write(&mut self, lines: &[impl AsRef<[u8]>]) -> io::Result<()> {
        for line in lines {
            let mut whole = Vec::with_capacity(line.as_ref().len() + 1);
            whole.extend_from_slice(line.as_ref());
            whole.push(b'\n');
            match self {
                Self::Stdout => io::stdout().lock().write_all(&whole)?,
                Self::File(file) => file.write(&whole)?,
            }
        }
        Ok(())
    }
}

impl Rotating {
    fn reopen(&mut self) -> io::Result<&mut File> {
        if let Some(folder) = self.path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        self.size_bytes = file.metadata()?.len();
        Ok(self.file.insert(file))
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.size_bytes > 0 && self.size_bytes + length > self.due_bytes {
            self.due_bytes = self.limit_bytes;
            if let Err(error) = self.rotate(base::time::now()) {
                // What happened is written nevertheless, where there is room; and it is tried again, but not each time.
                tracing::error!(%error, path = %self.path.display(), "cannot set the audit's file aside");
                self.due_bytes = self.size_bytes.max(self.limit_bytes) + MEGABYTE;
            }
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.reopen()?,
        };
        if let Err(error) = file.write_all(line) {
            // Opened anew for the next one: somebody may have taken the place away.
            self.file = None;
            return Err(error);
        }
        self.size_bytes += length;
        Ok(())
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        self.file = None;
        let mut aside = self.aside(&now.strftime(TIME).to_string());
        for attempt in 1.. {
            // Two within a millisecond must not overwrite each other.
            if !aside.exists() {
                break;
            }
            let later = now.checked_add(jiff::SignedDuration::from_millis(attempt)).unwrap_or(now);
            aside = self.aside(&later.strftime(TIME).to_string());
        }
        std::fs::rename(&self.path, &aside)?;
        self.reopen()?;
        self.tidy(now)
    }

    /// Sees to what was set aside. Compressing takes long, and is nobody's to wait for.
    fn tidy(&self, now: Timestamp) -> io::Result<()> {
        let aside = Aside { path: self.path.clone(), rotation: self.rotation };
        if !self.rotation.compress {
            return aside.clean(now);
        }
        let turn = Arc::clone(&self.tidying);
        let work = move || {
            // One after the other; whoever comes later looks at all that there is.
            let _turn = turn.lock();
            if let Err(error) = aside.clean(now).and_then(|()| aside.compress()) {
                tracing::error!(%error, path = %aside.path.display(), "cannot see to what was set aside of the audit");
            }
        };
        std::thread::Builder::new().name("audit-tidy".into()).spawn(work).map(drop)
    }

    fn aside(&self, time: &str) -> PathBuf {
        let (stem, extension) = parts(&self.path);
        self.path.with_file_name(format!("{stem}-{time}{extension}"))
    }
}

/// Stem and extension of a file's name.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = text(path.extension());
    let extension = if extension.is_empty() { extension } else { format!(".{extension}") };
    (text(path.file_stem()), extension)
}

/// The files that were set aside.
struct Aside {
    path: PathBuf,
    rotation: Rotation,
}

impl Aside {
    /// When each was, the newest first.
    fn files(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let (stem, extension) = parts(&self.path);
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut aside = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let time = name.strip_prefix(&stem).and_then(|n| n.strip_prefix('-'));
            let time = time.map(|n| n.strip_suffix(COMPRESSED).unwrap_or(n));
            let time = time.and_then(|n| n.strip_suffix(&extension));
            let time = time.and_then(|t| jiff::civil::DateTime::strptime("%Y-%m-%dT%H-%M-%S%.f", t).ok());
            let time = time.and_then(|t| t.to_zoned(jiff::tz::TimeZone::UTC).ok());
            if let Some(time) = time {
                aside.push((time.timestamp(), folder.join(name)));
            }
        }
        aside.sort_by(|a, b| b.cmp(a));
        Ok(aside)
    }

    /// Deletes what was set aside too long ago, or is too much.
    fn clean(&self, now: Timestamp) -> io::Result<()> {
        let Rotation { max_days, max_backups, .. } = self.rotation;
        let files = self.files()?;
        // One that is there twice, as where compressing was stopped, is one.
        let times: BTreeSet<Reverse<Timestamp>> = files.iter().map(|(time, _)| Reverse(*time)).collect();
        let oldest = times.iter().nth((max_backups as usize).wrapping_sub(1)).map(|Reverse(time)| *time);
        for (time, path) in &files {
            let many = max_backups > 0 && oldest.is_some_and(|oldest| *time < oldest);
            let age_seconds = now.as_second() - time.as_second();
            let old = max_days > 0 && age_seconds > i64::from(max_days) * DAY_SECONDS;
            if many || old {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Compresses what is not yet. The whole is there before the name is, and the original goes last.
    fn compress(&self) -> io::Result<()> {
        for (_, path) in self.files()? {
            let name = path.as_os_str().to_string_lossy().into_owned();
            if name.ends_with(COMPRESSED) {
                continue;
            }
            let unfinished = PathBuf::from(format!("{name}{COMPRESSED}{UNFINISHED}"));
            match std::fs::remove_file(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            let mut out = GzEncoder::new(io::BufWriter::new(file), Compression::default());
            io::copy(&mut File::open(&path)?, &mut out)?;
            out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(&unfinished, format!("{name}{COMPRESSED}"))?;
            std::fs::remove_file(&path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_has_grown_is_set_aside_and_what_is_too_much_or_too_old_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let old = folder.path().join("audit-2020-01-01T00-00-00.000.log");
        std::fs::write(&old, "old").expect("writes");
        let stranger = folder.path().join("audit-of-taxes.log");
        std::fs::write(&stranger, "mine").expect("writes");
        let rotation = Rotation { max_megabytes: 1, max_days: 30, max_backups: 2, compress: false };
        let mut output = Output::open(&path, rotation).expect("opens");
        let line = "x".repeat(400 << 10);
        for _ in 0..10 {
            output.write(&[&line]).expect("writes");
        }
        assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        let left = names(folder.path());
        assert_eq!(left.len(), 4, "two set aside, the one that is written, and a stranger's: {left:?}");
        assert!(!old.exists() && stranger.exists(), "{left:?}");
        let sizes =
            left.iter().map(|name| std::fs::metadata(folder.path().join(name)).expect("a file").len());
        assert!(sizes.max() <= Some(MEGABYTE), "{left:?}");
    }

    #[test]
    fn what_is_set_aside_is_compressed_if_asked_for() {
        use std::io::Read;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        // What a server that was stopped has left: one not compressed at all, and one not to its end.
        let left = folder.path().join("audit-2026-01-01T00-00-00.000.log");
        std::fs::write(&left, "left").expect("writes");
        std::fs::write(folder.path().join("audit-2026-01-01T00-00-00.000.log.gz.part"), "le")
            .expect("writes");
        let rotation = Rotation { max_megabytes: 1, max_days: 0, max_backups: 3, compress: true };
        let mut output = Output::open(&path, rotation).expect("opens");
        let line = "x".repeat(400 << 10);
        for _ in 0..5 {
            output.write(&[&line]).expect("writes");
        }
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let found = loop {
            let names = names(folder.path());
            if names.iter().filter(|name| name.ends_with(".log.gz")).count() == 3 && names.len() == 4 {
                break names;
            }
            assert!(std::time::Instant::now() < end, "{names:?}");
            std::thread::yield_now();
        };
        let text = |name: &str| {
            let path = folder.path().join(name);
            assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
            let mut text = String::new();
            let file = File::open(path).expect("opens");
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
            text
        };
        assert_eq!(text("audit-2026-01-01T00-00-00.000.log.gz"), "left");
        assert_eq!(text(&found[1]).lines().count(), 2, "{found:?}");
        // One more, and the oldest goes, compressed or not.
        for _ in 0..2 {
            output.write(&[&line]).expect("writes");
        }
        while folder.path().join("audit-2026-01-01T00-00-00.000.log.gz").exists() {
            assert!(std::time::Instant::now() < end, "{:?}", names(folder.path()));
            std::thread::yield_now();
        }
    }

    #[test]
    fn nothing_is_lost_where_a_file_cannot_be_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        // With the time in it the name would be too long.
        let path = folder.path().join(format!("{}.log", "a".repeat(240)));
        let mut output =
            Output::open(&path, Rotation { max_megabytes: 1, ..Rotation::default() }).expect("opens");
        for n in 0..10 {
            output.write(&[format!("{n}{}", "x".repeat(400 << 10))]).expect("writes");
        }
        let text = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(text.lines().map(|line| &line[..1]).collect::<String>(), "0123456789");
        assert_eq!(names(folder.path()).len(), 1);
    }

    #[test]
    fn what_is_there_is_kept_and_written_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("below").join("audit.log");
        for _ in 0..2 {
            Output::open(&path, Rotation::default()).expect("opens").write(&["a", "b"]).expect("writes");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "a\nb\na\nb\n");
        assert!(Output::open(folder.path(), Rotation::default()).is_err(), "a folder is no file");
    }
}
