//! What becomes of answers that nobody reads. An answer is handed out in pieces, so that what is not read yet is still
//! ours to drop; one that is not taken for too long, or not to its end in the time it has, is dropped with all it holds.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use super::body::{Body, BodyError};
use super::respond::Answer;

/// Pieces of this size: large enough to cost nothing, small enough that what is under way of each answer is little.
const PIECE_BYTES: usize = 64 << 10;

/// In an answer's extensions: by when it must have been read.
#[derive(Clone, Copy, Debug)]
pub struct Until(pub Instant);

/// The requests of one connection.
#[derive(Debug)]
pub struct Traffic(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    next: u64,
    /// Being answered, or read.
    open: usize,
    answers: HashMap<u64, Weak<Answering>>,
    idle_since: Instant,
}

impl Default for Traffic {
    fn default() -> Self {
        let idle_since = Instant::now();
        Self(Mutex::new(Counts { next: 0, open: 0, answers: HashMap::new(), idle_since }))
    }
}

/// A request, from its head to the end of its answer.
#[derive(Debug)]
pub struct Ticket(Arc<Traffic>);

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock();
        counts.open -= 1;
        counts.idle_since = Instant::now();
    }
}

impl Traffic {
    pub fn begin(self: &Arc<Self>) -> Ticket {
        self.0.lock().open += 1;
        Ticket(Arc::clone(self))
    }

    /// How long nothing has been asked, and how many requests there were before; nothing while there is one.
    pub fn idle(&self) -> Option<(Duration, u64)> {
        let counts = self.0.lock();
        (counts.open == 0).then(|| (counts.idle_since.elapsed(), counts.next))
    }

    /// Drops the answers of which nothing has been taken for so long.
    pub fn cut_stalled(&self, now: Instant, limit: Duration) {
        let answers: Vec<_> = self.0.lock().answers.values().filter_map(Weak::upgrade).collect();
        for answer in answers {
            // One that is being worked on is not stalled.
            if let Some(mut state) = answer.state.try_lock()
                && state.is_stalled(now, limit)
            {
                state.cut();
            }
        }
    }
}

/// An answer under way.
#[derive(Debug)]
struct Answering {
    id: u64,
    ticket: Ticket,
    state: Mutex<State>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.ticket.0.0.lock().answers.remove(&self.id);
    }
}

struct State {
    body: Option<Body>,
    /// What is left of a frame that was larger than a piece.
    rest: Bytes,
    /// Since when the last piece has been waiting to be sent.
    handed: Option<Instant>,
    until: Option<Instant>,
    cut: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("handed", &self.handed).field("cut", &self.cut).finish_non_exhaustive()
    }
}

impl State {
    fn is_stalled(&self, now: Instant, limit: Duration) -> bool {
        let stalled = self.handed.is_some_and(|at| now.saturating_duration_since(at) >= limit);
        self.body.is_some() && (stalled || self.until.is_some_and(|until| now >= until))
    }

    fn cut(&mut self) {
        self.cut = true;
        self.body = None;
        self.rest = Bytes::new();
    }

    fn piece(&mut self) -> Option<Frame<Bytes>> {
        let length = self.rest.len().min(PIECE_BYTES);
        self.handed = Some(Instant::now());
        (length > 0).then(|| Frame::data(self.rest.split_to(length)))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.handed = None;
        if self.until.is_some_and(|until| self.body.is_some() && Instant::now() >= until) {
            self.cut();
        }
        if self.cut {
            return Poll::Ready(Some(Err(BodyError::new("the answer was not read in time"))));
        }
        if let Some(piece) = self.piece() {
            return Poll::Ready(Some(Ok(piece)));
        }
        self.handed = None;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(data) => {
                    self.rest = data;
                    self.piece().unwrap_or_else(|| Frame::data(Bytes::new()))
                }
                Err(other) => other,
            }))),
            Poll::Ready(None) => {
                self.body = None;
                Poll::Ready(None)
            }
            other => other,
        }
    }
}

