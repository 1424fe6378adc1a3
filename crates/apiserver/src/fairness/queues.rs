//! The fair queues of one priority level (pure: the time is handed in). Flows are dealt a hand of queues each, so that a
//! flow that floods its own leaves another at least one that is not full of it; among queues the one goes next that has
//! had the least service. What is measured is seats × seconds in a virtual time that runs by what each active queue may
//! have (KEP-1040).

use std::collections::{BTreeMap, HashMap, VecDeque};

pub type RequestId = u64;

/// What one seat is taken to be busy with until it is known better, in seconds: requests are counted by their real time
/// once they have ended.
const GUESS_SECONDS: f64 = 0.003;
/// A hand is never larger, whatever a configuration says: dealing is work for every request.
const HAND_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    pub queues: usize,
    pub hand_size: usize,
    /// Of each queue, in requests.
    pub length_limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    QueueFull,
    ConcurrencyLimit,
    TimedOut,
    Cancelled,
}

impl Refusal {
    /// As metrics name it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimedOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Runs(RequestId),
    Waits(RequestId),
    Refused(Refusal),
}

#[derive(Debug)]
struct Waiting {
    id: RequestId,
    seats: u32,
}

#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    pub running: usize,
    pub seats_in_use: u32,
    /// The virtual time at which its next request begins.
    pub start: f64,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }

    fn seats_waiting(&self) -> u32 {
        self.waiting.iter().map(|w| w.seats).sum()
    }
}

#[derive(Clone, Copy, Debug)]
struct Running {
    queue: Option<usize>,
    seats: u32,
    since: f64,
}

/// The queues that hold or run something, and what they have in common.
#[derive(Debug, Default)]
pub struct QueueSet {
    /// Without it requests that find no seat are refused.
    queuing: Option<Queuing>,
    limit: u32,
    in_use: u32,
    waiting: usize,
    seats_waiting: u32,
    queues: BTreeMap<usize, Queue>,
    running: HashMap<RequestId, Running>,
    places: HashMap<RequestId, usize>,
    progress: f64,
    seen: f64,
    last_served: usize,
    next: RequestId,
    /// The most seats that were wanted since somebody asked.
    peak: u32,
}

/// Which queues a flow may stand in: as many different ones as the hand has, told by its hash alone.
pub fn hand(mut hash: u64, queuing: Queuing) -> Vec<usize> {
    let size = queuing.hand_size.clamp(1, HAND_MAX).min(queuing.queues.max(1));
    let mut taken: Vec<usize> = Vec::with_capacity(size);
    let mut dealt = Vec::with_capacity(size);
    for left in (1..=queuing.queues.max(1)).rev().take(size) {
        let pick = usize::try_from(hash % left as u64).unwrap_or(0);
        hash /= left as u64;
        // The pick counts the queues that are still there: those taken before it are stepped over.
        let card = taken.iter().fold(pick, |card, before| if card >= *before { card + 1 } else { card });
        taken.insert(taken.partition_point(|before| *before < card), card);
        dealt.push(card);
    }
    dealt
}

impl QueueSet {
    pub fn configure(&mut self, queuing: Option<Queuing>, limit: u32) {
        self.queuing = queuing;
        self.limit = limit;
    }

    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    pub fn progress(&self) -> f64 {
        self.progress
    }

    pub fn queuing(&self) -> Option<Queuing> {
        self.queuing
    }

    /// The queues that are not idle.
    pub fn active(&self) -> impl Iterator<Item = (usize, &Queue)> {
        self.queues.iter().map(|(at, queue)| (*at, queue))
    }

    /// Where a waiting request stands: its queue and its place there.
    pub fn place(&self, id: RequestId) -> Option<(usize, usize)> {
        let queue = *self.places.get(&id)?;
        Some((queue, self.queues.get(&queue)?.waiting.iter().position(|w| w.id == id)?))
    }

    /// How many seats could be used now, and the most of it since this was asked last.
    pub fn demand(&mut self) -> u32 {
        let now = self.in_use.saturating_add(self.seats_waiting);
        std::mem::replace(&mut self.peak, now).max(now)
    }

    fn advance(&mut self, now: f64) {
        let passed = (now - self.seen).max(0.0);
        self.seen = now;
        if !self.queues.is_empty() {
            let busy = self.in_use.saturating_add(self.seats_waiting).min(self.limit);
            self.progress += passed * f64::from(busy) / self.queues.len() as f64;
        }
    }

    /// A request that is wider than all there is runs alone.
    fn fits(&self, seats: u32) -> bool {
        self.limit > 0 && (self.in_use == 0 || self.in_use.saturating_add(seats) <= self.limit)
    }

