//! Into the namespaces and the cgroup of a running container, to execute a command there.
//!
//! libcontainer's own exec joins neither a user namespace nor seccomp; this joins every namespace in which the
//! container differs from us by one `setns` on its pidfd.

use std::ffi::c_int;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::launch::{Launch, LaunchFailure};
use crate::protocol::send_with_fds;

/// The process's ends of its stdio.
pub enum Stdio {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A terminal of the container's own `/dev/pts`; its master comes back through the report socket.
    Terminal,
}

pub struct Entry<'a> {
    /// The container's first process.
    pub pid: i32,
    /// Files of its control groups, open for writing: who writes `0` there joins them.
    pub joins: Vec<File>,
    /// The container's, which is not the shim's.
    pub oom_score_adj: String,
    pub working_dir: PathBuf,
    pub launch: &'a Launch,
    pub stdio: Stdio,
    /// Closes on exec; carries the terminal's master, or a [`LaunchFailure`].
    pub report: OwnedFd,
}

/// Namespace files and their `setns` flags.
const NAMESPACES: [(&str, c_int); 7] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
];

/// Starts the process and returns its pid. It is our child; whether it could execute the command, the report tells.
pub fn start(entry: Entry<'_>) -> io::Result<i32> {
    let pid = Pid::from_raw(entry.pid).ok_or_else(|| io::Error::other("the container has no process"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let flags = differing_namespaces(entry.pid)?;
    let (mut read, write) = pipe()?;
    // SAFETY: this process is single-threaded, so the child may go on as any program.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(read);
            let report = entry.report.as_raw_fd();
            match step_in(entry, &pidfd, flags, write) {
                // SAFETY: ends the intermediate process without the shim's destructors.
                Ok(()) => unsafe { libc::_exit(0) },
                Err(failure) => failure.report_and_exit(report),
            }
        }
        intermediate => {
            drop((write, entry));
            let mut text = String::new();
            let result = read.read_to_string(&mut text);
            // SAFETY: waits for our own child; the status is not looked at, its message is.
            unsafe { libc::waitpid(intermediate, std::ptr::null_mut(), 0) };
            result?;
            // Nothing was said: the intermediate failed and has reported why itself.
            Ok(text.parse().unwrap_or(0))
        }
    }
}

fn pipe() -> io::Result<(File, File)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((read.into(), write.into()))
}

/// Joining a namespace one is in already is an error for some kinds, so only the others are joined.
fn differing_namespaces(pid: i32) -> io::Result<c_int> {
    let mut flags = 0;
    for (name, flag) in NAMESPACES {
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
        if theirs != fs::read_link(format!("/proc/self/ns/{name}"))? {
            flags |= flag;
        }
    }
    Ok(flags)
}

/// The intermediate process: joins, forks the real one as its own sibling (a PID namespace takes effect only for
/// children), says its pid and ends.
fn step_in(
    mut entry: Entry<'_>,
    pidfd: &OwnedFd,
    flags: c_int,
    mut write: File,
) -> Result<(), LaunchFailure> {
    for join in &mut entry.joins {
        join.write_all(b"0").map_err(|error| LaunchFailure::at("join cgroup", error))?;
    }
    // Lowering it needs a right that not everybody has; then the inherited one must do.
    fs::write("/proc/self/oom_score_adj", &entry.oom_score_adj).ok();
    // SAFETY: a pidfd of ours and plain flags.
    if flags != 0 && unsafe { libc::setns(pidfd.as_raw_fd(), flags) } != 0 {
        return Err(LaunchFailure::at("join namespaces", io::Error::last_os_error()));
    }
    // SAFETY: without a stack of its own the call behaves as fork, and we are single-threaded.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0) };
    match child {
        -1 => Err(LaunchFailure::at("fork", io::Error::last_os_error())),
        0 => {
            drop(write);
            let report = entry.report.as_raw_fd();
            let failure = match prepare_stdio(&entry) {
                Ok(()) => entry.launch.run(),
                Err(failure) => failure,
            };
            failure.report_and_exit(report)
        }
        pid => write!(write, "{pid}").map_err(|error| LaunchFailure::at("report pid", error)),
    }
}

fn prepare_stdio(entry: &Entry<'_>) -> Result<(), LaunchFailure> {
    let failed = |step: &'static str| move |error: io::Error| LaunchFailure::at(step, error);
    rustix::process::setsid().map_err(io::Error::from).map_err(failed("setsid"))?;
    match &entry.stdio {
        Stdio::Pipes { stdin, stdout, stderr } => {
            for (fd, target) in [(stdin, 0), (stdout, 1), (stderr, 2)] {
                duplicate(fd.as_raw_fd(), target).map_err(failed("set up stdio"))?;
            }
        }
        Stdio::Terminal => {
            let slave = open_terminal(entry).map_err(failed("open terminal"))?;
            for target in 0..3 {
                duplicate(slave.as_raw_fd(), target).map_err(failed("set up terminal"))?;
            }
        }
    }
    std::env::set_current_dir(&entry.working_dir)
        .map_err(|error| LaunchFailure::at(&format!("chdir to cwd {:?}", entry.working_dir), error))
}

fn duplicate(fd: RawFd, target: RawFd) -> io::Result<()> {
    // SAFETY: both are plain descriptor numbers of this process.
    if unsafe { libc::dup2(fd, target) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opened in the container's mount namespace, so that `/dev/pts/N` is true there.
fn open_terminal(entry: &Entry<'_>) -> io::Result<OwnedFd> {
    let master = fs::OpenOptions::new().read(true).write(true).open("/dev/ptmx")?;
    let unlocked: c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int; TIOCGPTPEER takes open flags and returns a new descriptor.
    let slave = unsafe {
        if libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) != 0 {
            return Err(io::Error::last_os_error());
        }
        let slave = libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCGPTPEER,
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        );
        if slave < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(slave)
    };
    // SAFETY: plain flags; the descriptor is open.
    if unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    send_with_fds(entry.report.as_fd(), b"\n", &[master.as_fd()])?;
    Ok(slave)
}
