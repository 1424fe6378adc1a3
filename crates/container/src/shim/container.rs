//! One container as its shim sees it: record, stdio, log and attached clients.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::outlet::Outlet;
use crate::cgroup::Cgroup;
use crate::log::{ContainerLog, Stream};
use crate::own::state;
use crate::process::launch::{Launch, LaunchFailure};
use crate::runtime::{ContainerConfig, ContainerState, ContainerStatus, TerminalSize, reason};

/// Attached clients of one container at a time.
const CLIENTS_MAX: usize = 32;
const CHUNK_BYTES: usize = 64 * 1024;

pub struct Container {
    pub config: ContainerConfig,
    pub status: ContainerStatus,
    pub directory: PathBuf,
    pub cgroup: Cgroup,
    pub launch: Launch,
    pub runtime: libcontainer::container::Container,
    /// Ends when the program is executed; says why if it could not be.
    pub start_report: Option<File>,
    /// The connection that waits for the start.
    pub starter: Option<u64>,
    pub start_failure: Option<LaunchFailure>,
    /// Its PID namespace ends with its first process; otherwise leftovers must be hunted.
    pub own_pid_namespace: bool,
    pub stdio: Stdio,
}

impl Container {
    pub fn is_started(&self) -> bool {
        self.status.started_at_ns != 0 && self.starter.is_none()
    }

    /// Records what the first process ended with. Durable before anybody is told.
    pub fn ended(&mut self, exit_code: i32) {
        if !self.own_pid_namespace
            && let Err(error) = self.cgroup.kill_all(std::time::Duration::from_secs(2))
        {
            base::tell!("{}: {error}", self.config.id);
        }
        self.stdio.drain();
        let status = &mut self.status;
        status.state = ContainerState::Exited;
        status.finished_at_ns = crate::clock::now_ns();
        status.exit_code = exit_code;
        status.pid = 0;
        status.reason = match (self.cgroup.oom_kills(), exit_code) {
            (1.., _) => reason::OOM_KILLED,
            (0, 0) => reason::COMPLETED,
            (0, _) => reason::ERROR,
        }
        .into();
        if let Some(failure) = &self.start_failure {
            status.reason = reason::START_ERROR.into();
            status.message = failure.message.clone();
        }
        self.save();
    }

    /// The shim cannot help a full disk; the agent has the status from the socket as well.
    pub fn save(&self) {
        if let Err(error) = state::write_status(&self.directory, &self.status) {
            base::tell!("{}: {error}", self.config.id);
        }
    }

    pub fn signal(&self, signal: i32) {
        if self.status.pid > 0 {
            // SAFETY: the process is our child and not yet reaped, so the number is still its own.
            unsafe { libc::kill(self.status.pid, signal) };
        }
        if signal == libc::SIGKILL {
            // Frozen, it would not die.
            self.cgroup.thaw();
        }
    }
}

/// Our ends of the container's stdio.
#[derive(Default)]
pub struct Stdio {
    pub stdin: Option<Outlet>,
    /// With a terminal: its master.
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub terminal: bool,
    pub stdin_once: bool,
    pub log: Option<ContainerLog>,
    pub clients: BTreeMap<u64, Client>,
    pub next_client: u64,
}

#[derive(Default)]
pub struct Client {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<Outlet>,
    pub stderr: Option<Outlet>,
}

impl Client {
    pub fn outlet(&mut self, stream: Stream) -> &mut Option<Outlet> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn is_gone(&self) -> bool {
        self.stdin.is_none() && self.stdout.is_none() && self.stderr.is_none()
    }
}

impl Stdio {
    pub fn open_log(&mut self, path: &Path) -> io::Result<()> {
        self.log = Some(ContainerLog::open(path)?);
        Ok(())
    }

    fn output(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Takes one chunk from the container. `false`: nothing more for now.
    pub fn read_output(&mut self, stream: Stream) -> bool {
        let mut buffer = [0; CHUNK_BYTES];
        let Some(fd) = self.output(stream) else { return false };
        match rustix::io::read(&*fd, &mut buffer) {
            Ok(count @ 1..) => {
                self.deliver(stream, &buffer[..count]);
                true
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(rustix::io::Errno::AGAIN) => false,
            // The end; a terminal says it with an error.
            Ok(_) | Err(_) => {
                *self.output(stream) = None;
                if let Some(log) = &mut self.log {
                    // A log that cannot be written loses lines, never the container.
                    log.finish(stream).ok();
                }
                self.tidy();
                false
            }
        }
    }

    fn deliver(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            // As above.
            log.write(stream, bytes).ok();
        }
        for client in self.clients.values_mut() {
            let outlet = client.outlet(stream);
            if outlet.as_mut().is_some_and(|outlet| !outlet.push(bytes)) {
                *outlet = None;
            }
        }
        self.tidy();
    }

    /// All that has been written so far.
    pub fn drain(&mut self) {
        while self.read_output(Stream::Stdout) {}
        while self.read_output(Stream::Stderr) {}
        self.stdin = None;
    }

    /// Lets go of clients that left or have nothing more to get.
    pub fn tidy(&mut self) {
        let (stdout_ended, stderr_ended) = (self.stdout.is_none(), self.stderr.is_none());
        for client in self.clients.values_mut() {
            if stdout_ended && client.stdout.as_ref().is_some_and(Outlet::is_idle) {
                client.stdout = None;
            }
            if stderr_ended && client.stderr.as_ref().is_some_and(Outlet::is_idle) {
                client.stderr = None;
            }
            if self.stdin.is_none() || (stdout_ended && stderr_ended) {
                client.stdin = None;
            }
        }
        self.clients.retain(|_, client| !client.is_gone());
    }

    /// Takes what a client typed, once the container has taken what came before.
    pub fn read_client(&mut self, id: u64) {
        let mut buffer = [0; CHUNK_BYTES];
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(fd) = &client.stdin else { return };
        match rustix::io::read(fd, &mut buffer) {
            Ok(count @ 1..) => {
                if self.stdin.as_mut().is_some_and(|stdin| !stdin.push(&buffer[..count])) {
                    self.stdin = None;
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(_) | Err(_) => {
                client.stdin = None;
                if self.stdin_once {
                    self.stdin = None;
                }
            }
        }
        self.tidy();
    }

    /// Makes a client; returns its ends: stdin, stdout, stderr.
    pub fn attach(&mut self) -> io::Result<[Option<OwnedFd>; 3]> {
        if self.clients.len() >= CLIENTS_MAX {
            return Err(io::Error::other("too many attached clients"));
        }
        let mut client = Client::default();
        let mut theirs = [None, None, None];
        if self.stdin.is_some() {
            let (ours, end) = socket_pair()?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            (client.stdin, theirs[0]) = (Some(ours), Some(end));
        }
        if self.stdout.is_some() {
            let (ours, end) = socket_pair()?;
            (client.stdout, theirs[1]) = (Some(Outlet::new(ours)?), Some(end));
        }
        if self.stderr.is_some() {
            let (ours, end) = socket_pair()?;
            (client.stderr, theirs[2]) = (Some(Outlet::new(ours)?), Some(end));
        }
        self.clients.insert(self.next_client, client);
        self.next_client += 1;
        Ok(theirs)
    }

    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        match (&self.stdout, self.terminal) {
            (Some(master), true) => set_size(master, size),
            _ => Ok(()),
        }
    }
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    Ok((ours.into(), theirs.into()))
}

pub fn set_size(master: &OwnedFd, size: TerminalSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: reads one winsize of ours.
    match unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
