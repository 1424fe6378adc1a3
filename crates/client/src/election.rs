//! One of several servers does the work: a `Lease` says who, as client-go's leader election has it, so that everybody
//! who knows `kube-system/kube-controller-manager` sees who leads.
//!
//! Clocks of different machines are never compared: a lease has run out when it has been seen unchanged for its whole
//! duration. Who leads stops the work before others may begin it: after [`RENEW_DEADLINE`] without a renewal, which
//! is sooner than the lease's duration.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-system";
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Who stands for what.
#[derive(Clone)]
pub struct Candidate {
    pub client: Client,
    /// The lease's name.
    pub name: &'static str,
    /// Ours alone among all processes.
    pub identity: String,
}

/// A lease as it was last seen, and since when it has looked so.
#[derive(Clone, Debug, Default)]
struct Observed {
    spec: Option<LeaseSpec>,
    since: Option<Instant>,
}

impl Observed {
    fn look(&mut self, spec: Option<&LeaseSpec>, now: Instant) {
        if self.since.is_none() || self.spec.as_ref() != spec {
            (self.spec, self.since) = (spec.cloned(), Some(now));
        }
    }
}

/// What a candidate does about a lease.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// It is another's.
    Wait,
    /// Write this: the lease is ours then.
    Write(LeaseSpec),
}

fn plan(observed: &Observed, identity: &str, now: Instant, time: Timestamp) -> Step {
    let seconds = |d: Duration| i32::try_from(d.as_secs()).unwrap_or(i32::MAX);
    let stamp = Some(MicroTime(time));
    let fresh = LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(seconds(LEASE_DURATION)),
        acquire_time: stamp.clone(),
        renew_time: stamp,
        lease_transitions: Some(0),
        ..Default::default()
    };
    let Some(held) = &observed.spec else { return Step::Write(fresh) };
    let holder = held.holder_identity.as_deref().unwrap_or_default();
    let transitions = held.lease_transitions.unwrap_or(0);
    if holder == identity {
        let acquire_time = held.acquire_time.clone();
        return Step::Write(LeaseSpec { acquire_time, lease_transitions: Some(transitions), ..fresh });
    }
    let duration =
        Duration::from_secs(held.lease_duration_seconds.and_then(|s| s.try_into().ok()).unwrap_or(0));
    let unchanged = observed.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    match holder.is_empty() || unchanged >= duration {
        true => Step::Write(LeaseSpec { lease_transitions: Some(transitions + 1), ..fresh }),
        false => Step::Wait,
    }
}

impl Candidate {
    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// One look and, if it may be ours, one write; whether it is ours now.
    async fn try_to_hold(&self, observed: &mut Observed) -> Result<bool, kube::Error> {
        let api = self.api();
        let lease = api.get_opt(self.name).await?;
        observed.look(lease.as_ref().and_then(|lease| lease.spec.as_ref()), Instant::now());
        let Step::Write(spec) = plan(observed, &self.identity, Instant::now(), Timestamp::now()) else {
            return Ok(false);
        };
        let post = PostParams::default();
        let written = match lease {
            // With the version that was read: whoever was faster keeps it.
            Some(mut lease) => {
                lease.spec = Some(spec.clone());
                api.replace(self.name, &post, &lease).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.name.into()), ..Default::default() };
                api.create(&post, &Lease { metadata, spec: Some(spec.clone()) }).await
            }
        };
        match written {
            Ok(_) => {
                observed.look(Some(&spec), Instant::now());
                Ok(true)
            }
            Err(error) if crate::is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets another begin at once.
    async fn release(&self) {
        let api = self.api();
        let released = async {
            let Some(mut lease) = api.get_opt(self.name).await? else { return Ok(()) };
            let Some(spec) =
                lease.spec.as_mut().filter(|s| s.holder_identity.as_ref() == Some(&self.identity))
            else {
                return Ok(());
            };
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            api.replace(self.name, &PostParams::default(), &lease).await.map(drop)
        };
        let released: Result<Result<(), kube::Error>, _> = tokio::time::timeout(RETRY_PERIOD, released).await;
        if !matches!(released, Ok(Ok(()))) {
            tracing::debug!(lease = self.name, "the lease was not given back: it will run out");
        }
    }
}

