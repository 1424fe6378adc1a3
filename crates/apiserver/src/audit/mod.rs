//! Audit: who asked for what and how it ended, by a policy, as events of `audit.k8s.io/v1` in a file or for another
//! service. Requests of components in this process are audited like any. Where neither place is named nothing of this
//! runs. How it is told what happens is in [`trail`].

mod event;
mod file;
mod latency;
pub(crate) mod policy;
mod sink;
mod trail;
mod webhook;

use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::auth::Identity;
use crate::auth::rbac::Attributes;
use crate::{ApiServer, Server};
pub use file::Rotation;
pub(crate) use latency::Layer;
pub(crate) use policy::Level;
use policy::{Decision, LEVELS, Policy};
use sink::{Counters, Place, Sink};
pub use sink::{Feed, Mode};
pub(crate) use trail::{
    Trail, annotate, annotate_from, decided, impersonated, keeps_answer, received, request_object, timed,
    within,
};

/// Who holds the connection that a request came by.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// What the server is told about audit. The parts are named as kube-apiserver's options name them.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--audit-policy-file`; without it what was asked for is kept, but never what was in it.
    pub policy_file: Option<PathBuf>,
    /// `--audit-log-path` and its companions
    pub log: Option<Log>,
    /// `--audit-webhook-config-file` and its companions
    pub webhook: Option<Hook>,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub path: PathBuf,
    pub rotation: Rotation,
    pub feed: Feed,
}

#[derive(Clone, Debug)]
pub struct Hook {
    pub config_file: PathBuf,
    pub initial_backoff: Duration,
    pub feed: Feed,
}

impl Feed {
    /// A file is written at once.
    pub fn for_log() -> Self {
        Self {
            mode: Mode::Blocking,
            buffer: 10_000,
            batch_events: 1,
            batch_wait: Duration::ZERO,
            throttle: None,
            event_max_bytes: None,
            batch_max_bytes: 10 << 20,
        }
    }

    /// A service gets events together.
    pub fn for_webhook() -> Self {
        Self {
            mode: Mode::Batch,
            batch_events: 400,
            batch_wait: Duration::from_secs(30),
            throttle: Some((10.0, 15)),
            ..Self::for_log()
        }
    }
}

pub struct Audit {
    policy: Policy,
    sinks: Vec<Sink>,
    counters: Arc<Counters>,
    webhook: Option<Arc<webhook::Link>>,
}

impl Audit {
    /// Nothing where no place for events is named.
    pub fn open(settings: &Settings) -> Result<Option<Arc<Self>>, String> {
        if settings.log.is_none() && settings.webhook.is_none() {
            return match &settings.policy_file {
                Some(_) => Err("a policy without a place for the events: name --audit-log-path or \
                                --audit-webhook-config-file"
                    .into()),
                None => Ok(None),
            };
        }
        let policy = match &settings.policy_file {
            None => Policy::unsaid(),
            Some(path) => {
                let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
                let text = std::fs::read_to_string(path).map_err(|e| named(&e))?;
                Policy::parse(&text).map_err(|e| named(&e))?
            }
        };
        let counters = Arc::<Counters>::default();
        let mut sinks = Vec::new();
        if let Some(log) = &settings.log {
            let output = file::Output::open(&log.path, log.rotation)
                .map_err(|error| format!("{}: {error}", log.path.display()))?;
            sinks.push(Sink::new(Place::File(Mutex::new(output)), log.feed, Arc::clone(&counters)));
        }
        let mut link = None;
        if let Some(hook) = &settings.webhook {
            let webhook = webhook::Webhook::open(&hook.config_file, hook.initial_backoff)?;
            link = Some(Arc::clone(&webhook.server));
            sinks.push(Sink::new(Place::Webhook(webhook), hook.feed, Arc::clone(&counters)));
        }
        Ok(Some(Arc::new(Self { policy, sinks, counters, webhook: link })))
    }

    /// Through whom the service is reached.
    pub fn attach(&self, server: &Arc<Server>) {
        if let Some(link) = &self.webhook {
            link.get_or_init(|| Arc::downgrade(server));
        }
    }

    fn decide(&self, who: Option<&Identity>, what: &Attributes) -> Decision {
        let decision = self.policy.decide(who, what);
        self.counters.levels[decision.level as usize].fetch_add(1, Ordering::Relaxed);
        decision
    }

    fn is_strict(&self) -> bool {
        self.sinks.iter().any(Sink::is_strict)
    }

    fn rejected(&self) {
        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether every place has the event, or will.
    async fn take(&self, line: Bytes) -> bool {
        self.counters.events.fetch_add(1, Ordering::Relaxed);
        let mut all = true;
        for sink in &self.sinks {
            all &= sink.take(line.clone()).await;
        }
        all
    }

    pub fn write_metrics(&self, out: &mut String) -> std::fmt::Result {
        let head = |out: &mut String, name: &str, help: &str| {
            writeln!(out, "# HELP {name} [ALPHA] {help}\n# TYPE {name} counter")
        };
        let name = "apiserver_audit_event_total";
        head(out, name, "Counter of audit events generated and sent to the audit backend.")?;
        writeln!(out, "{name} {}", self.counters.events.load(Ordering::Relaxed))?;
        let name = "apiserver_audit_error_total";
        let help = "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.";
        head(out, name, help)?;
        for (plugin, lost) in self.counters.lost() {
            writeln!(out, "{name}{{plugin=\"{plugin}\"}} {}", lost.load(Ordering::Relaxed))?;
        }
        let name = "apiserver_audit_level_total";
        head(out, name, "Counter of policy levels for audit events (1 per request).")?;
        for (level, shown) in LEVELS {
            let count = self.counters.levels[level as usize].load(Ordering::Relaxed);
            writeln!(out, "{name}{{level=\"{shown}\"}} {count}")?;
        }
        let name = "apiserver_audit_requests_rejected_total";
        let help = "Counter of apiserver requests rejected due to an error in audit logging backend.";
        head(out, name, help)?;
        writeln!(out, "{name} {}", self.counters.rejected.load(Ordering::Relaxed))
    }
}

impl ApiServer {
    /// Waits until the events that there are have been delivered, or given up: before the process ends.
    pub async fn flush_audit(&self) {
        for sink in self.0.audit.iter().flat_map(|audit| &audit.sinks) {
            sink.flush().await;
        }
    }
}
