//! An application's way through the engine: what its objects say until what was asked for is done. Each run carries a
//! token, so that what an earlier one has left in the status is not taken for news.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{anyhow, bail};
use futures::StreamExt;
use gitops::inventory::Id;
use gitops::types::{GitRepository, Kustomization, KustomizationStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

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
    result.unwrap_or_else(|_| Err(anyhow!("it was not done in time; give it longer with --timeout")))
}

impl Application<'_> {
    fn config(&self) -> watcher::Config {
        watcher::Config::default().fields(&format!("metadata.name={}", self.name))
    }

    /// Until the source has been looked at anew; the revision it is at.
    pub async fn fetched(&self, step: &mut Step) -> anyhow::Result<String> {
        let api: Api<GitRepository> = Api::namespaced(self.client.clone(), self.namespace);
        let mut objects = std::pin::pin!(watcher(api, self.config()).applied_objects());
        while let Some(object) = objects.next().await {
            let Ok(object) = object else { continue };
            if object.spec.suspend == Some(true) {
                bail!("{}", suspended("GitRepository", self.name, self.namespace));
            }
            let Some(status) = object.status else { continue };
            let Some(condition) = ready(&status.conditions) else { continue };
            if status.last_handled_reconcile_at.as_deref() != Some(self.token) {
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

    /// Until all is applied and healthy. What is said meanwhile names the pod that holds it up, if one does.
    pub async fn applied(&self, step: &mut Step) -> anyhow::Result<()> {
        let api: Api<Kustomization> = Api::namespaced(self.client.clone(), self.namespace);
        let mut objects = std::pin::pin!(watcher(api, self.config()).applied_objects());
        let mut troubles = std::pin::pin!(troubles::of_pods(self.client));
        let (mut said, mut own) = (String::new(), BTreeSet::new());
        let mut trouble: Troubles = BTreeMap::new();
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
                    let Some(condition) = ready(&status.conditions) else { continue };
                    let handled = status.last_handled_reconcile_at.as_deref() == Some(self.token);
                    match condition.status.as_str() {
                        "True" if handled => return Ok(()),
                        "False" if handled && !PASSING.contains(&condition.reason.as_str()) => {
                            bail!("{}: {}", condition.reason, condition.message);
                        }
                        "Unknown" | "False" => said = waiting(&condition.message),
                        _ => {}
                    }
                }
                Some(changed) = troubles.next() => trouble = changed,
            }
            // Pods of others are none of its business.
            match trouble.iter().find(|((namespace, _), _)| own.contains(namespace)) {
                Some(((namespace, pod), why)) => step.say(&format!("pod {namespace}/{pod}: {why}")),
                None => step.say(&said),
            }
        }
    }
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

fn suspended(kind: &str, name: &str, namespace: &str) -> String {
    format!(
        "the {kind} {name} is suspended, so nothing is done until its `spec.suspend` is taken away, as with\nkubectl patch {} {name} -n {namespace} --type \
         merge -p '{{\"spec\":{{\"suspend\":null}}}}'",
        kind.to_lowercase()
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
    use super::waiting;

    #[test]
    fn the_wait_is_told_in_few_words() {
        let long = "Running health checks for revision main@sha1:01: Deployment/shop/web status: 'InProgress': 1 of 2 replicas are available";
        assert_eq!(waiting(long), "Deployment/shop/web: 1 of 2 replicas are available");
        assert_eq!(waiting("other"), "other");
    }
}
