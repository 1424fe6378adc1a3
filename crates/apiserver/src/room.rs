//! Room in memory for what is large. A body of a few letters an element is many times as large once it is decoded, and so is an
//! object that is stored so; a request has several trees of it at once. How many requests there may be says nothing of
//! that: so what weighs much has a place before it is decoded, and keeps it until its request is answered.
//!
//! Those of middling weight and the heavy have places apart, so that ordinary large objects do not wait behind what was made to
//! be as heavy as may be; what is stored has others than bodies, since whoever has a place for a body may need one for the
//! object that it changes, and nobody may wait for a place while others wait for theirs. Who waits too long is told to come back.
//!
//! What keeps the cluster going has room of its own, and so have nodes: clients that fill theirs hold up neither.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api::status::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::{Identity, node};

/// What weighs less needs no place: requests are few enough for that.
const FREE_BYTES: usize = 256 << 10;
/// From here on something is heavy.
const HEAVY_BYTES: usize = 8 << 20;
/// What there is room for at once, of bodies and of stored objects, of middling and of heavy ones.
const ROOM_BYTES: usize = 256 << 20;
/// As much for each of those that have their own: as much as one request may come to, or many that are smaller.
const OWN_ROOM_BYTES: usize = 64 << 20;
/// Places are given in steps of this.
const STEP_BYTES: usize = 64 << 10;
/// How long a request waits for a place, and then stays away.
const WAIT: Duration = Duration::from_secs(5);
const RETRY_AFTER_SECONDS: i32 = 1;

/// What something is that needs a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Body,
    Stored,
}

/// Whose room it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Clients,
    /// The cluster's own components, whose names nobody else can have.
    Components,
    /// One that was broken into may fill the room of nodes.
    Nodes,
}

impl Whose {
    pub fn of(who: &Identity) -> Self {
        let component = who.username.strip_prefix("system:").filter(|name| {
            let account = name.strip_prefix("serviceaccount:");
            account.map_or(*name != "anonymous", |account| account.starts_with("kube-system:"))
        });
        match component {
            _ if node::name_of(who).is_some() => Self::Nodes,
            Some(_) => Self::Components,
            None => Self::Clients,
        }
    }
}

/// The places of a process.
struct Room {
    /// Middling and heavy, for bodies and for what is stored.
    places: [[Arc<Semaphore>; 2]; 2],
    room_bytes: usize,
    wait: Duration,
}

static ROOMS: LazyLock<[Room; 3]> =
    LazyLock::new(|| [ROOM_BYTES, OWN_ROOM_BYTES, OWN_ROOM_BYTES].map(|bytes| Room::new(bytes, WAIT)));

/// The places that a request has; they are given back with it.
pub struct Places {
    whose: Whose,
    held: [Vec<OwnedSemaphorePermit>; 2],
    weight: [usize; 2],
}

impl Places {
    pub fn of(whose: Whose) -> Self {
        Self { whose, held: Default::default(), weight: Default::default() }
    }
}

impl Room {
    fn new(room_bytes: usize, wait: Duration) -> Self {
        let steps = || Arc::new(Semaphore::new(room_bytes / STEP_BYTES));
        let pair = || [steps(), steps()];
        Self { places: [pair(), pair()], room_bytes, wait }
    }

    /// A place for so much, for whoever has none of that sort or does not have it all: who has one already does not wait
    /// for another.
    async fn place(
        &self,
        what: What,
        weight: usize,
        has_one: bool,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        let places = &self.places[what as usize][usize::from(weight >= HEAVY_BYTES)];
        let steps = u32::try_from(weight.min(self.room_bytes).div_ceil(STEP_BYTES)).unwrap_or(u32::MAX);
        let taking = Arc::clone(places).acquire_many_owned(steps);
        let wait = if has_one { Duration::ZERO } else { self.wait };
        match tokio::time::timeout(wait, taking).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(ApiError::too_many_requests(
                "Too many large objects are being worked on, please try again later.",
                RETRY_AFTER_SECONDS,
            )),
        }
    }
}

