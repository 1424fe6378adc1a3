//! The GitOps part of `up`: two objects are applied, and what the engine says of them is followed until it has done
//! what was asked. Each run carries a token, so that what an earlier one has left in the status is not taken for news.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use base::constants::annotations::RECONCILE_REQUESTED_AT;
use futures::StreamExt;
use gitops::types::{GitRepository, Kustomization};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::plan::{NAMESPACE, Plan};
use super::{pods, report};
use crate::progress::{Progress, Step};
use crate::requests;
use crate::tree::short;

const SOURCES: &str = "/apis/source.toolkit.fluxcd.io/v1/namespaces/gitops/gitrepositories";
const KUSTOMIZATIONS: &str = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/gitops/kustomizations";
const DEFINITIONS: [&str; 2] =
    ["gitrepositories.source.toolkit.fluxcd.io", "kustomizations.kustomize.toolkit.fluxcd.io"];
/// Reasons that pass when what is waited for comes.
const PASSING: [&str; 3] = ["ArtifactFailed", "DependencyNotReady", "Progressing"];
/// Between two tries at a kind that is served in a moment.
const RETRY: Duration = Duration::from_millis(50);

pub async fn run(client: &Client, plan: &Plan, progress: Progress, deadline: Instant) -> anyhow::Result<()> {
    let token = base::time::rfc3339_nanos(base::time::now());
    let mut step = progress.step(format!("Read {} of {}", plan.label(), plan.url));
    let work = async {
        definitions(client).await?;
        let annotations = json!({ RECONCILE_REQUESTED_AT: token });
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        requests::apply(client, &format!("/api/v1/namespaces/{NAMESPACE}"), &namespace, true).await?;
        apply(client, &format!("{SOURCES}/{}", plan.name), &plan.source(&annotations)?).await?;
        fetched(client, plan, &token, &mut step).await
    };
    let revision = match in_time(deadline, work).await {
        Ok(revision) => revision,
        Err(error) => {
            step.failed();
            return Err(error.context(format!("cannot read {}", plan.url)));
        }
    };
    step.done(&short(&revision));

    let mut step = progress.step(format!("Deploy {}", plan.path));
    let work = async {
        let annotations = json!({ RECONCILE_REQUESTED_AT: token });
        apply(client, &format!("{KUSTOMIZATIONS}/{}", plan.name), &plan.kustomization(&annotations)?).await?;
        applied(client, plan, &token, &mut step).await
    };
    match in_time(deadline, work).await {
        Ok(()) => step.done(""),
        Err(error) => {
            step.failed();
            return Err(report::failure(client, plan, error).await);
        }
    }
    Ok(())
}

async fn in_time<T>(deadline: Instant, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let result = tokio::time::timeout_at(deadline.into(), work).await;
    result.unwrap_or_else(|_| Err(anyhow!("it was not done in time; give it longer with --timeout")))
}

/// The engine brings its kinds along when it starts.
async fn definitions(client: &Client) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in DEFINITIONS {
        await_condition(api.clone(), name, is_crd_established()).await.context("the GitOps engine does not start")?;
    }
    Ok(())
}

/// A kind that is established may be served a moment later.
async fn apply(client: &Client, path: &str, object: &Value) -> anyhow::Result<()> {
    let served = path.rsplit_once('/').map_or(path, |(list, _)| list);
    while requests::get_optional(client, served).await?.is_none() {
        tokio::time::sleep(RETRY).await;
    }
    requests::apply(client, path, object, true).await.map(drop)
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// Until the source has been looked at anew; returns the revision it is at.
async fn fetched(client: &Client, plan: &Plan, token: &str, step: &mut Step) -> anyhow::Result<String> {
    let api: Api<GitRepository> = Api::namespaced(client.clone(), NAMESPACE);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", plan.name));
    let mut objects = std::pin::pin!(watcher(api, config).applied_objects());
    while let Some(object) = objects.next().await {
        let Some(status) = object.ok().and_then(|object| object.status) else { continue };
        let Some(condition) = ready(&status.conditions) else { continue };
        if status.last_handled_reconcile_at.as_deref() != Some(token) {
            step.hint(&condition.message);
            continue;
        }
        match (condition.status.as_str(), status.artifact) {
            ("True", Some(artifact)) => return Ok(artifact.revision),
            ("False", _) => bail!("{}", source_hint(&condition.message, plan)),
            _ => step.say(&condition.message),
        }
    }
    bail!("the watch of the source ended")
}

fn source_hint(message: &str, plan: &Plan) -> String {
    if message.contains("is not in the repository") && plan.top.as_os_str().is_empty() {
        return format!("{message}\nname another branch with --branch");
    }
    if message.contains("is not in the repository") {
        return format!("{message}\nhas anything been committed? name another branch with --branch");
    }
    message.to_owned()
}

/// Until all is applied and healthy.
async fn applied(client: &Client, plan: &Plan, token: &str, step: &mut Step) -> anyhow::Result<()> {
    let api: Api<Kustomization> = Api::namespaced(client.clone(), NAMESPACE);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", plan.name));
    let mut objects = std::pin::pin!(watcher(api, config).applied_objects());
    let mut troubles = std::pin::pin!(pods::troubles(client));
    let mut said = String::new();
    let mut trouble: BTreeMap<String, String> = BTreeMap::new();
    loop {
        tokio::select! {
            object = objects.next() => {
                let Some(object) = object else { bail!("the watch of the deployment ended") };
                let Some(status) = object.ok().and_then(|object| object.status) else { continue };
                let Some(condition) = ready(&status.conditions) else { continue };
                let handled = status.last_handled_reconcile_at.as_deref() == Some(token);
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
        match trouble.iter().next() {
            Some((pod, why)) => step.say(&format!("pod {pod}: {why}")),
            None => step.say(&said),
        }
    }
}

/// What a person wants to know of the engine's long sentence.
fn waiting(message: &str) -> String {
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
