//! The allocator, and when what was dropped goes back to the system: threads keep free pages for what comes next, and
//! after a burst nothing comes that would make them look at what they keep.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Objects are many small parts, made and dropped by all threads at once: with the C library's allocator a third of the time
/// of a write went there, and what was dropped seldom went back to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often a thread looks at what it keeps.
const EVERY: Duration = Duration::from_secs(5);

thread_local! {
    static TIDIED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// To be called by each thread that runs out of work: now and then it gives back the pages that it has no use for.
pub fn tidy() {
    let now = Instant::now();
    if TIDIED.get().is_some_and(|last| now.duration_since(last) < EVERY) {
        return;
    }
    TIDIED.set(Some(now));
    give_back();
}

/// Gives back what this thread and no other needs, at once: an unforced collection would leave freed pages to a delay that
/// nobody awaits. It takes less than a millisecond.
pub fn give_back() {
    // SAFETY: takes no memory of ours; it may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
