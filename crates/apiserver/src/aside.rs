//! Large work is done where nobody waits behind it. A request is answered on one of a few threads that all requests share,
//! probes among them; decoding, checking and encoding a few megabytes takes as long as a thousand small requests, without a
//! point at which others have their turn. Once a request turns out to be about something large, its thread is its own, and
//! once that would be large in memory too, it has a place there ([`room`]).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use api::status::ApiError;
use bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::room::{self, Places, What, Whose};

/// From so many bytes on, bodies and objects are large: some milliseconds of work.
const LARGE_BYTES: usize = 64 << 10;

/// What a request has for itself.
struct Own {
    is_large: AtomicBool,
    /// None for what is done without a request, which is little and one at a time.
    places: Option<parking_lot::Mutex<Places>>,
    /// What was decrypted last, to be weighed, by what it was: it is about to be decoded.
    opened: parking_lot::Mutex<Option<(Bytes, Bytes)>>,
}

tokio::task_local! {
    static OWN: Arc<Own>;
}

/// Lets work be done aside from where it says that it is large; that of a request has its places in somebody's room.
pub fn able<F: Future>(whose: Option<Whose>, work: F) -> Aside<F> {
    let places = whose.map(|whose| parking_lot::Mutex::new(Places::of(whose)));
    let own = Arc::new(Own { is_large: AtomicBool::new(false), places, opened: Default::default() });
    Aside { work: Box::pin(OWN.scope(Arc::clone(&own), work)), own }
}

/// Goes aside if what comes is about so many bytes.
pub async fn begin(bytes: usize) {
    if bytes < LARGE_BYTES {
        return;
    }
    let begins = OWN.try_with(|own| !own.is_large.swap(true, Ordering::Relaxed)).unwrap_or(false);
    if begins {
        // The next turn is the first one aside.
        tokio::task::yield_now().await;
    }
}

/// Has a place in memory for what comes to so many bytes. It is the request's until that is answered.
pub async fn place(what: What, weight: usize) -> Result<(), ApiError> {
    match OWN.try_with(Arc::clone).as_deref() {
        Ok(Own { places: Some(places), .. }) => room::take(places, what, weight).await,
        _ => Ok(()),
    }
}

/// Whether this is a request, which has places.
pub fn has_places() -> bool {
    OWN.try_with(|own| own.places.is_some()).unwrap_or(false)
}

/// Keeps what was decrypted until the request wants it, which is once.
pub fn keep_opened(sealed: &Bytes, plain: &Bytes) {
    // Without a request it is decrypted again.
    if let Ok(own) = OWN.try_with(Arc::clone) {
        *own.opened.lock() = Some((sealed.clone(), plain.clone()));
    }
}

pub fn take_opened(sealed: &Bytes) -> Option<Bytes> {
    let take = |own: &Arc<Own>| {
        let mut opened = own.opened.lock();
        // The very bytes: while they are held nothing else lies there.
        let same = |kept: &Bytes| (kept.as_ptr(), kept.len()) == (sealed.as_ptr(), sealed.len());
        opened.take_if(|(kept, _)| same(kept)).map(|(_, plain)| plain)
    };
    OWN.try_with(take).ok().flatten()
}

pub struct Aside<F: Future> {
    work: Pin<Box<tokio::task::futures::TaskLocalFuture<Arc<Own>, F>>>,
    own: Arc<Own>,
}

impl<F: Future> Future for Aside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // A runtime of one thread has nowhere to go.
        let has_others = || {
            Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
        };
        match self.own.is_large.load(Ordering::Relaxed) && has_others() {
            true => tokio::task::block_in_place(|| self.work.as_mut().poll(context)),
            false => self.work.as_mut().poll(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Work that ends when somebody else has had a turn on the one thread there is.
    async fn others_have_turns(bytes: usize) -> bool {
        let (sender, receiver) = mpsc::channel();
        let large = tokio::spawn(able(None, async move {
            begin(bytes).await;
            tokio::spawn(async move { sender.send(()) });
            let limit = if bytes < LARGE_BYTES { Duration::from_millis(50) } else { Duration::from_secs(60) };
            receiver.recv_timeout(limit).is_ok()
        }));
        large.await.expect("does not panic")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_large_holds_nobody_up() {
        assert!(others_have_turns(LARGE_BYTES).await);
        assert!(!others_have_turns(1).await, "so it is with what is small, which is short");
    }

    #[tokio::test]
    async fn on_one_thread_it_is_done_as_well() {
        let done = able(None, async {
            begin(LARGE_BYTES).await;
            7
        });
        assert_eq!(done.await, 7);
        begin(LARGE_BYTES).await;
    }
}
