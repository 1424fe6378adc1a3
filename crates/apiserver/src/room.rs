//! Room in memory for what is large. A body of a few letters an element is many times as large once it is decoded, and so is an
//! object that is stored so; a request has several trees of it at once. How many requests there may be says nothing of
//! that: so what weighs much has a place before it is decoded, and keeps it until its request is answered.
//!
//! Those of middling weight and the heavy have places apart, so that ordinary large objects do not wait behind what was made to
//! be as heavy as may be; what is stored has others than bodies, since whoever has a place for a body may need one for the
//! object that it changes, and nobody may wait for a place while others wait for theirs. Who waits too long is told to come back.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api::status::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What weighs less needs no place: requests are few enough for that.
const FREE_BYTES: usize = 256 << 10;
/// From here on something is heavy.
const HEAVY_BYTES: usize = 8 << 20;
/// What there is room for at once, of bodies and of stored objects, of middling and of heavy ones.
const ROOM_BYTES: usize = 256 << 20;
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

/// The places of a process.
struct Room {
    /// Middling and heavy, for bodies and for what is stored.
    places: [[Arc<Semaphore>; 2]; 2],
    wait: Duration,
}

static ROOM: LazyLock<Room> = LazyLock::new(|| Room::new(WAIT));

/// The places that a request has; they are given back with it.
#[derive(Default)]
pub struct Places {
    held: [Vec<OwnedSemaphorePermit>; 2],
    weight: [usize; 2],
}

impl Room {
    fn new(wait: Duration) -> Self {
        let steps = || Arc::new(Semaphore::new(ROOM_BYTES / STEP_BYTES));
        let pair = || [steps(), steps()];
        Self { places: [pair(), pair()], wait }
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
        let steps = u32::try_from(weight.min(ROOM_BYTES).div_ceil(STEP_BYTES)).unwrap_or(u32::MAX);
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
    let before = places.lock().weight[what as usize];
    // The same object is often looked at more than once.
    if weight < FREE_BYTES || weight <= before {
        return Ok(());
    }
    let place = ROOM.place(what, weight - before, before > 0).await?;
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
        let room = Room::new(wait);
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
    async fn a_request_has_one_place_for_what_it_looks_at_again() {
        let places = parking_lot::Mutex::new(Places::default());
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
