//! The server's process as the command line sees it: started, found, asked to end. Three files of the data directory
//! tell all of it; the lock is the kernel's and so never lies.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base::layout::Layout;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What a running server says of itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct RunFile {
    pub pid: u32,
    pub server: String,
    pub kubeconfig: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Down,
    /// A process holds the directory but does not serve: it starts or it ends.
    Between {
        pid: Option<u32>,
    },
    Serving(RunFile),
}

/// Whether a server runs on the directory.
pub fn look(layout: &Layout) -> anyhow::Result<State> {
    let path = layout.lock();
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(State::Down),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            bail!("{} belongs to another user; run as root", layout.data_dir().display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    // Shared, and let go of at once: nobody is kept out.
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => return Ok(State::Down),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
    }
    let file = run_file(layout);
    match file {
        Some(file) if holds(file.pid, &lock) => Ok(State::Serving(file)),
        _ => Ok(State::Between { pid: holder(&lock) }),
    }
}

/// A directory that no server is to start on meanwhile.
pub enum Hold {
    /// For as long as the file is open.
    Ours(File),
    /// Somebody else has it.
    Others,
    /// There is nothing to hold.
    Nothing,
}

pub fn hold(layout: &Layout) -> anyhow::Result<Hold> {
    let path = layout.lock();
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Hold::Nothing),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Hold::Ours(lock)),
        Err(Errno::WOULDBLOCK) => Ok(Hold::Others),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Whether a process is a server, and not another `kedge down`.
pub fn is_server(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"server")
}

/// What is left of a cluster whose directory was deleted while it ran: its place under `/run`, which is named after the
/// directory, and perhaps its server, which still has the lock open. Said with what to do.
pub fn lost(layout: &Layout) -> Option<String> {
    let is_lost = !layout.lock().exists() && (layout.runtime_dir().exists() || orphan(layout).is_some());
    let data_dir = layout.data_dir().display();
    let what = if layout.data_dir().exists() { "most of " } else { "" };
    is_lost.then(|| {
        format!(
            "{what}{data_dir} was deleted while its cluster ran
what is left of it (processes, mounts, network) is taken away by: kedge down --purge --data-dir {data_dir}"
        )
    })
}

/// The server of a directory that was deleted.
pub fn orphan(layout: &Layout) -> Option<u32> {
    let lock = PathBuf::from(format!("{} (deleted)", layout.lock().display()));
    let has_it = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| std::fs::read_link(file.path()).is_ok_and(|link| link == lock))
    };
    let pids = std::fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(has_it)
}

fn run_file(layout: &Layout) -> Option<RunFile> {
    serde_json::from_slice(&std::fs::read(layout.run_file()).ok()?).ok()
}

/// Whether a process has the lock file open.
fn holds(pid: u32, lock: &File) -> bool {
    let Ok(wanted) = lock.metadata() else { return false };
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let is_it = |file: std::fs::DirEntry| {
        std::fs::metadata(file.path()).is_ok_and(|m| (m.dev(), m.ino()) == (wanted.dev(), wanted.ino()))
    };
    files.flatten().any(is_it)
}

fn holder(lock: &File) -> Option<u32> {
    let own = std::process::id();
    let pids = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| *pid != own && holds(*pid, lock))
}

/// Starts the server in the background, in a session of its own: the terminal may be closed.
pub fn start(layout: &Layout, api_port: Option<u16>, node_name: Option<&str>) -> anyhow::Result<Child> {
    let data_dir = layout.data_dir();
    layout.prepare()?;
    let log = layout.log();
    let open = OpenOptions::new().create(true).append(true).open(&log);
    let out = open.with_context(|| format!("cannot write {}", log.display()))?;
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let mut command = Command::new(program);
    command.arg("server").arg("--data-dir").arg(data_dir);
    if let Some(port) = api_port {
        command.arg("--api-port").arg(port.to_string());
    }
    if let Some(name) = node_name {
        command.arg("--node-name").arg(name);
    }
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).current_dir("/");
    // SAFETY: a single system call on nothing of ours.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(std::io::Error::from)) };
    command.spawn().context("cannot start the server")
}

/// Between two looks at a file or a process that starts.
const LOOK: Duration = Duration::from_millis(25);