    /// Takes a request in, or refuses it.
    pub fn arrive(&mut self, now: f64, flow: u64, seats: u32) -> Arrival {
        self.advance(now);
        let id = self.next;
        self.next += 1;
        self.peak = self.peak.max(self.in_use.saturating_add(self.seats_waiting).saturating_add(seats));
        let Some(queuing) = self.queuing else {
            if !self.fits(seats) {
                return Arrival::Refused(Refusal::ConcurrencyLimit);
            }
            self.run(id, None, seats);
            return Arrival::Runs(id);
        };
        let at = self.shortest(&hand(flow, queuing));
        let runs = self.waiting == 0 && self.fits(seats);
        let progress = self.progress;
        let queue = self.queues.entry(at).or_default();
        if queue.is_idle() {
            queue.start = progress;
        }
        if runs {
            self.run(id, Some(at), seats);
            return Arrival::Runs(id);
        }
        if queue.waiting.len() >= queuing.length_limit {
            return Arrival::Refused(Refusal::QueueFull);
        }
        queue.waiting.push_back(Waiting { id, seats });
        self.places.insert(id, at);
        self.waiting += 1;
        self.seats_waiting += seats;
        Arrival::Waits(id)
    }

    /// The queue of a hand with the least work in it.
    fn shortest(&self, hand: &[usize]) -> usize {
        let work = |at: &usize| {
            self.queues.get(at).map_or((0, 0), |q| (q.waiting.len(), q.seats_in_use + q.seats_waiting()))
        };
        hand.iter().copied().min_by_key(|at| work(at)).unwrap_or(0)
    }

    fn run(&mut self, id: RequestId, queue: Option<usize>, seats: u32) {
        self.in_use = self.in_use.saturating_add(seats);
        self.running.insert(id, Running { queue, seats, since: self.seen });
        if let Some(queue) = queue.and_then(|at| self.queues.get_mut(&at)) {
            queue.running += 1;
            queue.seats_in_use += seats;
            queue.start += f64::from(seats) * GUESS_SECONDS;
        }
    }

    /// Requests whose turn it is; they hold their seats from now on.
    pub fn dispatch(&mut self, now: f64) -> Vec<RequestId> {
        self.advance(now);
        let mut out = Vec::new();
        while self.waiting > 0 {
            let Some(at) = self.due() else { break };
            let Some(queue) = self.queues.get_mut(&at) else { break };
            let Some(seats) = queue.waiting.front().map(|w| w.seats) else { break };
            // Nobody overtakes a wide request, or it would never fit.
            if !self.fits(seats) {
                break;
            }
            let Some(next) = self.queues.get_mut(&at).and_then(|q| q.waiting.pop_front()) else { break };
            self.places.remove(&next.id);
            self.waiting -= 1;
            self.seats_waiting -= seats;
            self.last_served = at;
            self.run(next.id, Some(at), seats);
            out.push(next.id);
        }
        out
    }

    /// The queue whose next request would end first in virtual time; of equals, the next in the round.
    fn due(&self) -> Option<usize> {
        let finish =
            |queue: &Queue| queue.waiting.front().map(|w| queue.start + f64::from(w.seats) * GUESS_SECONDS);
        let waiting = self.queues.iter().filter_map(|(at, queue)| Some((*at, finish(queue)?)));
        let round = |at: usize| (at <= self.last_served, at);
        let first = waiting.min_by(|a, b| a.1.total_cmp(&b.1).then_with(|| round(a.0).cmp(&round(b.0))));
        first.map(|(at, _)| at)
    }

    /// A request has ended, or whoever waited for it has gone.
    pub fn leave(&mut self, now: f64, id: RequestId) {
        self.advance(now);
        if let Some(at) = self.places.remove(&id) {
            let Some(queue) = self.queues.get_mut(&at) else { return };
            if let Some(place) = queue.waiting.iter().position(|w| w.id == id)
                && let Some(gone) = queue.waiting.remove(place)
            {
                self.waiting -= 1;
                self.seats_waiting -= gone.seats;
            }
            self.forget_idle(at);
            return;
        }
        let Some(ended) = self.running.remove(&id) else { return };
        self.in_use -= ended.seats;
        let Some(at) = ended.queue else { return };
        if let Some(queue) = self.queues.get_mut(&at) {
            queue.running -= 1;
            queue.seats_in_use -= ended.seats;
            // What it was charged for was a guess.
            queue.start += f64::from(ended.seats) * ((now - ended.since) - GUESS_SECONDS);
        }
        self.forget_idle(at);
    }

    fn forget_idle(&mut self, at: usize) {
        if self.queues.get(&at).is_some_and(Queue::is_idle) {
            self.queues.remove(&at);
        }
    }
}

impl Queue {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn seats_ahead(&self) -> (u32, u32) {
        (self.seats_waiting(), self.waiting.iter().map(|w| w.seats).max().unwrap_or(0))
    }

    /// What waits, in seat-seconds as guessed.
    pub fn work(&self) -> f64 {
        f64::from(self.seats_waiting()) * GUESS_SECONDS
    }
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
