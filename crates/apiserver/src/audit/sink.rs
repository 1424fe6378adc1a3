//! Where events go, and when: in the request's own time, or gathered and sent by a task of its own. What cannot be
//! delivered is counted and logged; only in the strict mode does a request fail with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::event;
use super::file::Output;
use super::webhook::Webhook;

/// Deliveries of gathered events that are on their way at once.
const DELIVERIES_MAX: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Gathered and sent later; what there is no room for is dropped.
    Batch,
    /// The request waits for each event to be kept.
    Blocking,
    /// So it does, and a request whose beginning cannot be kept is refused.
    BlockingStrict,
}

/// How a place for events is fed.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    pub mode: Mode,
    /// Events that wait; more are dropped.
    pub buffer: usize,
    /// Events that are sent together.
    pub batch_events: usize,
    /// How long the first of them waits for the others.
    pub batch_wait: Duration,
    /// Deliveries a second and how many may come at once; `None`: as many as there are.
    pub throttle: Option<(f64, u32)>,
    /// Larger events lose their objects; `None`: they are sent as they are.
    pub event_max_bytes: Option<usize>,
    /// A larger batch is sent in parts.
    pub batch_max_bytes: usize,
}

pub enum Place {
    File(Mutex<Output>),
    Webhook(Webhook),
}

impl Place {
    fn plugin(&self) -> &'static str {
        match self {
            Self::File(_) => "log",
            Self::Webhook(_) => "webhook",
        }
    }

    async fn deliver(&self, lines: &[Bytes]) -> Result<(), String> {
        match self {
            Self::File(output) => output.lock().write(lines).map_err(|e| e.to_string()),
            Self::Webhook(webhook) => webhook.send(lines).await,
        }
    }
}

/// Events that were made, and those that did not get where they should, by what lost them.
#[derive(Default)]
pub struct Counters {
    pub events: AtomicU64,
    pub levels: [AtomicU64; 4],
    pub rejected: AtomicU64,
    log: AtomicU64,
    webhook: AtomicU64,
    buffered: AtomicU64,
    truncate: AtomicU64,
}

impl Counters {
    pub fn lost(&self) -> [(&'static str, &AtomicU64); 4] {
        [
            ("buffered", &self.buffered),
            ("log", &self.log),
            ("truncate", &self.truncate),
            ("webhook", &self.webhook),
        ]
    }

    fn lose(&self, plugin: &str, events: usize, error: &str) {
        tracing::error!(plugin, events, error, "events of the audit are lost");
        if let Some((_, counter)) = self.lost().into_iter().find(|(name, _)| *name == plugin) {
            counter.fetch_add(events as u64, Ordering::Relaxed);
        }
    }
}

enum Item {
    Event(Bytes),
    /// Told when all that came before has been delivered.
    Flush(oneshot::Sender<()>),
}

pub struct Sink {
    place: Arc<Place>,
    feed: Feed,
    counters: Arc<Counters>,
    queue: Option<mpsc::Sender<Item>>,
}

impl Sink {
    /// To be called where tasks can be started.
    pub fn new(place: Place, feed: Feed, counters: Arc<Counters>) -> Self {
        let place = Arc::new(place);
        let queue = (feed.mode == Mode::Batch).then(|| {
            let (queue, items) = mpsc::channel(feed.buffer.max(1));
            let gatherer = Gatherer {
                place: Arc::clone(&place),
                feed,
                counters: Arc::clone(&counters),
                items,
                deliveries: Arc::new(Semaphore::new(DELIVERIES_MAX)),
                throttle: feed.throttle.map(|(rate, burst)| Throttle::new(rate, burst)),
            };
            tokio::spawn(gatherer.run());
            queue
        });
        Self { place, feed, counters, queue }
    }

    pub fn is_strict(&self) -> bool {
        self.feed.mode == Mode::BlockingStrict
    }

    /// Whether the event is kept, or on its way.
    pub async fn take(&self, line: Bytes) -> bool {
        let line = match self.feed.event_max_bytes {
            Some(max_bytes) if line.len() > max_bytes => match event::truncated(&line, max_bytes) {
                Some(shorter) => shorter,
                None => {
                    self.counters.lose("truncate", 1, "event is too large even after truncating");
                    return false;
                }
            },
            _ => line,
        };
        let Some(queue) = &self.queue else {
            let delivered = self.place.deliver(&[line]).await;
            return delivered.map_err(|e| self.counters.lose(self.place.plugin(), 1, &e)).is_ok();
        };
        let queued = queue.try_send(Item::Event(line));
        queued.map_err(|_| self.counters.lose("buffered", 1, "audit buffer queue blocked")).is_ok()
    }

