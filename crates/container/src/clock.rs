//! Wall-clock time in the unit statuses and events carry it.

/// Nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    i64::try_from(base::time::now().as_nanosecond()).unwrap_or(i64::MAX)
}
