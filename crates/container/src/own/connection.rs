//! One connection to a shim.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::protocol::{LINE_MAX_BYTES, Reply, Request, SOCKET, line, receive_with_fds};

pub struct Connection {
    stream: UnixStream,
    inbox: Vec<u8>,
    /// In the order they came.
    pub fds: VecDeque<OwnedFd>,
}

impl Connection {
    pub async fn open(sandbox_dir: &Path) -> io::Result<Self> {
        // The path may be longer than a socket address: go through a descriptor of the directory.
        let directory = std::fs::File::open(sandbox_dir)?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let stream = UnixStream::connect(path).await?;
        Ok(Self { stream, inbox: Vec::new(), fds: VecDeque::new() })
    }

    pub async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.stream.write_all(&line(request)?).await
    }

    /// `None`: the shim has closed the connection.
    pub async fn receive(&mut self) -> io::Result<Option<Reply>> {
        loop {
            if let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') {
                let text: Vec<u8> = self.inbox.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&text)?));
            }
            if self.inbox.len() > LINE_MAX_BYTES {
                return Err(io::Error::other("line too long"));
            }
            let (mut buffer, mut fds) = ([0; 16 * 1024], Vec::new());
            let read = self
                .stream
                .async_io(Interest::READABLE, || receive_with_fds(&self.stream, &mut buffer, &mut fds));
            let count = read.await?;
            self.fds.extend(fds);
            if count == 0 {
                return Ok(None);
            }
            self.inbox.extend_from_slice(&buffer[..count]);
        }
    }
}
