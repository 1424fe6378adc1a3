//! One body type for requests and responses, whatever transport they came by.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body broke off. A type of its own: a bare boxed error cannot cross every `Send` bound.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(BoxError);

impl BodyError {
    pub fn new(why: &'static str) -> Self {
        Self(why.into())
    }
}

impl From<std::io::Error> for BodyError {
    fn from(error: std::io::Error) -> Self {
        Self(error.into())
    }
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn stream(frames: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Body {
    StreamBody::new(frames.map(|frame| frame.map(Frame::data).map_err(BodyError))).boxed_unsync()
}

/// Any body as ours.
pub fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(|error| BodyError(error.into())).boxed_unsync()
}

/// A body that keeps something alive until it has ended or nobody reads it any more.
pub fn holding<G: Send + Unpin + 'static>(body: Body, guard: G) -> Body {
    Holding { body, _guard: guard }.boxed_unsync()
}

struct Holding<G> {
    body: Body,
    _guard: G,
}

impl<G: Unpin> http_body::Body for Holding<G> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pub enum ReadError {
    TooLarge,
    Broken(BoxError),
}

/// The whole body, up to `limit_bytes`.
pub async fn read(mut body: Body, limit_bytes: usize) -> Result<Bytes, ReadError> {
    let mut out = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ReadError::Broken(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        if out.len() + data.len() > limit_bytes {
            tokio::spawn(drain(body));
            return Err(ReadError::TooLarge);
        }
        if out.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        out.extend_from_slice(&data);
    }
    Ok(Bytes::from(out))
}

/// The whole body if it is no longer than so much and has come by then; otherwise the body as if nobody had looked.
pub async fn whole(mut body: Body, limit_bytes: usize, until: tokio::time::Instant) -> Result<Bytes, Body> {
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(body);
    }
    let (mut seen, mut length) = (Vec::new(), 0);
    loop {
        match tokio::time::timeout_at(until, body.frame()).await {
            Ok(None) if seen.len() == 1 => return Ok(seen.remove(0)),
            Ok(None) => return Ok(seen.concat().into()),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                length += data.len();
                seen.push(data);
            }
            // That it broke off is its reader's to see.
            Ok(Some(Err(error))) => return Err(begun(seen, futures::stream::iter([Err(error)]))),
            Err(_) => break,
        }
        if length > limit_bytes {
            break;
        }
    }
    Err(begun(seen, body.into_data_stream()))
}

/// What was seen of a body, and then the rest of it.
fn begun(seen: Vec<Bytes>, rest: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
    let seen = futures::stream::iter(seen.into_iter().map(Ok));
    StreamBody::new(seen.chain(rest).map(|frame| frame.map(Frame::data))).boxed_unsync()
}

/// So much of what is too large is let come, so that whoever sends it gets to read why it was refused: a stream that is
/// cut while it is being written takes the answer with it.
const DRAIN_LIMIT_BYTES: usize = 64 << 20;
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

async fn drain(mut body: Body) {
    let draining = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > DRAIN_LIMIT_BYTES {
                return;
            }
        }
    };
    drop(tokio::time::timeout(DRAIN_LIMIT, draining).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that comes in parts; one without an end is never over.
    fn parts(count: usize, ends: bool) -> Body {
        let parts = futures::stream::iter((0..count).map(|_| Ok(Bytes::from_static(b"0123456789"))));
        if ends { stream(parts) } else { stream(parts.chain(futures::stream::pending())) }
    }

    #[tokio::test]
    async fn what_is_looked_at_is_bounded_and_its_reader_misses_nothing() {
        let soon = || tokio::time::Instant::now() + Duration::from_secs(10);
        let Ok(all) = whole(parts(5, true), 50, soon()).await else { panic!("it is as long as it may be") };
        assert_eq!(all.len(), 50);
        for (body, length) in [(parts(6, true), 60), (full(vec![7; 51]), 51)] {
            let exact = body.size_hint().exact();
            let Err(body) = whole(body, 50, soon()).await else { panic!("it is too long") };
            assert_eq!(body.size_hint().exact(), exact, "it keeps its length");
            let Ok(all) = read(body, 1000).await else { panic!("it broke off") };
            assert_eq!(all.len(), length);
        }
        // One that stops in between, and one that has no end.
        let Err(mut body) = whole(parts(3, false), 50, tokio::time::Instant::now()).await else {
            panic!("it is not over")
        };
        for _ in 0..3 {
            assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        }
        let endless = stream(futures::stream::repeat_with(|| Ok(Bytes::from_static(b"0123456789"))));
        assert!(whole(endless, 50, soon()).await.is_err());
        let broken = stream(futures::stream::iter([Ok(Bytes::from_static(b"0")), Err("broken".into())]));
        let Err(body) = whole(broken, 50, soon()).await else { panic!("it is not whole") };
        assert!(matches!(read(body, 50).await, Err(ReadError::Broken(_))));
    }
}