    /// Waits until what has been taken is delivered, or given up.
    pub async fn flush(&self) {
        let Some(queue) = &self.queue else { return };
        let (done, told) = oneshot::channel();
        if queue.send(Item::Flush(done)).await.is_ok() {
            // An error is the gatherer's end: there is nothing left to wait for.
            drop(told.await);
        }
    }
}

struct Gatherer {
    place: Arc<Place>,
    feed: Feed,
    counters: Arc<Counters>,
    items: mpsc::Receiver<Item>,
    deliveries: Arc<Semaphore>,
    throttle: Option<Throttle>,
}

impl Gatherer {
    async fn run(mut self) {
        while let Some(item) = self.items.recv().await {
            let mut batch = Vec::new();
            let mut flushed = None;
            match item {
                Item::Event(line) => batch.push(line),
                Item::Flush(done) => flushed = Some(done),
            }
            let end = Instant::now() + self.feed.batch_wait;
            while flushed.is_none() && batch.len() < self.feed.batch_events {
                match tokio::time::timeout_at(end, self.items.recv()).await {
                    Ok(Some(Item::Event(line))) => batch.push(line),
                    Ok(Some(Item::Flush(done))) => flushed = Some(done),
                    Ok(None) | Err(_) => break,
                }
            }
            self.send(batch).await;
            if let Some(done) = flushed {
                let all = u32::try_from(DELIVERIES_MAX).unwrap_or(u32::MAX);
                drop(self.deliveries.acquire_many(all).await);
                // Whoever asked may have gone.
                let _gone = done.send(());
            }
        }
    }

    async fn send(&mut self, batch: Vec<Bytes>) {
        for part in parts(batch, self.feed.batch_max_bytes) {
            if let Some(throttle) = &mut self.throttle {
                throttle.wait().await;
            }
            let Ok(permit) = Arc::clone(&self.deliveries).acquire_owned().await else { return };
            let (place, counters) = (Arc::clone(&self.place), Arc::clone(&self.counters));
            let work = async move {
                if let Err(error) = place.deliver(&part).await {
                    counters.lose(place.plugin(), part.len(), &error);
                }
                drop(permit);
            };
            match &*self.place {
                // Lines keep their order.
                Place::File(_) => work.await,
                Place::Webhook(_) => drop(tokio::spawn(work)),
            }
        }
    }
}

/// A batch in parts of at most so many bytes; one event that is larger goes alone.
fn parts(batch: Vec<Bytes>, max_bytes: usize) -> Vec<Vec<Bytes>> {
    let mut out: Vec<Vec<Bytes>> = Vec::new();
    let mut size = 0;
    for line in batch {
        match out.last_mut() {
            Some(part) if size + line.len() <= max_bytes => {
                size += line.len();
                part.push(line);
            }
            _ => {
                size = line.len();
                out.push(vec![line]);
            }
        }
    }
    out
}

/// A bucket that fills at a rate.
struct Throttle {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Throttle {
    fn new(rate: f64, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { rate: rate.max(0.001), burst, tokens: burst, at: Instant::now() }
    }

    /// How long the next one has to wait, which it is taken to do.
    fn next(&mut self, now: Instant) -> Duration {
        let filled = now.saturating_duration_since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + filled).min(self.burst) - 1.0;
        self.at = now;
        match self.tokens < 0.0 {
            true => Duration::from_secs_f64(-self.tokens / self.rate),
            false => Duration::ZERO,
        }
    }

    async fn wait(&mut self) {
        let wait = self.next(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_parted_by_size() {
        let lines = |lengths: &[usize]| lengths.iter().map(|n| Bytes::from(vec![b'x'; *n])).collect();
        let shape =
            |lengths: &[usize]| -> Vec<usize> { parts(lines(lengths), 10).iter().map(Vec::len).collect() };
        assert_eq!(shape(&[4, 4, 4]), [2, 1]);
        assert_eq!(shape(&[20, 1, 9, 1]), [1, 2, 1]);
        assert_eq!(shape(&[]), [0; 0]);
    }

    #[test]
    fn a_burst_passes_and_the_rest_comes_at_the_rate() {
        let mut throttle = Throttle::new(10.0, 2);
        let now = throttle.at;
        let waits: Vec<u128> = (0..4).map(|_| throttle.next(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100, 200]);
        assert_eq!(throttle.next(now + Duration::from_secs(60)), Duration::ZERO);
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_dropped_and_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let output = Output::open(&path, Default::default()).expect("opens");
        let feed = Feed {
            mode: Mode::Batch,
            buffer: 2,
            batch_events: 100,
            batch_wait: Duration::from_secs(600),
            throttle: None,
            event_max_bytes: Some(64),
            batch_max_bytes: 1000,
        };
        let counters = Arc::<Counters>::default();
        let sink = Sink::new(Place::File(Mutex::new(output)), feed, Arc::clone(&counters));
        // Nobody else runs on this thread until it waits: the queue stays full.
        let mut taken = Vec::new();
        for line in ["1", "2", "3"] {
            taken.push(sink.take(Bytes::from_static(line.as_bytes())).await);
        }
        assert_eq!(taken, [true, true, false]);
        assert!(!sink.take(Bytes::from(vec![b'x'; 100])).await, "no event, and too large");
        sink.flush().await;
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "1\n2\n");
        let lost: Vec<u64> = counters.lost().iter().map(|(_, n)| n.load(Ordering::Relaxed)).collect();
        assert_eq!(lost, [1, 0, 1, 0]);
    }
}
