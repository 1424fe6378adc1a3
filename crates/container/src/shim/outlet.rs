//! A descriptor that is written without ever waiting for its reader: what it does not take yet is kept, up to a bound.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// A reader further behind than this is dropped: the container must not wait for whoever watches it.
const PENDING_MAX_BYTES: usize = 1 << 20;

pub struct Outlet {
    fd: OwnedFd,
    pending: Vec<u8>,
}

impl Outlet {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, pending: Vec::new() })
    }

    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// `false`: the reader is gone, or too far behind.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        if self.pending.len() + bytes.len() > PENDING_MAX_BYTES {
            return false;
        }
        self.pending.extend_from_slice(bytes);
        self.flush()
    }

    /// Writes what the reader takes now. `false`: it is gone.
    pub fn flush(&mut self) -> bool {
        let mut written = 0;
        let alive = loop {
            if written == self.pending.len() {
                break true;
            }
            match rustix::io::write(&self.fd, &self.pending[written..]) {
                Ok(count) => written += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break true,
                Err(_) => break false,
            }
        };
        self.pending.drain(..written);
        alive
    }
}
