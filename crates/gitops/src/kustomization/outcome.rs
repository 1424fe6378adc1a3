//! What came of a reconciliation, as the status tells it: conditions, history, and when to look again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base::constants::annotations::RECONCILE_REQUESTED_AT;
use client::{Key, Level, Next};

use super::{Kustomizations, interval, retry_interval};
use crate::cluster::ClusterError;
use crate::conditions::{self, HEALTHY, READY, RECONCILING};
use crate::duration;
use crate::kustomize::BuildError;
use crate::types::{Kustomization, KustomizationStatus, Snapshot};

/// How often health is looked at while it is being waited for.
const HEALTH_PERIOD: Duration = Duration::from_millis(250);
const HISTORY_LIMIT: usize = 5;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The source has nothing to apply yet.
    #[error("Source artifact not found, retrying in {}", duration::show(*.0))]
    NoArtifact(Duration),
    #[error("Source '{0}' not found")]
    NoSource(String),
    #[error("spec.{0} is not supported here; nothing was applied")]
    Unsupported(&'static str),
    #[error("dependency '{0}' is not ready")]
    Dependency(String),
    #[error(
        "namespace '{namespace}' is being deleted; what belongs into it is applied when it is gone{held}"
    )]
    Terminating { namespace: String, held: String, pause: Duration },
    #[error("kustomize build failed: {0}")]
    Build(#[from] BuildError),
    #[error("post build failed: {0}")]
    PostBuild(String),
    #[error("{0}")]
    Apply(String),
    #[error("the inventory cannot be written: {0}")]
    Inventory(kube::Error),
    #[error("pruning failed: {0}")]
    Prune(ClusterError),
    #[error("health check failed: {0}")]
    Health(String),
    #[error("health check failed after {}: timeout waiting for: [{what}]", duration::show(*.timeout))]
    Late { timeout: Duration, what: String },
}

impl Failure {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoArtifact(_) | Self::NoSource(_) => "ArtifactFailed",
            Self::Unsupported(_) => "InvalidSpec",
            Self::Dependency(_) | Self::Terminating { .. } => "DependencyNotReady",
            Self::Build(_) | Self::PostBuild(_) => "BuildFailed",
            Self::Apply(_) | Self::Inventory(_) => "ReconciliationFailed",
            Self::Prune(_) => "PruneFailed",
            Self::Health(_) | Self::Late { .. } => "HealthCheckFailed",
        }
    }
}

/// How far a reconciliation came.
pub(super) enum Done {
    Ready,
    /// Applied; what is not healthy yet.
    Waiting(String),
}

impl Kustomizations {
    /// Puts the result into the status and says when to look again.
    pub(super) fn settle(
        &self,
        key: &Key,
        object: &Kustomization,
        revision: &str,
        started: Instant,
        result: Result<Done, Failure>,
        status: &mut KustomizationStatus,
    ) -> Next {
        let generation = object.metadata.generation;
        let spec = &object.spec;
        let annotations = object.metadata.annotations.as_ref();
        let requested = annotations.and_then(|a| a.get(RECONCILE_REQUESTED_AT)).cloned();
        let checks = spec.wait == Some(true) || !spec.health_checks.is_empty();
        match result {
            Ok(Done::Ready) => {
                let new = status.last_applied_revision.as_deref() != Some(revision)
                    || !conditions::is_true(&status.conditions, READY);
                status.last_applied_revision = Some(revision.to_owned());
                status.observed_generation = generation;
                status.last_handled_reconcile_at = requested;
                let message = format!("Applied revision: {revision}");
                conditions::remove(&mut status.conditions, RECONCILING);
                conditions::set(
                    &mut status.conditions,
                    READY,
                    "True",
                    "ReconciliationSucceeded",
                    &message,
                    generation,
                );
                if checks {
                    conditions::set(
                        &mut status.conditions,
                        HEALTHY,
                        "True",
                        "Succeeded",
                        "Health check passed",
                        generation,
                    );
                }
                if new {
                    remember(status, revision, started, "ReconciliationSucceeded");
                    let text = format!(
                        "Reconciliation finished in {} ms, {}",
                        started.elapsed().as_millis(),
                        message.to_lowercase()
                    );
                    self.recorder.record(object, Level::Normal, "ReconciliationSucceeded", text);
                }
                Next::After(interval(spec))
            }
            Ok(Done::Waiting(what)) => {
                status.observed_generation = generation;
                let message = format!("Running health checks for revision {revision}: {what}");
                conditions::set(
                    &mut status.conditions,
                    RECONCILING,
                    "True",
                    "Progressing",
                    &message,
                    generation,
                );
                conditions::set(
                    &mut status.conditions,
                    READY,
                    "Unknown",
                    "Progressing",
                    &message,
                    generation,
                );
                conditions::set(&mut status.conditions, HEALTHY, "Unknown", "Progressing", &what, generation);
                Next::After(HEALTH_PERIOD)
            }
            Err(failure) => {
                let (reason, message) = (failure.reason(), failure.to_string());
                self.waiting.lock().remove(key);
                status.observed_generation = generation;
                status.last_handled_reconcile_at = requested;
                conditions::remove(&mut status.conditions, RECONCILING);
                let known = status
                    .conditions
                    .iter()
                    .any(|c| c.type_ == READY && c.reason == reason && c.message == message);
                conditions::set(&mut status.conditions, READY, "False", reason, &message, generation);
                if matches!(failure, Failure::Health(_) | Failure::Late { .. }) {
                    conditions::set(&mut status.conditions, HEALTHY, "False", reason, &message, generation);
                }
                if !known {
                    remember(status, revision, started, reason);
                    self.recorder.record(object, Level::Warning, reason, message);
                }
                match failure {
                    // Told when it changes.
                    Failure::Dependency(_) => Next::OnChange,
                    Failure::Terminating { pause, .. } => Next::After(pause),
                    _ => Next::After(retry_interval(spec)),
                }
            }
        }
    }
}

/// Adds to the history: one entry a revision, newest first.
fn remember(status: &mut KustomizationStatus, revision: &str, started: Instant, outcome: &str) {
    // Where there is no source, nothing was tried.
    if revision.is_empty() {
        return;
    }
    let now = base::time::rfc3339_seconds(base::time::now());
    let digest = format!("sha256:{}", base::id::sha256_hex(revision.as_bytes()));
    // An earlier version wrote the sum alone.
    let is_it =
        |s: &Snapshot| s.digest == digest || digest.strip_prefix("sha256:") == Some(s.digest.as_str());
    let old = status.history.iter().position(is_it).map(|at| status.history.remove(at));
    let first = old.as_ref().map_or_else(|| now.clone(), |o| o.first_reconciled.clone());
    status.history.insert(
        0,
        Snapshot {
            digest,
            first_reconciled: first,
            last_reconciled: now,
            last_reconciled_duration: format!("{}ms", started.elapsed().as_millis()),
            last_reconciled_status: outcome.to_owned(),
            total_reconciliations: old.map_or(0, |o| o.total_reconciliations) + 1,
            metadata: BTreeMap::from([("revision".to_owned(), revision.to_owned())]),
        },
    );
    status.history.truncate(HISTORY_LIMIT);
}
