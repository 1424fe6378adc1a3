//! Commands executed in running containers. Their stdio is handed to the client; the shim only starts and reaps them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::container::{Container, set_size};
use crate::process::enter::{self, Entry, Stdio};
use crate::process::launch::LaunchFailure;
use crate::protocol::{Reply, receive_with_fds};
use crate::runtime::{ExecRequest, RuntimeError};
use crate::spec;

pub struct Exec {
    pub container: String,
    /// Zero when not even the fork succeeded.
    pub pid: i32,
    /// `None` once the command runs or has failed to.
    pub report: Option<UnixStream>,
    pub exit_code: Option<i32>,
    request: ExecRequest,
    said: Vec<u8>,
    /// The client's ends: stdin, stdout, stderr; with a terminal only its master.
    ends: Vec<OwnedFd>,
}

impl Exec {
    pub fn start(container: &Container, request: ExecRequest) -> Result<Self, RuntimeError> {
        let id = &container.config.id;
        let failed = |message: String| RuntimeError::Exec { id: id.clone(), message, exit_code: 128 };
        if !container.is_started() || container.status.pid == 0 {
            let state = container.status.state.to_string();
            return Err(RuntimeError::NotRunning { id: id.clone(), state });
        }
        Self::fork(container, request).map_err(|error| failed(error.to_string()))
    }

    fn fork(container: &Container, request: ExecRequest) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut ends = Vec::new();
        let stdio = if request.tty { Stdio::Terminal } else { pipes(&request, &mut ends)? };
        let mut launch = container.launch.clone();
        launch.args.clone_from(&request.command);
        if request.tty && !launch.env.iter().any(|entry| entry.starts_with("TERM=")) {
            launch.env.push("TERM=xterm".into());
        }
        let pid = enter::start(Entry {
            pid: container.status.pid,
            joins: container.cgroup.open_joins().map_err(io::Error::other)?,
            oom_score_adj: fs::read_to_string(format!("/proc/{}/oom_score_adj", container.status.pid))?,
            working_dir: PathBuf::from(spec::working_dir(&container.config)),
            launch: &launch,
            stdio,
            report: theirs.into(),
        })?;
        let container = container.config.id.clone();
        Ok(Self { container, pid, report: Some(ours), exit_code: None, request, said: Vec::new(), ends })
    }

    /// Reads on in the report. `Some`: the command runs, or never will, and this is to be answered.
    pub fn read_report(&mut self) -> Option<Reply> {
        let report = self.report.as_ref()?;
        let mut buffer = [0; 4096];
        loop {
            match receive_with_fds(report.as_fd(), &mut buffer, &mut self.ends) {
                Ok(count @ 1..) => self.said.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.report = None;
        let said = self.said.trim_ascii();
        if said.is_empty() && self.pid != 0 {
            if let (true, Some(size), Some(master)) = (self.request.tty, self.request.size, self.ends.first())
            {
                // A terminal of the wrong size is still a terminal.
                set_size(master, size).ok();
            }
            return Some(self.streams());
        }
        let failure =
            serde_json::from_slice(said).unwrap_or_else(|_| LaunchFailure::at("exec", "no process"));
        let LaunchFailure { exit_code, message } = failure;
        let error = RuntimeError::Exec { id: self.container.clone(), message, exit_code };
        Some(Reply::Failed { error })
    }

    fn streams(&self) -> Reply {
        let request = &self.request;
        if request.tty {
            return Reply::Streams {
                stdin: request.stdin,
                stdout: true,
                stderr: false,
                terminal: true,
                master: true,
            };
        }
        let (stdin, stdout, stderr) = (request.stdin, request.stdout, request.stderr);
        Reply::Streams { stdin, stdout, stderr, terminal: false, master: false }
    }

    pub fn ends(&self) -> Vec<BorrowedFd<'_>> {
        self.ends.iter().map(AsFd::as_fd).collect()
    }

    /// They are the client's now.
    pub fn release_ends(&mut self) {
        self.ends.clear();
    }

    pub fn kill(&self) {
        if self.pid > 0 && self.exit_code.is_none() {
            // SAFETY: the process is our child and not yet reaped, so the number is still its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
    }
}

/// The process's ends; the client's are added to `ends` in the order of the streams asked for.
fn pipes(request: &ExecRequest, ends: &mut Vec<OwnedFd>) -> io::Result<Stdio> {
    let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let stdin = if request.stdin {
        let (read, write) = pipe()?;
        ends.push(write);
        read
    } else {
        null()?
    };
    let mut output = |wanted: bool| -> io::Result<OwnedFd> {
        if !wanted {
            return null();
        }
        let (read, write) = pipe()?;
        ends.push(read);
        Ok(write)
    };
    Ok(Stdio::Pipes { stdin, stdout: output(request.stdout)?, stderr: output(request.stderr)? })
}
