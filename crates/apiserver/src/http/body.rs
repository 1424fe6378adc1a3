//! One body type for requests and responses, whatever transport they came by.

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body broke off. A type of its own: a bare boxed error cannot cross every `Send` bound.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(BoxError);

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn stream(frames: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Body {
    StreamBody::new(frames.map(|frame| frame.map(http_body::Frame::data).map_err(BodyError))).boxed_unsync()
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
pub fn holding<G: Send + 'static>(body: Body, guard: G) -> Body {
    body.map_frame(move |frame| {
        let _held = &guard;
        frame
    })
    .boxed_unsync()
}

pub enum ReadError {
    TooLarge,
    Broken(BoxError),
}

/// The whole body, up to `limit_bytes`.
pub async fn read(body: Body, limit_bytes: usize) -> Result<Bytes, ReadError> {
    match Limited::new(body, limit_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ReadError::TooLarge),
        Err(error) => Err(ReadError::Broken(error)),
    }
}