/// Does `work` whenever the lease is ours, until `stop`. The work is given a token that tells it to end, and it is waited
/// for before the lease is tried for again.
pub async fn lead<E>(
    candidate: Candidate,
    stop: CancellationToken,
    work: impl Fn(CancellationToken) -> BoxFuture<'static, Result<(), E>>,
) -> Result<(), E> {
    let mut observed = Observed::default();
    loop {
        let Some(()) = stop.run_until_cancelled(acquire(&candidate, &mut observed)).await else {
            return Ok(());
        };
        tracing::info!(lease = candidate.name, identity = candidate.identity, "leading");
        let turn = stop.child_token();
        let mut working = std::pin::pin!(work(turn.clone()));
        let ended = tokio::select! {
            ended = &mut working => Some(ended),
            () = keep(&candidate, &mut observed) => None,
            () = stop.cancelled() => None,
        };
        turn.cancel();
        if let Some(ended) = ended {
            candidate.release().await;
            return ended;
        }
        working.await?;
        if stop.is_cancelled() {
            candidate.release().await;
            return Ok(());
        }
        tracing::warn!(lease = candidate.name, "no longer leading");
    }
}

/// Returns once the lease is ours.
async fn acquire(candidate: &Candidate, observed: &mut Observed) {
    loop {
        match candidate.try_to_hold(observed).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, lease = candidate.name, "cannot try for the lease"),
        }
        tokio::time::sleep(RETRY_PERIOD).await;
    }
}

/// Renews the lease, and returns once it may be another's.
async fn keep(candidate: &Candidate, observed: &mut Observed) {
    loop {
        let renewed = async {
            loop {
                tokio::time::sleep(RETRY_PERIOD).await;
                match candidate.try_to_hold(observed).await {
                    Ok(true) => return true,
                    Ok(false) if observed.is_of_another(&candidate.identity) => return false,
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%error, lease = candidate.name, "cannot renew the lease"),
                }
            }
        };
        if !matches!(tokio::time::timeout(RENEW_DEADLINE, renewed).await, Ok(true)) {
            return;
        }
    }
}

impl Observed {
    fn is_of_another(&self, identity: &str) -> bool {
        let holder = self.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        holder.is_some_and(|holder| holder != identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(transitions),
            ..Default::default()
        }
    }

    /// What is planned so long after the lease was seen to change; who holds it then and how often it changed hands.
    fn check(held: Option<LeaseSpec>, seconds: u64, expected: Option<(&str, i32)>) {
        let start = Instant::now();
        let mut observed = Observed::default();
        observed.look(held.as_ref(), start);
        let now = start + Duration::from_secs(seconds);
        observed.look(held.as_ref(), now);
        let planned = match plan(&observed, "me", now, Timestamp::UNIX_EPOCH) {
            Step::Wait => None,
            Step::Write(spec) => Some((spec.holder_identity, spec.lease_transitions)),
        };
        assert_eq!(planned, expected.map(|(holder, n)| (Some(holder.to_owned()), Some(n))));
    }

    #[test]
    fn leases_are_taken_kept_and_left() {
        check(None, 0, Some(("me", 0)));
        check(Some(spec("me", 3)), 99, Some(("me", 3)));
        check(Some(spec("other", 3)), 0, None);
        check(Some(spec("other", 3)), 14, None);
        check(Some(spec("other", 3)), 15, Some(("me", 4)));
        check(Some(spec("", 3)), 0, Some(("me", 4)));
    }

    #[test]
    fn a_renewal_begins_the_time_anew() {
        let start = Instant::now();
        let mut observed = Observed::default();
        for n in 0..10 {
            let renewed = LeaseSpec {
                renew_time: Some(MicroTime(Timestamp::from_second(n).expect("a time"))),
                ..spec("other", 0)
            };
            let now = start + Duration::from_secs(14 * n.unsigned_abs());
            observed.look(Some(&renewed), now);
            assert_eq!(plan(&observed, "me", now, Timestamp::UNIX_EPOCH), Step::Wait);
        }
        assert!(RENEW_DEADLINE + RETRY_PERIOD < LEASE_DURATION, "who leads stops before another begins");
    }
}
