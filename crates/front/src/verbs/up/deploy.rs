//! The GitOps part of `up`: two objects are applied, and what the engine says of them is followed until it has done
//! what was asked.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base::constants::annotations::RECONCILE_REQUESTED_AT;
use base::layout::Layout;
use gitops::types::GitReference;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::folder::{self, Fault};
use super::hints;
use super::plan::{NAMESPACE, Plan};
use crate::follow::{Application, in_time};
use crate::progress::{Progress, Step};
use crate::tree::short;
use crate::{explain, requests};

const SOURCES: &str = "/apis/source.toolkit.fluxcd.io/v1/namespaces/gitops/gitrepositories";
const KUSTOMIZATIONS: &str = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/gitops/kustomizations";
const DEFINITIONS: [&str; 2] =
    ["gitrepositories.source.toolkit.fluxcd.io", "kustomizations.kustomize.toolkit.fluxcd.io"];
/// Between two tries at a kind that is served in a moment.
const RETRY: Duration = Duration::from_millis(50);

/// The application as it was before.
pub struct Before {
    source: Option<Value>,
    kustomization: Option<Value>,
}

/// What there is; an error if the name stands for another repository so far, whose application would go, or if one that
/// runs would be turned to a folder that nothing comes of.
pub async fn check(client: &Client, plan: &Plan, layout: &Layout) -> anyhow::Result<Before> {
    let source = requests::get_optional(client, &format!("{SOURCES}/{}", plan.name)).await?;
    let url = source.as_ref().and_then(|source| source["spec"]["url"].as_str()).unwrap_or(&plan.url);
    if !plan.replaces && !same_place(url, &plan.url) {
        bail!(
            "{} is deployed already, from {url}\ndeploy this one beside it with --name NAME, or in its place with --replace",
            plan.name
        );
    }
    let kustomization = requests::get_optional(client, &format!("{KUSTOMIZATIONS}/{}", plan.name)).await?;
    let before = Before { source, kustomization };
    before.check_folder(plan, layout, &plan.reference).await?;
    Ok(before)
}

impl Before {
    /// Of a remote repository as far as its mirror tells, which may be of an older commit or not there yet.
    async fn check_folder(&self, plan: &Plan, layout: &Layout, at: &GitReference) -> anyhow::Result<()> {
        let mut broken = plan.broken.clone();
        if plan.top.as_os_str().is_empty() {
            let mirror = gitops::source::mirror(&layout.git(), NAMESPACE, &plan.name, &plan.url);
            let (path, at) = (plan.path.clone(), at.clone());
            let looked = tokio::task::spawn_blocking(move || {
                folder::look(&folder::committed(&mirror, &at)?, &path, false)
            });
            match looked.await? {
                Some(Fault::Nothing(why)) => bail!("{why}"),
                Some(Fault::Broken(why)) => broken = Some(why),
                None => {}
            }
        }
        let path = self.kustomization.as_ref().and_then(|known| known["spec"]["path"].as_str());
        match (path, broken) {
            (Some(path), Some(why)) if path != plan.path => {
                bail!("{} stays at {path}, for {} cannot be built: {why}", plan.name, plan.path)
            }
            _ => Ok(()),
        }
    }

    /// The source as it was. That it cannot be had back is not what matters by then.
    async fn restore(&self, client: &Client, plan: &Plan) {
        let path = format!("{SOURCES}/{}", plan.name);
        drop(match &self.source {
            None => requests::delete(client, &path, &json!({})).await,
            Some(known) => {
                let field = |name: &str| known["spec"][name].clone();
                let spec = json!({"url": field("url"), "interval": field("interval"), "ref": field("ref")});
                let source = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
                    "metadata": {"name": plan.name, "namespace": NAMESPACE}, "spec": spec});
                requests::apply(client, &path, &source, true).await
            }
        });
    }
}