struct Paced(Arc<Answering>);

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.state.lock().poll(context)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.state.lock();
        !state.cut && state.rest.is_empty() && state.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.0.state.lock();
        let (rest, hint) = (state.rest.len() as u64, state.body.as_ref().map(http_body::Body::size_hint));
        let mut hint = hint.unwrap_or_else(|| SizeHint::with_exact(0));
        // The upper bound first: a lower one above it is a panic.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// An answer that is dropped when it is not read.
pub fn paced(ticket: Ticket, answer: Answer) -> Answer {
    let (parts, body) = answer.into_parts();
    let until = parts.extensions.get::<Until>().map(|until| until.0);
    let state = State { body: Some(body), rest: Bytes::new(), handed: None, until, cut: false };
    let traffic = Arc::clone(&ticket.0);
    let answering = {
        let mut counts = traffic.0.lock();
        let id = counts.next;
        counts.next += 1;
        let answering = Arc::new(Answering { id, ticket, state: Mutex::new(state) });
        counts.answers.insert(id, Arc::downgrade(&answering));
        answering
    };
    Answer::from_parts(parts, super::body::boxed(Paced(answering)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::{full, read};
    use http_body_util::BodyExt;

    const STALL: Duration = Duration::from_secs(30);

    fn answer(length: usize, until: Option<Instant>) -> (Arc<Traffic>, Body) {
        let traffic = Arc::<Traffic>::default();
        let mut answer = Answer::new(full(vec![7; length]));
        if let Some(until) = until {
            answer.extensions_mut().insert(Until(until));
        }
        let answer = paced(traffic.begin(), answer);
        (traffic, answer.into_body())
    }

    #[tokio::test]
    async fn an_answer_comes_whole_in_pieces_and_has_its_length() {
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES + 3] {
            let (traffic, mut body) = answer(length, None);
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            assert_eq!(traffic.idle(), None);
            if length > PIECE_BYTES {
                let first = body.frame().await.expect("a piece").expect("well").into_data().expect("data");
                assert_eq!(first.len(), PIECE_BYTES);
                assert_eq!(body.size_hint().exact(), Some((length - PIECE_BYTES) as u64));
                let Ok(rest) = read(body, usize::MAX).await else { panic!("it broke off") };
                assert_eq!(rest.len(), length - PIECE_BYTES);
            } else {
                let Ok(all) = read(body, usize::MAX).await else { panic!("it broke off") };
                assert_eq!(all.len(), length);
            }
            assert!(traffic.idle().is_some(), "it is over");
        }
    }

    #[tokio::test]
    async fn what_nobody_takes_is_dropped_with_what_it_holds() {
        let held = Arc::new(());
        let traffic = Arc::<Traffic>::default();
        let body = crate::http::body::holding(full(vec![7; 10 * PIECE_BYTES]), Arc::clone(&held));
        let mut body = paced(traffic.begin(), Answer::new(body)).into_body();
        assert!(body.frame().await.expect("a piece").is_ok());
        let now = Instant::now();
        traffic.cut_stalled(now, STALL);
        assert_eq!(Arc::strong_count(&held), 2, "it has just been handed out");
        traffic.cut_stalled(now + STALL + Duration::from_secs(1), STALL);
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(body.frame().await.expect("an end").is_err(), "and the reader learns that it broke off");
    }

    #[tokio::test]
    async fn a_slow_reader_has_as_long_as_the_request_has() {
        let now = Instant::now();
        let (traffic, mut body) = answer(10 * PIECE_BYTES, Some(now + Duration::from_secs(60)));
        assert!(body.frame().await.expect("a piece").is_ok());
        traffic.cut_stalled(now + Duration::from_secs(20), STALL);
        assert!(body.frame().await.expect("a piece").is_ok(), "not yet");
        traffic.cut_stalled(now + Duration::from_secs(60), STALL);
        assert!(body.frame().await.expect("an end").is_err());
        let (_traffic, mut body) = answer(10 * PIECE_BYTES, Some(now));
        assert!(body.frame().await.expect("an end").is_err(), "also where nobody looks after it");
    }
}
