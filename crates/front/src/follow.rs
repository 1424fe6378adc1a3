//! An application's way through the engine: what its objects say until what was asked for is done. Each run carries a
//! token, so that what an earlier one has left in the status is not taken for news.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{anyhow, bail};
use futures::StreamExt;
use gitops::inventory::Id;
use gitops::types::{GitRepository, Kustomization, KustomizationStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use crate::application;
use crate::progress::Step;
use crate::troubles::{self, Troubles};

/// Reasons that pass when what is waited for comes.
const PASSING: [&str; 3] = ["ArtifactFailed", "DependencyNotReady", "Progressing"];

/// A GitRepository and a Kustomization of the same name, asked to reconcile by a token.
#[derive(Clone, Copy)]
pub struct Application<'a> {
    pub client: &'a Client,
    pub namespace: &'a str,
    pub name: &'a str,
    pub token: &'a str,
}

pub async fn in_time<T>(
    deadline: Instant,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let result = tokio::time::timeout_at(deadline.into(), work).await;
    result.unwrap_or_else(|_| Err(late("")))
}

/// Advice for what only takes its time; `explain` takes it back where something does not pass by itself.
pub const LONGER: &str = "; give it longer with --timeout";

fn late(waited_for: &str) -> anyhow::Error {
    let what = if waited_for.is_empty() { String::new() } else { format!(": {waited_for}") };
    anyhow!("it was not done in time{LONGER}{what}")
}

impl Application<'_> {
    fn config(&self) -> watcher::Config {
        watcher::Config::default().fields(&format!("metadata.name={}", self.name))
    }

    /// Until the source has been looked at anew; the revision it is at.
    pub async fn fetched(&self, step: &mut Step) -> anyhow::Result<String> {
        let api: Api<GitRepository> = Api::namespaced(self.client.clone(), self.namespace);
        let mut objects = std::pin::pin!(watcher(api, self.config()).default_backoff().applied_objects());
        while let Some(object) = objects.next().await {
            let Ok(object) = object else { continue };
            if object.spec.suspend == Some(true) {
                bail!("{}", suspended("GitRepository", self.name, self.namespace));
            }
            let Some(status) = object.status else { continue };
            let Some(condition) = ready(&status.conditions) else { continue };
            if !is_handled(status.last_handled_reconcile_at.as_deref(), self.token) {
                step.hint(&condition.message);
                continue;
            }
            match (condition.status.as_str(), status.artifact) {
                ("True", Some(artifact)) => return Ok(artifact.revision),
                ("False", _) => bail!("{}", condition.message),
                _ => step.say(&condition.message),
            }
        }
        bail!("the watch of the source ended")
    }

    /// Until all is applied and healthy. What is said meanwhile names the pod that holds it up, if one does; it is what an
    /// error tells when the time is over.
    pub async fn applied(&self, step: &mut Step, deadline: Instant) -> anyhow::Result<()> {
        let followed = tokio::time::timeout_at(deadline.into(), self.until_applied(step)).await;
        followed.unwrap_or_else(|_| Err(late(step.said())))
    }

    async fn until_applied(&self, step: &mut Step) -> anyhow::Result<()> {
        let api: Api<Kustomization> = Api::namespaced(self.client.clone(), self.namespace);
        let mut objects = std::pin::pin!(watcher(api, self.config()).default_backoff().applied_objects());
        let mut pods = std::pin::pin!(troubles::watch(self.client));
        let (mut said, mut own) = (String::new(), BTreeSet::new());
        let mut troubles = Troubles::default();
        loop {
            tokio::select! {
                object = objects.next() => {
                    let Some(object) = object else { bail!("the watch of the deployment ended") };
                    let Ok(object) = object else { continue };
                    if object.spec.suspend == Some(true) {
                        bail!("{}", suspended("Kustomization", self.name, self.namespace));
                    }
                    let Some(status) = object.status else { continue };
                    own = namespaces(&status);
                    match news(&status, self.token) {
                        News::Done => return Ok(()),
                        News::Failed(why) => bail!("{why}"),
                        News::Waits(what) => said = what,
                        News::Old => {}
                    }
                }
                Some(seen) = pods.next() => troubles.note(seen),
            }
            // Pods of others are none of its business.
            step.say(&troubles.worst(&own).unwrap_or_else(|| said.clone()));
        }
    }
}

