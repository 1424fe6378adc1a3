//! What an evaluation may use. The cost is the published one and part of the API; the work is our own measure of what
//! is really done, for the few operations whose cost does not follow their work.

use crate::fault::Fault;

/// Work allowed for each unit of cost.
const WORK_FACTOR: u64 = 20;
/// No text that an expression makes is longer.
const MAX_TEXT: usize = 16 << 20;

#[derive(Debug)]
pub struct Meter {
    cost: u64,
    limit: u64,
    work: u64,
}

impl Meter {
    pub fn new(limit: u64) -> Self {
        Self { cost: 0, limit, work: 0 }
    }

    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// What counts against a budget: the cost, or the work where that was out of all proportion to it.
    pub fn spent(&self) -> u64 {
        self.cost.max(self.work / WORK_FACTOR)
    }

    pub fn charge(&mut self, cost: u64) -> Result<(), Fault> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Fault::CostLimit) } else { Ok(()) }
    }

    /// Takes back what an attribute read without being evaluated itself was charged.
    pub(crate) fn refund(&mut self, cost: u64) {
        self.cost = self.cost.saturating_sub(cost);
    }

    pub fn work(&mut self, steps: usize) -> Result<(), Fault> {
        self.work = self.work.saturating_add(steps as u64);
        if self.work > self.limit.saturating_mul(WORK_FACTOR) { Err(Fault::CostLimit) } else { Ok(()) }
    }

    /// Called before a text of `held` bytes takes more.
    pub fn grow(&mut self, held: usize, more: usize) -> Result<(), Fault> {
        if held.saturating_add(more) > MAX_TEXT {
            return Err(Fault::CostLimit);
        }
        self.work(more / 8)
    }

    /// Called before a text of that many bytes is made.
    pub fn text(&mut self, bytes: usize) -> Result<(), Fault> {
        self.grow(0, bytes)
    }
}
