//! `batch/v1`.

mod cron_job;
mod job;
mod job_policies;
mod job_status;
mod schedule;

use super::Kind;

pub fn kinds() -> Vec<Kind> {
    vec![cron_job::kind(), job::kind()]
}