/// Has a place before so much is decoded; `places` are those of the request.
pub async fn take(places: &parking_lot::Mutex<Places>, what: What, weight: usize) -> Result<(), ApiError> {
    let (before, whose) = {
        let places = places.lock();
        (places.weight[what as usize], places.whose)
    };
    // The same object is often looked at more than once.
    if weight < FREE_BYTES || weight <= before {
        return Ok(());
    }
    let place = ROOMS[whose as usize].place(what, weight - before, before > 0).await?;
    let mut places = places.lock();
    places.weight[what as usize] = weight;
    places.held[what as usize].push(place);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_is_room_for_so_much_and_then_one_waits() {
        let wait = Duration::from_millis(50);
        let room = Room::new(ROOM_BYTES, wait);
        let heavy = 64 << 20;
        let mut held = Vec::new();
        for _ in 0..ROOM_BYTES / heavy {
            held.push(room.place(What::Body, heavy, false).await.expect("room"));
        }
        let since = tokio::time::Instant::now();
        let refused = room.place(What::Body, HEAVY_BYTES, false).await.expect_err("no room");
        assert_eq!((refused.code, since.elapsed() >= wait), (429, true));
        assert_eq!(refused.details.and_then(|d| d.retry_after_seconds), Some(RETRY_AFTER_SECONDS));
        // Neither what is lighter nor what is stored waits behind them.
        let lighter = room.place(What::Body, HEAVY_BYTES - 1, false).await;
        let stored = room.place(What::Stored, heavy, false).await;
        assert!(lighter.is_ok() && stored.is_ok());
        // Who has one already waits for none, or two such would wait for each other.
        let room = Room { wait: Duration::MAX, ..room };
        assert!(room.place(What::Body, heavy, true).await.is_err());
        held.pop();
        assert!(room.place(What::Body, heavy, true).await.is_ok());
    }

    #[tokio::test]
    async fn who_fills_their_room_fills_nobody_elses() {
        let of = |name: &str, groups: &[&str]| Whose::of(&Identity::new(name, groups));
        for (whose, name, groups) in [
            (Whose::Components, "system:kube-controller-manager", vec![]),
            (Whose::Components, "system:apiserver", vec!["system:masters"]),
            (Whose::Components, "system:serviceaccount:kube-system:replicaset-controller", vec![]),
            (Whose::Nodes, "system:node:a", vec!["system:nodes"]),
            (Whose::Clients, "system:serviceaccount:kube-system-not:a", vec![]),
            (Whose::Clients, "system:serviceaccount:default:default", vec![]),
            (Whose::Clients, "system:anonymous", vec![]),
            (Whose::Clients, "root", vec!["system:masters"]),
        ] {
            assert_eq!(of(name, &groups), whose, "{name}");
        }
        let heavy = ROOM_BYTES / 4;
        let clients = &ROOMS[Whose::Clients as usize];
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(clients.place(What::Body, heavy, false).await.expect("room"));
        }
        let taking = async |whose| {
            let places = parking_lot::Mutex::new(Places::of(whose));
            tokio::time::timeout(Duration::from_millis(200), take(&places, What::Body, heavy)).await.is_ok()
        };
        assert!(!taking(Whose::Clients).await);
        assert!(taking(Whose::Components).await && taking(Whose::Nodes).await);
    }

    #[tokio::test]
    async fn a_request_has_one_place_for_what_it_looks_at_again() {
        let places = parking_lot::Mutex::new(Places::of(Whose::Clients));
        for (weight, count) in
            [(1, 0), (FREE_BYTES, 1), (FREE_BYTES, 1), (2 * FREE_BYTES, 2), (FREE_BYTES, 2)]
        {
            take(&places, What::Stored, weight).await.expect("room");
            assert_eq!(places.lock().held[What::Stored as usize].len(), count, "{weight}");
        }
        let steps: usize = places.lock().held[1].iter().map(OwnedSemaphorePermit::num_permits).sum();
        assert_eq!(steps * STEP_BYTES, 2 * FREE_BYTES);
    }
}
