//! Pods that wait for a node: those to try now, those to try in a moment, and those that wait until something
//! happens that could help them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use crate::filters::Plugin;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LAST: Duration = Duration::from_secs(10);
/// Nothing waits longer than this without being tried, should an event have been missed.
const PATIENCE: Duration = Duration::from_secs(300);

/// What can help a pod that found no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    NodeAdded,
    NodeChanged,
    /// A pod that had a node is gone or has ended.
    PodRemoved,
    /// A pod got a node, or its labels changed.
    PodPlaced,
    VolumeChanged,
}

fn helps(plugin: Plugin, happening: Happening) -> bool {
    match happening {
        Happening::NodeAdded | Happening::NodeChanged => true,
        Happening::PodRemoved => matches!(
            plugin,
            Plugin::NodeResourcesFit
                | Plugin::NodePorts
                | Plugin::InterPodAffinity
                | Plugin::PodTopologySpread
        ),
        Happening::PodPlaced => matches!(plugin, Plugin::InterPodAffinity | Plugin::PodTopologySpread),
        Happening::VolumeChanged => plugin == Plugin::VolumeBinding,
    }
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<Pod>,
    since: Instant,
    attempts: u32,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Active,
    Backoff {
        until: Instant,
    },
    Unschedulable {
        plugins: BTreeSet<Plugin>,
        ready_at: Instant,
        give_up_at: Instant,
    },
    /// In hand: being scheduled or bound. `again` if something helpful happened meanwhile.
    InHand {
        happened: Vec<Happening>,
    },
}

/// By uid.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    /// Priority (negated), arrival, uid: the first is next.
    active: BTreeSet<(i64, Instant, String)>,
}

impl Queue {
    /// A pod came or changed. A change of the pod itself may help it.
    pub fn set(&mut self, pod: Arc<Pod>, may_help: bool, now: Instant) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        match self.pods.get_mut(&uid) {
            Some(known) => {
                known.pod = pod;
                if may_help && matches!(known.state, State::Unschedulable { .. }) {
                    self.activate(&uid);
                }
            }
            None => {
                self.pods.insert(uid.clone(), Waiting { pod, since: now, attempts: 0, state: State::Active });
                self.activate(&uid);
            }
        }
    }

    pub fn remove(&mut self, uid: &str) {
        if let Some(gone) = self.pods.remove(uid) {
            self.active.remove(&rank(&gone, uid));
        }
    }

    fn activate(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.state = State::Active;
            let key = rank(waiting, uid);
            self.active.insert(key);
        }
    }

    /// The next pod to try; it stays in hand until it is removed, or handed back.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        self.wake(now);
        while let Some((_, _, uid)) = self.active.pop_first() {
            if let Some(waiting) = self.pods.get_mut(&uid).filter(|w| w.state == State::Active) {
                waiting.attempts += 1;
                waiting.state = State::InHand { happened: Vec::new() };
                return Some(Arc::clone(&waiting.pod));
            }
        }
        None
    }

    /// No node fits: wait for something that helps one of `plugins`. None named: anything helps.
    pub fn unschedulable(&mut self, uid: &str, plugins: BTreeSet<Plugin>, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let ready_at = now + backoff(waiting.attempts);
        let happened = match &mut waiting.state {
            State::InHand { happened } => std::mem::take(happened),
            _ => Vec::new(),
        };
        let helped = happened.iter().any(|h| plugins.iter().any(|p| helps(*p, *h)));
        waiting.state = match helped {
            true => State::Backoff { until: ready_at },
            false => State::Unschedulable { plugins, ready_at, give_up_at: now + PATIENCE },
        };
    }

    /// Something went wrong that has nothing to do with fitting: try again soon.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.state = State::Backoff { until: now + backoff(waiting.attempts) };
        }
    }

    /// Brings back those whom a happening may help.
    pub fn happened(&mut self, happening: Happening, now: Instant) {
        let mut ready = Vec::new();
        for (uid, waiting) in &mut self.pods {
            match &mut waiting.state {
                State::Unschedulable { plugins, ready_at, .. }
                    if plugins.is_empty() || plugins.iter().any(|p| helps(*p, happening)) =>
                {
                    if *ready_at <= now {
                        ready.push(uid.clone());
                    } else {
                        waiting.state = State::Backoff { until: *ready_at };
                    }
                }
                State::InHand { happened } if !happened.contains(&happening) => happened.push(happening),
                _ => {}
            }
        }
        ready.iter().for_each(|uid| self.activate(uid));
    }

    fn wake(&mut self, now: Instant) {
        let due = |w: &Waiting| wake_at(w).is_some_and(|at| at <= now);
        let ready: Vec<String> =
            self.pods.iter().filter(|(_, w)| due(w)).map(|(uid, _)| uid.clone()).collect();
        ready.iter().for_each(|uid| self.activate(uid));
    }

    /// When [`Queue::pop`] should be called again though nothing happens.
    pub fn next_wake(&self) -> Option<Instant> {
        self.pods.values().filter_map(wake_at).min()
    }
}

fn wake_at(waiting: &Waiting) -> Option<Instant> {
    match &waiting.state {
        State::Backoff { until } => Some(*until),
        State::Unschedulable { give_up_at, .. } => Some(*give_up_at),
        _ => None,
    }
}

fn rank(waiting: &Waiting, uid: &str) -> (i64, Instant, String) {
    let priority = waiting.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    (-i64::from(priority), waiting.since, uid.to_owned())
}

fn backoff(attempts: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(6)).min(BACKOFF_LAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).and_then(|p| p.metadata.uid.clone())
    }

    #[test]
    fn important_pods_first_then_in_order() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a").arc(), false, now);
        queue.set(pod("b").arc(), false, now + Duration::from_millis(1));
        queue.set(pod("vip").priority(5).arc(), false, now + Duration::from_millis(2));
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, now)).collect();
        assert_eq!(order, ["uid-vip", "uid-a", "uid-b"]);
    }

    #[test]
    fn only_what_helps_brings_a_pod_back_and_not_before_its_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a").arc(), false, now);
        assert!(popped(&mut queue, now).is_some());
        queue.unschedulable("uid-a", [Plugin::NodeResourcesFit].into(), now);
        queue.happened(Happening::VolumeChanged, now);
        assert_eq!(queue.next_wake(), Some(now + PATIENCE));
        queue.happened(Happening::PodRemoved, now);
        assert_eq!(popped(&mut queue, now), None);
        assert_eq!(queue.next_wake(), Some(now + BACKOFF_FIRST));
        assert!(popped(&mut queue, now + BACKOFF_FIRST).is_some());
        // What happens while it is tried is not lost.
        queue.happened(Happening::PodRemoved, now);
        queue.unschedulable("uid-a", [Plugin::NodeResourcesFit].into(), now);
        assert_eq!(queue.next_wake(), Some(now + BACKOFF_FIRST * 2));
    }
}
