//! What the agent and a shim say to each other: one JSON document a line over a unix socket, one request a connection.
//! Descriptors of stdio travel beside the reply, so that the bytes of an exec never pass through the shim.
//!
//! Only ever add optional fields: a new agent must understand shims that were started by an old one. What those say is recorded
//! (`recorded/`), and a test reads it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::runtime::{
    ContainerConfig, ContainerStatus, ExecRequest, RuntimeError, SandboxConfig, TerminalSize,
};

/// Longer lines are refused.
pub const LINE_MAX_BYTES: usize = 4 << 20;
/// In the sandbox's directory.
pub const SOCKET: &str = "shim.sock";
pub const SANDBOX_FILE: &str = "sandbox.json";

/// What a sandbox's directory tells its shim and the next agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub config: SandboxConfig,
    pub created_at_ns: i64,
    /// The cgroup below which everything of this cluster lies.
    pub cgroup_prefix: String,
}

impl SandboxRecord {
    /// The group that holds all containers of the sandbox, if it has one of its own.
    pub fn parent_cgroup(&self) -> Option<String> {
        let parent = self.config.cgroup_parent.trim_matches('/');
        (!parent.is_empty()).then(|| format!("{}/{parent}", self.cgroup_prefix.trim_matches('/')))
    }

    /// From the cgroup root.
    pub fn container_cgroup(&self, id: &str) -> String {
        let parts = [self.cgroup_prefix.as_str(), self.config.cgroup_parent.as_str(), id]
            .map(|part| part.trim_matches('/'));
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Answered by [`Reply::Statuses`], then by a [`Reply::Status`] or [`Reply::Removed`] for every change.
    Subscribe,
    Create {
        config: Box<ContainerConfig>,
    },
    Start {
        id: String,
    },
    Signal {
        id: String,
        signal: i32,
    },
    /// Forgets a container that has ended.
    Forget {
        id: String,
    },
    /// Answered by [`Reply::Streams`], then by [`Reply::Exited`].
    Exec {
        id: String,
        exec: ExecRequest,
    },
    /// On the connection of an exec: kills its process.
    Kill,
    Attach {
        id: String,
    },
    Resize {
        id: String,
        size: TerminalSize,
    },
    ReopenLog {
        id: String,
    },
    /// Kills everything and ends the shim.
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Done,
    Statuses {
        statuses: Vec<ContainerStatus>,
    },
    Status {
        status: Box<ContainerStatus>,
    },
    Removed {
        id: String,
    },
    /// The descriptors that come with it, in this order; or, with `master`, one terminal for all of them.
    Streams {
        stdin: bool,
        stdout: bool,
        stderr: bool,
        terminal: bool,
        master: bool,
    },
    Exited {
        exit_code: i32,
    },
    Failed {
        error: RuntimeError,
    },
}

pub fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Sends bytes with descriptors attached to the first of them.
pub fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// Receives bytes and whatever descriptors came with them.
pub fn receive_with_fds(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(received.bytes)
}
