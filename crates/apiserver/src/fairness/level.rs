//! A priority level while the server runs: its queues behind a lock that is held for the length of a step, and those who
//! wait, each woken when it is its turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::queues::{Arrival, QueueSet, Queuing, Refusal, RequestId};
use super::shares::{Limits, Wanted};
use super::stats::Stats;
use crate::auth::rbac::Attributes;

/// How much of the longer time's demand is left after each look at it.
const SMOOTHING: f64 = 0.9;

/// A request as the server tells of it.
#[derive(Debug)]
pub struct Digest {
    pub schema: Arc<str>,
    pub flow: String,
    pub user: String,
    pub what: Attributes,
    pub version: String,
    pub seats: u32,
}

#[derive(Debug)]
pub struct Known {
    pub digest: Digest,
    pub arrived: jiff::Timestamp,
    pub began: Option<jiff::Timestamp>,
    turn: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
pub struct LevelState {
    pub set: QueueSet,
    pub limits: Limits,
    pub smoothed: f64,
    pub known: HashMap<RequestId, Known>,
    pub dispatched: u64,
    pub refused: u64,
    pub timed_out: u64,
    pub cancelled: u64,
    /// No configuration speaks of it any more: it ends with its last request.
    pub quiescing: bool,
}

#[derive(Debug)]
pub struct Level {
    pub name: String,
    began: Instant,
    pub state: Mutex<LevelState>,
}

/// How a request has come in.
pub enum Entered {
    Runs(RequestId),
    Waits(RequestId, oneshot::Receiver<()>),
    Refused(Refusal),
}

impl Level {
    pub fn new(name: &str, began: Instant) -> Self {
        Self { name: name.to_owned(), began, state: Mutex::default() }
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub fn is_exempt(&self) -> bool {
        self.name == super::EXEMPT
    }

    /// A new configuration. What it has borrowed or lent counts from anew.
    pub fn configure(&self, queuing: Option<Queuing>, limits: Limits) {
        let mut state = self.state.lock();
        let same = state.limits == limits && state.set.queuing() == queuing && !state.quiescing;
        if same {
            return;
        }
        state.limits = limits;
        state.quiescing = false;
        let limit = if self.is_exempt() { u32::MAX } else { limits.nominal };
        state.set.configure(queuing, limit);
        state.go_on(self.now());
    }

    /// Nothing new comes; what waits is still served, with what seats it has.
    pub fn quiesce(&self) {
        self.state.lock().quiescing = true;
    }

    pub fn enter(&self, flow: u64, digest: Digest) -> (Entered, Option<Digest>) {
        let mut state = self.state.lock();
        match state.set.arrive(self.now(), flow, digest.seats) {
            Arrival::Runs(id) => {
                state.dispatched += 1;
                let now = base::time::now();
                state.known.insert(id, Known { digest, arrived: now, began: Some(now), turn: None });
                (Entered::Runs(id), None)
            }
            Arrival::Waits(id) => {
                let (turn, wait) = oneshot::channel();
                let known = Known { digest, arrived: base::time::now(), began: None, turn: Some(turn) };
                state.known.insert(id, known);
                (Entered::Waits(id, wait), None)
            }
            Arrival::Refused(why) => (Entered::Refused(why), Some(digest)),
        }
    }

    pub fn refuse(&self, why: Refusal) {
        let mut state = self.state.lock();
        match why {
            Refusal::TimedOut => state.timed_out += 1,
            Refusal::Cancelled => state.cancelled += 1,
            Refusal::QueueFull | Refusal::ConcurrencyLimit => {}
        }
        state.refused += 1;
    }

    /// A request is over, whether it ran or only waited; whether others wait.
    pub fn leave(&self, id: RequestId) -> bool {
        let mut state = self.state.lock();
        let now = self.now();
        state.known.remove(&id);
        state.set.leave(now, id);
        state.go_on(now);
        state.set.waiting() > 0
    }

    /// What it wants, for those who part the seats.
    pub fn wanted(&self) -> Wanted {
        let mut state = self.state.lock();
        let peak = state.set.demand();
        state.smoothed = (state.smoothed * SMOOTHING).max(f64::from(peak));
        Wanted { limits: state.limits, peak, smoothed: state.smoothed }
    }

    pub fn give(&self, seats: u32) {
        let mut state = self.state.lock();
        state.set.set_limit(seats);
        state.go_on(self.now());
    }
}

impl LevelState {
    fn go_on(&mut self, now: f64) {
        for id in self.set.dispatch(now) {
            self.dispatched += 1;
            let Some(known) = self.known.get_mut(&id) else { continue };
            known.began = Some(base::time::now());
            if let Some(turn) = known.turn.take()
                && turn.send(()).is_err()
            {
                tracing::trace!("whoever does not wait any more gives the seats back by leaving");
            }
        }
    }
}

/// A place in a level, in its queue or with seats. Dropping it is leaving.
pub struct Place {
    pub level: Arc<Level>,
    pub fairness: Arc<super::Fairness>,
    pub stats: Arc<Stats>,
    pub id: RequestId,
    pub seats: u32,
    /// Since when it has its seats.
    pub began: Option<Instant>,
    /// So much longer it keeps them: what follows from the request is work too.
    pub linger: Duration,
}

impl Drop for Place {
    fn drop(&mut self) {
        match self.began {
            Some(began) => self.stats.ended(self.seats, began.elapsed()),
            None => self.stats.left_queue(self.seats),
        }
        let (level, fairness, id) = (Arc::clone(&self.level), Arc::clone(&self.fairness), self.id);
        let leave = move || {
            if level.leave(id) {
                fairness.balance_if_due();
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !self.linger.is_zero() && self.began.is_some() => {
                let linger = self.linger;
                drop(runtime.spawn(async move {
                    tokio::time::sleep(linger).await;
                    leave();
                }));
            }
            _ => leave(),
        }
    }
}
