//! The options of the audit, named as kube-apiserver names them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// When an event is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuditMode {
    /// Later, together with others
    Batch,
    /// Before the answer
    Blocking,
    /// Before the answer; a request whose beginning cannot be kept is refused
    BlockingStrict,
}

/// Who asked for what: off unless a place for the events is named.
#[derive(Args, Clone, Debug)]
pub struct AuditOptions {
    /// A Policy of audit.k8s.io/v1 [default: who did what to which object, never what was in it]
    #[arg(long, value_name = "FILE", help_heading = "Audit")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where events are written, one a line; `-` is the standard output
    #[arg(long, value_name = "FILE", help_heading = "Audit")]
    pub audit_log_path: Option<PathBuf>,
    /// A file of so many megabytes is set aside; 0 means 100
    #[arg(long, value_name = "MEGABYTES", default_value_t = 0, help_heading = "Audit")]
    pub audit_log_maxsize: u64,
    /// Files that were set aside so many days ago are deleted; 0 means never
    #[arg(long, value_name = "DAYS", default_value_t = 0, help_heading = "Audit")]
    pub audit_log_maxage: u32,
    /// So many files that were set aside are kept; 0 means all
    #[arg(long, value_name = "FILES", default_value_t = 0, help_heading = "Audit")]
    pub audit_log_maxbackup: u32,
    /// Files that are set aside are compressed with gzip
    #[arg(long, help_heading = "Audit")]
    pub audit_log_compress: bool,
    /// Whether a request waits until its event is kept
    #[arg(long, value_name = "MODE", value_enum, default_value_t = AuditMode::Blocking, help_heading = "Audit")]
    pub audit_log_mode: AuditMode,
    /// With --audit-log-mode batch: events that wait; more are dropped, and counted in `apiserver_audit_error_total`
    #[arg(long, value_name = "EVENTS", default_value_t = 10_000, help_heading = "Audit")]
    pub audit_log_batch_buffer_size: usize,
    /// With --audit-log-mode batch: events that are sent together
    #[arg(long, value_name = "EVENTS", default_value_t = 1, help_heading = "Audit")]
    pub audit_log_batch_max_size: usize,
    /// With --audit-log-mode batch: how long the first of them waits for the others
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, help_heading = "Audit")]
    pub audit_log_batch_max_wait: Duration,
    /// Larger events lose the objects in them
    #[arg(long, help_heading = "Audit")]
    pub audit_log_truncate_enabled: bool,
    #[arg(long, value_name = "BYTES", default_value_t = 102_400, help_heading = "Audit")]
    pub audit_log_truncate_max_event_size: usize,
    #[arg(long, value_name = "BYTES", default_value_t = 10_485_760, help_heading = "Audit")]
    pub audit_log_truncate_max_batch_size: usize,
    /// A kubeconfig that says which service gets events
    #[arg(long, value_name = "FILE", help_heading = "Audit")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// The wait before a second try; it grows
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = "Audit")]
    pub audit_webhook_initial_backoff: Duration,
    /// Whether a request waits until its event is kept
    #[arg(long, value_name = "MODE", value_enum, default_value_t = AuditMode::Batch, help_heading = "Audit")]
    pub audit_webhook_mode: AuditMode,
    /// With --audit-webhook-mode batch: events that wait; more are dropped, and counted in `apiserver_audit_error_total`
    #[arg(long, value_name = "EVENTS", default_value_t = 10_000, help_heading = "Audit")]
    pub audit_webhook_batch_buffer_size: usize,
    /// With --audit-webhook-mode batch: events that are sent together
    #[arg(long, value_name = "EVENTS", default_value_t = 400, help_heading = "Audit")]
    pub audit_webhook_batch_max_size: usize,
    /// With --audit-webhook-mode batch: how long the first of them waits for the others
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "Audit")]
    pub audit_webhook_batch_max_wait: Duration,
    /// Batches a second; --audit-webhook-batch-throttle-burst may come at once
    #[arg(long, value_name = "RATE", default_value_t = 10.0, help_heading = "Audit")]
    pub audit_webhook_batch_throttle_qps: f64,
    #[arg(long, value_name = "BATCHES", default_value_t = 15, help_heading = "Audit")]
    pub audit_webhook_batch_throttle_burst: u32,
    /// Larger events lose the objects in them
    #[arg(long, help_heading = "Audit")]
    pub audit_webhook_truncate_enabled: bool,
    #[arg(long, value_name = "BYTES", default_value_t = 102_400, help_heading = "Audit")]
    pub audit_webhook_truncate_max_event_size: usize,
    #[arg(long, value_name = "BYTES", default_value_t = 10_485_760, help_heading = "Audit")]
    pub audit_webhook_truncate_max_batch_size: usize,
}

/// A time such as `10s`, `1.5s` or `100ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 10s, 2m or 100ms");
    let parts = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, unit) =
        parts.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit))).ok_or_else(wrong)?;
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, milliseconds) in
            [("10s", 10_000), ("100ms", 100), ("2m", 120_000), ("1.5s", 1500), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "10", "-1s", "s", "1d", "NaNs", "1e300h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
