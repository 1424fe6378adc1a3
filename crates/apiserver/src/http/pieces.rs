//! Long answers that are put together while they are read: of what nobody has read yet there is no copy, and the reader is
//! at work on the first objects of a list while the last ones are still to be written.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::body::{Body, BodyError};

/// A piece ends with the item that makes it this long.
const PIECE_BYTES: usize = 60 << 10;
/// Room behind it for the end of the last item.
const SLACK_BYTES: usize = 16 << 10;

/// What a list is made of, in the order in which it is written.
pub struct Pieces<I> {
    /// What stands before the first item.
    pub head: Vec<u8>,
    pub items: Vec<I>,
    /// Appends the item with this number.
    pub write: fn(&mut Vec<u8>, usize, &I),
    /// What stands behind the last item.
    pub tail: &'static [u8],
    /// Of all items together, as they are written.
    pub items_bytes: usize,
}

impl<I: Send + Unpin + 'static> Pieces<I> {
    pub fn body(self) -> Body {
        let left = (self.head.len() + self.items_bytes + self.tail.len()) as u64;
        Written { pieces: Some(self), next: 0, left }.boxed_unsync()
    }
}

struct Written<I> {
    /// Nothing when the end has been written.
    pieces: Option<Pieces<I>>,
    /// The item that is next.
    next: usize,
    left: u64,
}

impl<I: Unpin> http_body::Body for Written<I> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { pieces: Some(pieces), next, left } = &mut *self else { return Poll::Ready(None) };
        let most = usize::try_from(*left).unwrap_or(usize::MAX);
        let mut out = Vec::with_capacity(most.min(PIECE_BYTES + SLACK_BYTES));
        out.append(&mut pieces.head);
        while let (true, Some(item)) = (out.len() < PIECE_BYTES, pieces.items.get(*next)) {
            (pieces.write)(&mut out, *next, item);
            *next += 1;
        }
        let is_last = *next == pieces.items.len();
        if is_last {
            out.extend_from_slice(pieces.tail);
        }
        *left = left.saturating_sub(out.len() as u64);
        if is_last {
            debug_assert_eq!(*left, 0, "a list is as long as was said");
            self.pieces = None;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A body packed with gzip as it is read.
pub fn packed(body: Body) -> Body {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    Packed { body, rest: Bytes::new(), encoder: Some(encoder), has_turn: true }.boxed_unsync()
}

/// So much is packed in one turn: less than a millisecond of work.
const TURN_BYTES: usize = 64 << 10;
/// Packed bytes are handed on from so many on.
const HANDED_FROM_BYTES: usize = 16 << 10;

struct Packed {
    body: Body,
    /// What has been read and is not packed yet.
    rest: Bytes,
    /// Nothing when the end has been packed.
    encoder: Option<flate2::write::GzEncoder<Vec<u8>>>,
    /// After each piece, whoever else is to be answered on this thread has a turn.
    has_turn: bool,
}

impl Packed {
    /// Packs the next of what has been read; gives it if it is enough to be sent.
    fn pack(&mut self) -> std::io::Result<Option<Bytes>> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        let next = self.rest.split_to(self.rest.len().min(TURN_BYTES));
        std::io::Write::write_all(encoder, &next)?;
        let packed = encoder.get_mut();
        Ok((packed.len() >= HANDED_FROM_BYTES).then(|| Bytes::from(std::mem::take(packed))))
    }

    fn end(&mut self) -> std::io::Result<Option<Bytes>> {
        self.encoder.take().map(|encoder| encoder.finish().map(Bytes::from)).transpose()
    }
}

impl http_body::Body for Packed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let broken = |error: std::io::Error| Poll::Ready(Some(Err(BodyError::from(error))));
        loop {
            if self.rest.is_empty() {
                match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                    Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        let end = self.end().map(|end| end.map(|end| Ok(Frame::data(end))));
                        return end.map_or_else(broken, Poll::Ready);
                    }
                }
            } else if std::mem::replace(&mut self.has_turn, false) {
                match self.pack() {
                    Ok(Some(packed)) => return Poll::Ready(Some(Ok(Frame::data(packed)))),
                    Ok(None) => {}
                    Err(error) => return broken(error),
                }
            } else {
                self.has_turn = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http_body::Body as _;

    use super::*;
    use crate::http::body::{full, read};

    fn pieces(items: Vec<Vec<u8>>) -> (Body, Vec<u8>) {
        let whole = [b"[", &items.join(&b","[..])[..], b"]\n"].concat();
        let items_bytes = whole.len() - 3;
        let write = |out: &mut Vec<u8>, at: usize, item: &Vec<u8>| {
            out.extend_from_slice(if at > 0 { b"," } else { b"" });
            out.extend_from_slice(item);
        };
        (Pieces { head: b"[".to_vec(), items, write, tail: b"]\n", items_bytes }.body(), whole)
    }

    async fn all(body: Body) -> Vec<u8> {
        let Ok(all) = read(body, usize::MAX).await else { panic!("it broke off") };
        all.to_vec()
    }

    #[tokio::test]
    async fn a_list_comes_whole_and_says_how_long_it_is() {
        for items in [0, 1, 2, 1000] {
            for length in [1, 100, 4 * PIECE_BYTES] {
                let (mut body, whole) = pieces(vec![vec![b'x'; length]; items.min(2_000_000 / length)]);
                assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
                let first = body.frame().await.expect("a piece").expect("well").into_data().expect("data");
                assert!(first.len() <= PIECE_BYTES + length + 2, "{}", first.len());
                assert_eq!(body.size_hint().exact(), Some((whole.len() - first.len()) as u64));
                assert_eq!(body.is_end_stream(), first.len() == whole.len());
                assert!([first.to_vec(), all(body).await].concat() == whole, "{items} of {length}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_packed_unpacks_to_what_it_was() {
        let noise = |length: usize| (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8);
        for length in [0, 1, TURN_BYTES, 10 * TURN_BYTES + 7] {
            for plain in [vec![7; length], noise(length).collect()] {
                let mut unpacked = Vec::new();
                let packed = all(packed(full(plain.clone()))).await;
                flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("unpacks");
                assert!(unpacked == plain, "{length}");
            }
        }
    }

    /// A thread that packs is not the packer's alone.
    #[tokio::test]
    async fn others_have_turns_while_something_is_packed() {
        let turns = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        all(packed(full(vec![7; 20 * TURN_BYTES]))).await;
        other.abort();
        let turns = turns.load(std::sync::atomic::Ordering::Relaxed);
        assert!(turns >= 15, "{turns}");
    }

    #[tokio::test]
    async fn what_breaks_off_breaks_off_packed_too() {
        let frames = [Ok(Bytes::from(vec![7; 100])), Err("gone".into())];
        let mut body = packed(crate::http::body::stream(futures::stream::iter(frames)));
        let mut broken = false;
        while let Some(frame) = body.frame().await {
            broken |= frame.is_err();
            if broken {
                break;
            }
        }
        assert!(broken);
    }
}