/// Waits until the server that was started says that it serves.
pub async fn wait_serving(layout: &Layout, child: &mut Child, deadline: Instant) -> anyhow::Result<RunFile> {
    loop {
        if let Some(file) = run_file(layout).filter(|file| file.pid == child.id()) {
            return Ok(file);
        }
        if let Some(status) = child.try_wait().context("cannot look at the server's process")? {
            bail!("the server ended ({status}) before it was ready\n{}", last_words(layout));
        }
        if Instant::now() > deadline {
            bail!("the server was not ready in time\n{}", last_words(layout));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for a server that somebody else has started.
pub async fn wait_other(layout: &Layout, deadline: Instant) -> anyhow::Result<State> {
    loop {
        match look(layout)? {
            State::Between { .. } if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            state => return Ok(state),
        }
    }
}

/// Of the log, with an error.
const LAST_LINES: usize = 15;
const LAST_BYTES: u64 = 64 * 1024;

/// The end of the server's log, and where the rest is.
pub fn last_words(layout: &Layout) -> String {
    let path = layout.log();
    let lines = tail(&path).unwrap_or_default();
    let mut text: String = lines.iter().map(|line| format!("  | {line}\n")).collect();
    text += &format!("the whole log is in {}", path.display());
    let all = lines.join("\n");
    if all.contains("another server runs") || all.contains("Address already in use") {
        text += "\nchoose another directory with --data-dir, or stop the other one with `kedge down`";
    } else if all.contains("No space left") || is_full(layout) {
        text += &format!("\n{}", base::disk::remedy(layout.data_dir()));
    } else if all.contains("ermission denied") || all.contains("not permitted") {
        text += "\nkedge makes containers and networks: run it as root";
    }
    text
}

/// Where there is no room a server cannot even write down why it ended.
fn is_full(layout: &Layout) -> bool {
    const LITTLE_BYTES: u64 = 64 << 10;
    rustix::fs::statvfs(layout.data_dir()).is_ok_and(|disk| disk.f_bavail * disk.f_frsize < LITTLE_BYTES)
}

fn tail(path: &Path) -> std::io::Result<Vec<String>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LAST_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| (*line).to_owned()).collect())
}

/// A process that cannot be confused with a later one of the same number.
pub struct Process(OwnedFd);

impl Process {
    /// `None`: it is gone.
    pub fn open(pid: u32) -> anyhow::Result<Option<Self>> {
        let raw =
            i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("no pid: {pid}"))?;
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look at process {pid}")),
        }
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).context("cannot signal the server"),
        }
    }

    /// Returns when it has ended.
    pub async fn ended(&self) -> anyhow::Result<()> {
        let fd = self.0.try_clone().context("cannot look at the server's process")?;
        // SAFETY: the descriptor belongs to what watches it, and is closed with it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        let fd = fd.context("cannot wait for the server")?;
        fd.readable().await.map(drop).context("cannot wait for the server")
    }

    /// Whether it ended within the time. Blocks.
    pub fn wait(&self, timeout: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).context("a time too long")?;
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for the server"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_tells_who_runs() {
        let directory = tempfile::Builder::new().prefix("kedge-t").tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        assert_eq!(look(&layout).expect("looked"), State::Down, "an empty directory");
        File::create(layout.lock()).expect("a lock file");
        let gone = r#"{"pid": 4194303, "server": "https://127.0.0.1:1", "kubeconfig": "/x"}"#;
        std::fs::write(layout.run_file(), gone).expect("a run file");
        assert_eq!(look(&layout).expect("looked"), State::Down, "a crash leaves the file, not the lock");

        let script = format!("exec 9<{:?}; flock -x 9; echo held; read line", layout.lock());
        let mut command = Command::new("sh");
        let mut holder = command
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process that holds the lock");
        let mut line = String::new();
        let out = holder.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("its word");
        assert_eq!(line.trim(), "held");
        assert_eq!(look(&layout).expect("looked"), State::Between { pid: Some(holder.id()) });
        let file =
            format!(r#"{{"pid": {}, "server": "https://127.0.0.1:1", "kubeconfig": "/x"}}"#, holder.id());
        std::fs::write(layout.run_file(), file).expect("a run file");
        assert!(matches!(look(&layout).expect("looked"), State::Serving(file) if file.pid == holder.id()));

        let process = Process::open(holder.id()).expect("looked").expect("it is there");
        assert!(!process.wait(Duration::from_millis(1)).expect("waited"));
        process.signal(Signal::TERM).expect("signalled");
        assert!(process.wait(Duration::from_secs(10)).expect("waited"));
        holder.wait().expect("reaped");
        assert_eq!(look(&layout).expect("looked"), State::Down);
    }

    #[test]
    fn whose_directory_is_gone_is_found_by_its_lock() {
        let directory = tempfile::Builder::new().prefix("kedge-t").tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        assert_eq!(lost(&layout), None, "an empty directory");
        let held = File::create(layout.lock()).expect("a lock file");
        assert_eq!((lost(&layout), orphan(&layout)), (None, None));
        std::fs::remove_file(layout.lock()).expect("removed");
        assert_eq!(orphan(&layout), Some(std::process::id()));
        assert!(lost(&layout).is_some_and(|told| told.contains("kedge down --purge --data-dir ")));
        drop(held);
        assert_eq!(lost(&layout), None);
    }
}
