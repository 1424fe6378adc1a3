//! What the API server keeps of requests, as the options say.

use std::time::Duration;

use apiserver::audit::{Feed, Hook, Log, Mode, Rotation, Settings};
use front::{AuditMode, AuditOptions};

pub fn settings(options: &AuditOptions) -> Settings {
    let log = options.audit_log_path.clone().map(|path| Log {
        path,
        rotation: Rotation {
            max_megabytes: options.audit_log_maxsize,
            max_days: options.audit_log_maxage,
            max_backups: options.audit_log_maxbackup,
            compress: options.audit_log_compress,
        },
        feed: Feed {
            mode: mode(options.audit_log_mode),
            buffer: options.audit_log_batch_buffer_size,
            batch_events: options.audit_log_batch_max_size.max(1),
            batch_wait: options.audit_log_batch_max_wait,
            event_max_bytes: options
                .audit_log_truncate_enabled
                .then_some(options.audit_log_truncate_max_event_size),
            batch_max_bytes: options.audit_log_truncate_max_batch_size,
            ..Feed::for_log()
        },
    });
    let webhook = options.audit_webhook_config_file.clone().map(|config_file| Hook {
        config_file,
        initial_backoff: options.audit_webhook_initial_backoff.max(Duration::from_millis(1)),
        feed: Feed {
            mode: mode(options.audit_webhook_mode),
            buffer: options.audit_webhook_batch_buffer_size,
            batch_events: options.audit_webhook_batch_max_size.max(1),
            batch_wait: options.audit_webhook_batch_max_wait,
            throttle: Some((
                options.audit_webhook_batch_throttle_qps,
                options.audit_webhook_batch_throttle_burst,
            )),
            event_max_bytes: options
                .audit_webhook_truncate_enabled
                .then_some(options.audit_webhook_truncate_max_event_size),
            batch_max_bytes: options.audit_webhook_truncate_max_batch_size,
        },
    });
    Settings { policy_file: options.audit_policy_file.clone(), log, webhook }
}

fn mode(mode: AuditMode) -> Mode {
    match mode {
        AuditMode::Batch => Mode::Batch,
        AuditMode::Blocking => Mode::Blocking,
        AuditMode::BlockingStrict => Mode::BlockingStrict,
    }
}
