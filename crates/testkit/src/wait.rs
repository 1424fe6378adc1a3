//! Waiting for a condition, with a deadline and with what was last seen when it passes.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Calls `look` until it gives `Ok`, at most for `limit`. The last `Err` is what the panic shows.
pub fn until<T, E: Debug>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if Instant::now() >= deadline => {
                panic!("{what}: not within {limit:?}; last seen: {last:#?}")
            }
            // Gives the processor away between two looks; what is waited for happens in other processes.
            Err(_) => std::thread::park_timeout(Duration::from_millis(25)),
        }
    }
}
