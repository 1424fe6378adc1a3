//! `batch/v1`.

mod job;

use super::Kind;

pub fn kinds() -> Vec<Kind> {
    vec![job::kind()]
}
