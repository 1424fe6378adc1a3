//! What is held of large answers until they have been read. A list keeps what it is written from, as it was when it was asked
//! for, and whoever asks for many and reads none has the server hold it all, for as long as an answer may take: so they have
//! a place for that together, and where there is none the answer is dropped and its reader told to come back. Clients have
//! theirs apart from the cluster's own components and nodes.

use std::sync::{Arc, LazyLock};

use api::status::ApiError;
use http::Method;
use http_body::Body as _;
use tokio::sync::Semaphore;

use super::body::holding;
use super::respond::{self, Answer, Form};
use crate::room::Whose;

/// Smaller ones are few enough: there are so many connections, and so many streams on each.
const FREE_BYTES: u64 = 1 << 20;
/// Of clients; the others have a quarter of it each. A list of ten thousand pods is some 60 MiB.
const CLIENTS_BYTES: u64 = 1 << 30;
const STEP_BYTES: u64 = 64 << 10;
const RETRY_AFTER_SECONDS: i32 = 1;

/// In the extensions of an answer that is packed as it is read: what is held of it meanwhile, at most.
#[derive(Clone, Copy)]
pub struct Unpacked(pub u64);

struct Places {
    free: Arc<Semaphore>,
    all: u32,
}

static PLACES: LazyLock<[Places; 3]> =
    LazyLock::new(|| [CLIENTS_BYTES, CLIENTS_BYTES / 4, CLIENTS_BYTES / 4].map(Places::new));

impl Places {
    fn new(bytes: u64) -> Self {
        let all = u32::try_from(bytes / STEP_BYTES).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// The answer with its place, or another one.
    fn hold(&self, answer: Answer) -> Answer {
        let packed = answer.extensions().get::<Unpacked>().map(|unpacked| unpacked.0);
        let length = answer.body().size_hint().exact().or(packed).unwrap_or_default();
        if length < FREE_BYTES {
            return answer;
        }
        // What is larger than all places has them all.
        let steps = u32::try_from(length.div_ceil(STEP_BYTES)).unwrap_or(u32::MAX).min(self.all);
        match Arc::clone(&self.free).try_acquire_many_owned(steps) {
            Ok(place) => answer.map(|body| holding(body, place)),
            Err(_) => respond::error(
                Form::JSON,
                &ApiError::too_many_requests(
                    "Too many large answers have not been read yet, please try again later.",
                    RETRY_AFTER_SECONDS,
                ),
            ),
        }
    }
}

/// What was read has changed nothing and can be asked for again; other answers tell what was done.
pub fn bounded(method: &Method, answer: Answer) -> Answer {
    match answer.extensions().get::<Whose>().copied() {
        Some(whose) if method == Method::GET => PLACES[whose as usize].hold(answer),
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::full;

    #[test]
    fn so_much_is_held_and_then_one_comes_again() {
        let places = Places::new(8 * FREE_BYTES);
        let of = |length: u64| {
            places.hold(Answer::new(full(vec![7; usize::try_from(length).unwrap_or_default()])))
        };
        let mut held: Vec<Answer> = (0..4).map(|_| of(2 * FREE_BYTES)).collect();
        assert!(held.iter().all(|answer| answer.status() == 200));
        let refused = of(FREE_BYTES);
        assert_eq!(
            (refused.status().as_u16(), refused.headers()["retry-after"].to_str().ok()),
            (429, Some("1"))
        );
        assert_eq!(of(FREE_BYTES - 1).status(), 200, "small ones are not counted");
        drop(held.pop());
        assert_eq!(of(FREE_BYTES).status(), 200);
        held.clear();
        let all = of(100 * FREE_BYTES);
        assert_eq!((all.status().as_u16(), of(FREE_BYTES).status().as_u16()), (200, 429));
        assert_eq!(all.body().size_hint().exact(), Some(100 * FREE_BYTES), "it keeps its length");
    }

    #[test]
    fn what_is_packed_is_held_as_it_is() {
        let places = Places::new(2 * FREE_BYTES);
        let of = || places.hold(respond::compressed(Answer::new(full(vec![7; 2 << 20]))));
        let held = of();
        assert_eq!(
            (held.status().as_u16(), held.headers()["content-encoding"].to_str().ok()),
            (200, Some("gzip"))
        );
        assert_eq!(of().status(), 429);
        drop(held);
        assert_eq!(of().status(), 200);
    }

    #[test]
    fn what_tells_of_something_done_is_not_refused() {
        let answer = || {
            let mut answer = Answer::new(full(vec![7; 1 << 20]));
            answer.extensions_mut().insert(Whose::Nodes);
            answer
        };
        let held: Vec<Answer> = (0..256).map(|_| bounded(&Method::GET, answer())).collect();
        assert!(held.iter().all(|answer| answer.status() == 200));
        assert_eq!(bounded(&Method::GET, answer()).status(), 429);
        assert_eq!(bounded(&Method::DELETE, answer()).status(), 200);
    }
}
