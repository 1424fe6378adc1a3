//! Descriptors from a shim as asynchronous streams, and the sessions made of them.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use crate::protocol::Reply;
use crate::runtime::{ResizeHandle, RuntimeError};

/// A pipe, a socket or a terminal's master. Several may share one descriptor, each for its own direction.
pub struct FdStream(Option<Arc<AsyncFd<OwnedFd>>>);

/// The streams that came with a reply.
pub struct Streams {
    pub stdin: Option<FdStream>,
    pub stdout: Option<FdStream>,
    pub stderr: Option<FdStream>,
    /// The terminal's master, if it came.
    pub master: Option<Arc<AsyncFd<OwnedFd>>>,
    pub terminal: bool,
}

impl FdStream {
    fn closed() -> io::Error {
        io::Error::new(io::ErrorKind::BrokenPipe, "the stream was closed")
    }
}

fn register(fd: OwnedFd) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    // SAFETY: an `OwnedFd` names one descriptor and keeps it open for as long as it lives.
    Ok(Arc::new(unsafe { AsyncFd::register(fd) }?))
}

impl Streams {
    pub fn take(connection: &mut Connection, reply: &Reply) -> io::Result<Self> {
        let Reply::Streams { stdin, stdout, stderr, terminal, master } = *reply else {
            return Err(io::Error::other(format!("unexpected reply {reply:?}")));
        };
        let mut fds = connection.fds.drain(..).map(register).collect::<io::Result<Vec<_>>>()?.into_iter();
        // An exec's terminal is one descriptor for both directions; an attached one has a socket for each.
        let master = fds.as_slice().first().cloned().filter(|_| master);
        let mut next = |wanted: bool| -> io::Result<Option<FdStream>> {
            match (wanted, &master) {
                (false, _) => Ok(None),
                (true, Some(master)) => Ok(Some(FdStream(Some(master.clone())))),
                (true, None) => match fds.next() {
                    Some(fd) => Ok(Some(FdStream(Some(fd)))),
                    None => Err(io::Error::other("a stream is missing")),
                },
            }
        };
        Ok(Self { stdin: next(stdin)?, stdout: next(stdout)?, stderr: next(stderr)?, master, terminal })
    }

    /// For a terminal whose master we hold. The handle alone does not keep the terminal open.
    pub fn resize_handle(&self) -> Option<ResizeHandle> {
        let master = Arc::downgrade(self.master.as_ref()?);
        Some(ResizeHandle::new(move |size| {
            let result = match master.upgrade() {
                Some(fd) => crate::shim::set_size(fd.get_ref(), size),
                None => Ok(()),
            };
            Box::pin(async move { result.map_err(|error| RuntimeError::io("resize", "terminal", error)) })
        }))
    }
}

impl AsyncRead for FdStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(fd) = &self.0 else { return Poll::Ready(Ok(())) };
        loop {
            let mut guard = ready!(fd.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), unfilled)?)) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // A terminal whose other side is gone.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for FdStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(fd) = &self.0 else { return Poll::Ready(Err(Self::closed())) };
        loop {
            let mut guard = ready!(fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), buf)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes our end: the reader sees the end of its input.
    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}
