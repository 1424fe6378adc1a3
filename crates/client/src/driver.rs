//! The one driver of all reconcilers: deduplication, back-off, requeueing, tracing and panics are dealt with here and
//! nowhere else. A reconciler gets a key, looks at the caches, acts, and says when it wants to look again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::queue::Queue;
use crate::{Cache, Change, Key, Object};

/// When a reconciler wants to be called again, beside for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    OnChange,
    After(Duration),
}

pub type Outcome = Result<Next, Box<dyn std::error::Error + Send + Sync>>;

/// Level-triggered and idempotent: it is told which object to look at, never what happened.
pub trait Reconciler: Send + Sync + 'static {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome>;
}

/// A way to have keys looked at from outside, made before the controller it is for: see [`Controller::woken_by`].
pub fn waker() -> (impl Fn(Key) + Send + Sync + Clone + 'static, Woken) {
    let queue = Arc::<Queue>::default();
    let woken = Woken(Arc::clone(&queue));
    (move |key| queue.add(key), woken)
}

pub struct Woken(Arc<Queue>);

/// A reconciler with what wakes it.
pub struct Controller {
    name: &'static str,
    reconciler: Arc<dyn Reconciler>,
    queue: Arc<Queue>,
    workers: usize,
    ready: Vec<BoxFuture<'static, ()>>,
}

impl Controller {
    pub fn new(name: &'static str, reconciler: impl Reconciler) -> Self {
        Self { name, reconciler: Arc::new(reconciler), queue: Arc::default(), workers: 4, ready: Vec::new() }
    }

    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Looks at each object of a kind by its own key.
    pub fn owns_kind<T: Object>(self, cache: &Arc<Cache<T>>) -> Self {
        self.watches(cache, |change| vec![Key::of(&**change.object())])
    }

    /// Looks at those objects that a change of another kind concerns.
    pub fn watches<T: Object>(
        mut self,
        cache: &Arc<Cache<T>>,
        concerns: impl Fn(&Change<T>) -> Vec<Key> + Send + Sync + 'static,
    ) -> Self {
        let queue = Arc::clone(&self.queue);
        cache.listen(move |change| concerns(change).into_iter().for_each(|key| queue.add(key)));
        let cache = Arc::clone(cache);
        self.ready.push(Box::pin(async move { cache.ready().await }));
        self
    }

    /// Looks at the controllers (by owner reference) of a changed object.
    pub fn watches_owned<T: Object>(self, cache: &Arc<Cache<T>>, owner_kind: &'static str) -> Self {
        self.watches(cache, move |change| {
            // An object may have passed from one owner to another.
            let sides = [&change.old, &change.new];
            let objects = sides.into_iter().flatten();
            let owners = objects.flat_map(|object| {
                let namespace = object.meta().namespace.clone().unwrap_or_default();
                let owners = object.meta().owner_references.iter().flatten();
                let owners = owners.filter(|o| o.controller == Some(true) && o.kind == owner_kind);
                owners.map(move |o| Key::new(namespace.clone(), o.name.clone())).collect::<Vec<_>>()
            });
            owners.collect()
        })
    }

    /// Looks at an object when it comes, goes, or is changed by a user: a new generation, or other annotations. Changes
    /// of its status, which are the reconciler's own, do not wake it.
    pub fn on_spec_change<T: Object>(self, cache: &Arc<Cache<T>>) -> Self {
        self.watches(cache, |change| {
            let asked = |o: &Arc<T>| {
                let meta = o.meta();
                (
                    meta.generation,
                    meta.annotations.clone(),
                    meta.deletion_timestamp.is_some(),
                    meta.uid.clone(),
                )
            };
            let same = change.old.as_ref().map(asked) == change.new.as_ref().map(asked);
            if same { Vec::new() } else { vec![Key::of(&**change.object())] }
        })
    }

    /// Takes the keys that a [`waker`] is called with, those of before included.
    pub fn woken_by(mut self, waker: Woken) -> Self {
        self.queue = waker.0;
        self
    }

    /// Runs until stopped. Nothing is reconciled before every cache it looks at is complete.
    pub async fn run(self, stop: CancellationToken) {
        let all_ready = futures::future::join_all(self.ready);
        tokio::select! {
            _ = all_ready => {}
            () = stop.cancelled() => return,
        }
        let workers = (0..self.workers)
            .map(|_| work(self.name, Arc::clone(&self.reconciler), Arc::clone(&self.queue), stop.clone()));
        futures::future::join_all(workers).await;
    }
}

async fn work(
    name: &'static str,
    reconciler: Arc<dyn Reconciler>,
    queue: Arc<Queue>,
    stop: CancellationToken,
) {
    loop {
        let key = tokio::select! {
            key = queue.take() => key,
            () = stop.cancelled() => return,
        };
        let started = Instant::now();
        // A panic is a fault of ours, but of one object: the others must not suffer for it.
        let outcome = AssertUnwindSafe(reconciler.reconcile(key.clone())).catch_unwind().await;
        let elapsed_ms = started.elapsed().as_millis();
        match outcome {
            Ok(Ok(next)) => {
                queue.succeeded(&key);
                if let Next::After(delay) = next {
                    queue.add_after(key.clone(), delay);
                }
                tracing::trace!(controller = name, %key, elapsed_ms, "reconciled");
            }
            Ok(Err(error)) => {
                let retry_ms = queue.retry(&key).as_millis();
                // Losing a race is everyday; the rest is worth a line.
                match error.downcast_ref::<kube::Error>() {
                    Some(lost) if crate::is_conflict(lost) || crate::is_not_found(lost) => {
                        tracing::debug!(controller = name, %key, %error, retry_ms, "reconcile lost a race");
                    }
                    _ => {
                        tracing::warn!(controller = name, %key, error = %chain(&*error), retry_ms, "reconcile failed")
                    }
                }
            }
            Err(_) => {
                let retry_ms = queue.retry(&key).as_millis();
                tracing::error!(controller = name, %key, retry_ms, "reconcile panicked");
            }
        }
        queue.done(&key);
    }
}

/// An error and all that caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Flaky(Arc<AtomicUsize>);

    impl Reconciler for Flaky {
        fn reconcile(&self, _key: Key) -> BoxFuture<'_, Outcome> {
            Box::pin(async move {
                match self.0.fetch_add(1, Ordering::SeqCst) {
                    0 => Err("first".into()),
                    1 => panic!("second"),
                    2 => Ok(Next::After(Duration::from_millis(1))),
                    _ => Ok(Next::OnChange),
                }
            })
        }
    }

    #[tokio::test]
    async fn errors_panics_and_requeues_bring_a_key_back() {
        let calls = Arc::new(AtomicUsize::new(0));
        let (wake, woken) = waker();
        let controller = Controller::new("flaky", Flaky(Arc::clone(&calls))).workers(1).woken_by(woken);
        wake(Key::new("a", "b"));
        let stop = CancellationToken::new();
        let running = tokio::spawn(controller.run(stop.clone()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while calls.load(Ordering::SeqCst) < 4 {
            assert!(Instant::now() < deadline, "{} calls", calls.load(Ordering::SeqCst));
            tokio::task::yield_now().await;
        }
        stop.cancel();
        running.await.expect("it ends");
    }
}
