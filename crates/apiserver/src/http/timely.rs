//! Connections and bodies that do not come to a halt: what takes or brings nothing for too long ends with an error.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::body::{Body, BodyError, boxed};

/// So long a body may bring nothing.
pub const BODY_STALL: Duration = Duration::from_secs(20);
/// After the first of such times it must have brought this much for each second it has lasted: drop by drop is too slow.
const BODY_BYTES_A_SECOND: u64 = 1 << 10;

/// A connection that is not written to for ever: a peer that takes nothing ends it.
pub struct Timely<S, G> {
    stream: S,
    stall_limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whoever has taken the connection over may be as slow as they like.
    freed: Arc<AtomicBool>,
    /// Kept for as long as the connection is.
    _guard: G,
}

impl<S, G> Timely<S, G> {
    pub fn new(stream: S, stall_limit: Duration, freed: Arc<AtomicBool>, guard: G) -> Self {
        Self { stream, stall_limit, stalled: None, freed, _guard: guard }
    }

    fn checked<T>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let limit = self.stall_limit;
        let sleep = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(sleep.as_mut().poll(context));
        if self.freed.load(Ordering::Relaxed) {
            // Armed anew, so that it is woken no more than it must be.
            sleep.as_mut().reset(Instant::now() + limit);
            return Poll::Pending;
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin, G: Unpin> AsyncRead for Timely<S, G> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin, G: Unpin> AsyncWrite for Timely<S, G> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.checked(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.checked(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.checked(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A request's body that comes.
struct Coming {
    body: Body,
    stall_limit: Duration,
    since: Instant,
    bytes: u64,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Coming {
    fn is_too_slow(&self) -> bool {
        let lasted = self.since.elapsed();
        lasted > self.stall_limit && self.bytes < lasted.as_secs() * BODY_BYTES_A_SECOND
    }
}

impl http_body::Body for Coming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let too_slow = || Poll::Ready(Some(Err(BodyError::new("it does not come"))));
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.stalled = None;
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.is_too_slow() { too_slow() } else { Poll::Ready(Some(Ok(frame))) }
            }
            Poll::Pending => {
                let limit = self.stall_limit;
                let sleep = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                ready!(sleep.as_mut().poll(context));
                too_slow()
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that ends with an error when it does not come.
pub fn timely(body: Body) -> Body {
    within(body, BODY_STALL)
}

fn within(body: Body, stall_limit: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    boxed(Coming { body, stall_limit, since: Instant::now(), bytes: 0, stalled: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::{full, read, stream};
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const STALL: Duration = Duration::from_secs(2);

    /// Pieces of a body, each after so many milliseconds.
    fn body(pieces: usize, bytes: usize, pause_ms: u64) -> Body {
        let pieces = futures::stream::iter(0..pieces);
        stream(pieces.then(move |_| async move {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            Ok(Bytes::from(vec![7; bytes]))
        }))
    }

    #[tokio::test]
    async fn a_body_comes_or_it_is_given_up() {
        let reads = async |body, limit| read(within(body, STALL), limit).await.is_ok();
        let begun = Instant::now();
        let (whole, slow, drops, never) = tokio::join!(
            reads(full("whole"), 100),
            reads(body(30, 8 << 10, 100), 1 << 20),
            reads(body(100, 10, 50), 1 << 20),
            reads(body(1, 100, 1_000_000), 100),
        );
        assert!(whole && slow, "slow, but it comes");
        assert!(!drops, "drop by drop");
        assert!(!never && begun.elapsed() < STALL * 5);
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_ends_the_connection() {
        let limit = Duration::from_millis(200);
        let (near, mut far) = tokio::io::duplex(100);
        let freed = Arc::new(AtomicBool::new(false));
        let mut timely = Timely::new(near, limit, Arc::clone(&freed), ());
        timely.write_all(&[7; 100]).await.expect("there is room");
        let stalled = timely.write_all(&[7; 100]).await.expect_err("there is none");
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
        far.read_exact(&mut [0; 100]).await.expect("what was there");
        timely.write_all(&[7; 50]).await.expect("there is room again");
        // One that was taken over waits for as long as it takes.
        freed.store(true, Ordering::Relaxed);
        let reading = async {
            tokio::time::sleep(limit * 4).await;
            far.read_exact(&mut [0; 250]).await.expect("all of it")
        };
        let (wrote, _) = tokio::join!(timely.write_all(&[7; 200]), reading);
        wrote.expect("in the end");
    }
}
