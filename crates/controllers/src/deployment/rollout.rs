//! One step of a rollout: what each ReplicaSet's size should be now. Steps are small and safe each by itself;
//! the next is taken when the sets report what the last one did.

use super::limits::{Limits, is_recreate};
use super::sets::{Set, noted};
use base::constants::annotations;
use k8s_openapi::api::apps::v1::DeploymentSpec;

/// Sizes of the sets of a Deployment. `new` is there unless it is still to be made.
pub struct Rollout<'a> {
    pub spec: &'a DeploymentSpec,
    pub limits: Limits,
    pub new: Option<Set>,
    /// Oldest first.
    pub old: Vec<Set>,
}

impl Rollout<'_> {
    fn total_size(&self) -> i32 {
        self.old.iter().chain(&self.new).map(Set::size).sum()
    }

    /// How large the new set may be at once.
    pub fn new_size(&self) -> i32 {
        let desired = self.limits.desired;
        if is_recreate(self.spec) {
            return desired;
        }
        let (current, total) = (self.new.as_ref().map_or(0, Set::size), self.total_size());
        if total >= self.limits.total() {
            return current;
        }
        let room = self.limits.total() - total;
        current + room.min(desired - current)
    }

    /// Whether somebody scaled the Deployment since its sets were last sized.
    pub fn was_scaled(&self) -> bool {
        let mut running = self.old.iter().chain(&self.new).filter(|set| set.size() > 0);
        running.any(|set| {
            let desired = noted(&set.seen.metadata, annotations::DESIRED_REPLICAS);
            desired.is_some_and(|desired| desired != self.limits.desired)
        })
    }

    /// Moves pods from old sets to the new one. True if a size changed.
    pub fn roll(&mut self) -> bool {
        if self.resize_new() {
            return true;
        }
        self.shrink_old()
    }

    /// True if a size changed.
    pub fn resize_new(&mut self) -> bool {
        let desired = self.limits.desired;
        let Some(current) = self.new.as_ref().map(Set::size) else { return false };
        let size = if current > desired { desired } else { self.new_size() };
        let limits = self.limits;
        match &mut self.new {
            Some(new) if size != current => {
                new.resize(size, &limits);
                true
            }
            _ => false,
        }
    }

    fn shrink_old(&mut self) -> bool {
        let limits = self.limits;
        let Some(new) = &self.new else { return false };
        if self.old.iter().all(|set| set.size() == 0) {
            return false;
        }
        // Pods of the new set that do not serve yet are counted on to come: they are not a reserve.
        let new_unavailable = (new.size() - new.available()).max(0);
        let spare = self.total_size() - limits.available() - new_unavailable;
        if spare <= 0 {
            return false;
        }
        let broken = shrink(&mut self.old, spare, &limits, |set| (set.size() - set.available()).max(0));
        // Removing what does not serve costs nothing; what serves goes only while enough others serve.
        let available: i32 =
            self.old.iter().chain(&self.new).map(|set| set.available().min(set.size())).sum();
        let serving = shrink(&mut self.old, available - limits.available(), &limits, Set::size);
        broken + serving > 0
    }

    /// All old sets to nothing. True if a size changed.
    pub fn stop_old(&mut self) -> bool {
        let limits = self.limits;
        shrink(&mut self.old, i32::MAX, &limits, Set::size) > 0
    }

    /// After a change of the Deployment's size: spreads it over all sets in proportion, so that a rollout that is
    /// half done stays half done.
    pub fn scale(&mut self) {
        let limits = self.limits;
        let mut running: Vec<&mut Set> =
            self.old.iter_mut().rev().chain(&mut self.new).filter(|set| set.size() > 0).collect();
        match running.len() {
            0 => {
                if let Some(set) = self.new.as_mut().or(self.old.last_mut()) {
                    set.resize(limits.desired, &limits);
                }
                return;
            }
            1 => return running[0].resize(limits.desired, &limits),
            _ => {}
        }
        let saturated = self.new.as_ref().is_some_and(|new| {
            new.size() == limits.desired
                && noted(&new.seen.metadata, annotations::DESIRED_REPLICAS) == Some(limits.desired)
                && new.available() == limits.desired
        });
        if saturated || is_recreate(self.spec) {
            self.stop_old();
            if let Some(new) = &mut self.new {
                new.resize(limits.desired, &limits);
            }
            return;
        }
        self.scale_in_proportion();
    }

    fn scale_in_proportion(&mut self) {
        let limits = self.limits;
        let allowed = if limits.desired > 0 { limits.total() } else { 0 };
        let to_add = allowed - self.total_size();
        // Largest first, so that rounding falls on it; of equals the youngest grows and the oldest shrinks first.
        let mut running: Vec<&mut Set> =
            self.old.iter_mut().chain(&mut self.new).filter(|set| set.size() > 0).collect();
        if to_add > 0 {
            running.reverse();
        }
        running.sort_by_key(|set| std::cmp::Reverse(set.size()));
        let mut left = to_add;
        let mut sizes: Vec<i32> = Vec::with_capacity(running.len());
        for set in &running {
            let share = if to_add == 0 { 0 } else { share_of(set, allowed) };
            let share = if to_add > 0 { share.clamp(0, left.max(0)) } else { share.clamp(left.min(0), 0) };
            left -= share;
            sizes.push(set.size() + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + left).max(0);
        }
        for (set, size) in running.into_iter().zip(sizes) {
            set.resize(size.max(0), &limits);
        }
    }
}

/// By how much a set grows if it keeps its part of the whole.
fn share_of(set: &Set, allowed: i32) -> i32 {
    let before =
        noted(&set.seen.metadata, annotations::MAX_REPLICAS).filter(|max| *max > 0).unwrap_or(allowed);
    let (size, allowed, before) = (i64::from(set.size()), i64::from(allowed), i64::from(before.max(1)));
    let target = (2 * size * allowed + before) / (2 * before);
    i32::try_from(target - size).unwrap_or(0)
}

/// Takes at most `budget` pods away, oldest sets first and from each no more than `at_most` says. Returns how many.
fn shrink(sets: &mut [Set], budget: i32, limits: &Limits, at_most: impl Fn(&Set) -> i32) -> i32 {
    let mut taken = 0;
    for set in sets {
        let take = at_most(set).min(budget - taken).min(set.size());
        if take > 0 {
            set.resize(set.size() - take, limits);
            taken += take;
        }
    }
    taken
}
