//! SIGTERM, noticed without a library: the handler sets a flag that the server looks at between two connections.

use std::sync::atomic::{AtomicBool, Ordering};

static ENDING: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
}

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

extern "C" fn note(_number: i32) {
    ENDING.store(true, Ordering::SeqCst);
}

/// Has SIGTERM and SIGINT end the server in order.
pub fn listen() {
    for number in [SIGTERM, SIGINT] {
        // SAFETY: the handler only stores to an atomic, which is allowed at any moment.
        unsafe { signal(number, note) };
    }
}

pub fn ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}