/// The commit of `main@sha1:0123…`.
fn commit_of(revision: &str) -> GitReference {
    let commit = revision.rsplit("sha1:").next().unwrap_or(revision);
    GitReference { commit: Some(commit.to_owned()), ..GitReference::default() }
}

fn same_place(one: &str, other: &str) -> bool {
    let plain = |url: &str| url.trim_start_matches("file://").trim_end_matches('/').to_owned();
    plain(one) == plain(other)
}

pub async fn run(
    client: &Client,
    plan: &Plan,
    before: &Before,
    layout: &Layout,
    progress: Progress,
    deadline: Instant,
) -> anyhow::Result<()> {
    let token = base::time::rfc3339_nanos(base::time::now());
    let application = Application { client, namespace: NAMESPACE, name: &plan.name, token: &token };
    let source = format!("{SOURCES}/{}", plan.name);
    let mut step = progress.step(format!("Read {} of {}", plan.label(), plan.url));
    let work = async {
        definitions(client).await?;
        let annotations = json!({ RECONCILE_REQUESTED_AT: token });
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let path = format!("/api/v1/namespaces/{NAMESPACE}");
        gone(client, &path, &format!("the namespace {NAMESPACE}"), &mut step).await?;
        requests::apply(client, &path, &namespace, true).await?;
        gone(client, &source, &format!("the GitRepository {} of before", plan.name), &mut step).await?;
        apply(client, &source, &plan.source(&annotations)?).await?;
        application.fetched(&mut step).await
    };
    let revision = match in_time(deadline, work).await {
        Ok(revision) => revision,
        Err(error) => {
            step.failed();
            // Nothing has come of it: an address that was mistyped is not to be tried for ever. That it cannot be taken
            // away either is not what matters now.
            if before.source.is_none() {
                drop(requests::delete(client, &source, &json!({})).await);
            }
            let message = hints::of_source(&format!("{error:#}"), plan);
            return Err(anyhow::anyhow!(message).context(format!("cannot read {}", plan.url)));
        }
    };
    step.done(&short(&revision));
    // What a remote repository holds is known only now.
    if let Err(error) = before.check_folder(plan, layout, &commit_of(&revision)).await {
        before.restore(client, plan).await;
        return Err(error);
    }

    let mut step = progress.step(format!("Deploy {}", plan.path));
    let work = async {
        let annotations = json!({ RECONCILE_REQUESTED_AT: token });
        let path = format!("{KUSTOMIZATIONS}/{}", plan.name);
        gone(client, &path, &format!("the Kustomization {} of before", plan.name), &mut step).await?;
        apply(client, &path, &plan.kustomization(&annotations)?).await?;
        application.applied(&mut step, deadline).await
    };
    match in_time(deadline, work).await {
        Ok(()) => step.done(""),
        Err(error) => {
            step.failed();
            let error = anyhow::anyhow!(hints::of_deployment(&format!("{error:#}"), plan));
            return Err(explain::failure(client, NAMESPACE, &plan.name, error).await);
        }
    }
    Ok(())
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

/// Waits until an object that goes is gone: what is written into it goes with it.
async fn gone(client: &Client, path: &str, what: &str, step: &mut Step) -> anyhow::Result<()> {
    while let Some(object) = requests::get_optional(client, path).await?
        && object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
    {
        step.say(&format!("{what} is being deleted"));
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{commit_of, same_place};

    #[test]
    fn a_revision_names_its_commit() {
        assert_eq!(commit_of("main@sha1:0123").commit.as_deref(), Some("0123"));
        assert_eq!(commit_of("sha1:0123").commit.as_deref(), Some("0123"));
    }

    #[test]
    fn a_folder_is_the_same_however_it_is_written() {
        assert!(same_place("file:///srv/shop", "/srv/shop/"));
        assert!(same_place("https://example.org/a.git", "https://example.org/a.git"));
        assert!(!same_place("/srv/shop", "/home/shop"));
    }
}