/// What a Kustomization's status says of what was asked for.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Done,
    Failed(String),
    Waits(String),
    /// It tells of the time before.
    Old,
}

fn news(status: &KustomizationStatus, token: &str) -> News {
    let Some(condition) = ready(&status.conditions) else { return News::Old };
    let handled = is_handled(status.last_handled_reconcile_at.as_deref(), token);
    match condition.status.as_str() {
        "True" if handled => News::Done,
        "False" if handled && !PASSING.contains(&condition.reason.as_str()) => {
            News::Failed(format!("{}: {}", condition.reason, condition.message))
        }
        "False" if handled => News::Waits(condition.message.clone()),
        "Unknown" => News::Waits(waiting(&condition.message)),
        _ => News::Old,
    }
}

/// Whether what was asked for has been done. A token is the time at which it was asked: who has asked later has asked for this as
/// well, and has put their token in the place of ours.
fn is_handled(handled: Option<&str>, token: &str) -> bool {
    let Some(handled) = handled else { return false };
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    match (time(handled), time(token)) {
        (Some(handled), Some(token)) => handled >= token,
        _ => handled == token,
    }
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

fn suspended(kind: &str, name: &str, namespace: &str) -> String {
    format!(
        "the {kind} {name} is suspended, so nothing is done until its `spec.suspend` is taken away: {}",
        application::resume(namespace, name)
    )
}

/// Where an application has objects.
fn namespaces(status: &KustomizationStatus) -> BTreeSet<String> {
    let entries = status.inventory.iter().flat_map(|inventory| &inventory.entries);
    entries.filter_map(Id::parse).map(|id| id.namespace).collect()
}

/// What a person wants to know of the engine's long sentence.
pub fn waiting(message: &str) -> String {
    match message.strip_prefix("Running health checks for revision ").and_then(|rest| rest.split_once(": ")) {
        Some((_, what)) => what.replace(" status: 'InProgress'", ""),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_is_no_news() {
        let check = |ready: &str, reason: &str, handled: &str, wanted: News| {
            let condition = serde_json::json!({"type": "Ready", "status": ready, "reason": reason, "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let status = serde_json::json!({"conditions": [condition], "lastHandledReconcileAt": handled});
            let status: KustomizationStatus = serde_json::from_value(status).expect("a status");
            assert_eq!(news(&status, "now"), wanted, "{ready} {reason} {handled}");
        };
        check("True", "ReconciliationSucceeded", "now", News::Done);
        check("True", "ReconciliationSucceeded", "before", News::Old);
        check("False", "BuildFailed", "now", News::Failed("BuildFailed: m".into()));
        check("False", "BuildFailed", "before", News::Old);
        check("False", "DependencyNotReady", "now", News::Waits("m".into()));
        // Its answer comes when all is healthy.
        check("Unknown", "Progressing", "before", News::Waits("m".into()));
        assert_eq!(news(&KustomizationStatus::default(), "now"), News::Old);
    }

    #[test]
    fn who_has_asked_later_has_asked_for_all() {
        let (early, late) = ("2026-01-01T00:00:00.1Z", "2026-01-01T00:00:00.2Z");
        assert!(
            is_handled(Some(late), early) && is_handled(Some(early), early) && is_handled(Some("now"), "now")
        );
        assert!(
            !is_handled(Some(early), late) && !is_handled(None, late) && !is_handled(Some("before"), "now")
        );
    }

    #[test]
    fn the_wait_is_told_in_few_words() {
        let long = "Running health checks for revision main@sha1:01: Deployment/shop/web status: 'InProgress': 1 of 2 replicas are available";
        assert_eq!(waiting(long), "Deployment/shop/web: 1 of 2 replicas are available");
        assert_eq!(waiting("other"), "other");
    }
}
