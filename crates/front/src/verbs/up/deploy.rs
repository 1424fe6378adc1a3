//! The GitOps part of `up`: two objects are applied, and what the engine says of them is followed until it has done
//! what was asked.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base::constants::annotations::RECONCILE_REQUESTED_AT;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::hints;
use super::plan::{NAMESPACE, Plan};
use crate::follow::{Application, in_time};
use crate::progress::Progress;
use crate::tree::short;
use crate::{explain, requests};

const SOURCES: &str = "/apis/source.toolkit.fluxcd.io/v1/namespaces/gitops/gitrepositories";
const KUSTOMIZATIONS: &str = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/gitops/kustomizations";
const DEFINITIONS: [&str; 2] =
    ["gitrepositories.source.toolkit.fluxcd.io", "kustomizations.kustomize.toolkit.fluxcd.io"];
/// Between two tries at a kind that is served in a moment.
const RETRY: Duration = Duration::from_millis(50);

/// Whether the application is new; an error if its name stands for another repository so far, whose application would go.
pub async fn check_name(client: &Client, plan: &Plan) -> anyhow::Result<bool> {
    let known = requests::get_optional(client, &format!("{SOURCES}/{}", plan.name)).await?;
    let url = known.as_ref().and_then(|source| source["spec"]["url"].as_str()).unwrap_or(&plan.url);
    if plan.replaces || same_place(url, &plan.url) {
        return Ok(known.is_none());
    }
    bail!(
        "{} is deployed already, from {url}\ndeploy this one beside it with --name NAME, or in its place with --replace",
        plan.name
    )
}

fn same_place(one: &str, other: &str) -> bool {
    let plain = |url: &str| url.trim_start_matches("file://").trim_end_matches('/').to_owned();
    plain(one) == plain(other)
}

/// `is_new`: nothing is there under this name yet.
pub async fn run(
    client: &Client,
    plan: &Plan,
    is_new: bool,
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
        requests::apply(client, &format!("/api/v1/namespaces/{NAMESPACE}"), &namespace, true).await?;
        apply(client, &source, &plan.source(&annotations)?).await?;
        application.fetched(&mut step).await
    };
    let revision = match in_time(deadline, work).await {
        Ok(revision) => revision,
        Err(error) => {
            step.failed();
            // Nothing has come of it: an address that was mistyped is not to be tried for ever. That it cannot be taken
            // away either is not what matters now.
            if is_new {
                drop(requests::delete(client, &source, &json!({})).await);
            }
            let message = hints::of_source(&format!("{error:#}"), plan);
            return Err(anyhow::anyhow!(message).context(format!("cannot read {}", plan.url)));
        }
    };
    step.done(&short(&revision));

    let mut step = progress.step(format!("Deploy {}", plan.path));
    let work = async {
        let annotations = json!({ RECONCILE_REQUESTED_AT: token });
        apply(client, &format!("{KUSTOMIZATIONS}/{}", plan.name), &plan.kustomization(&annotations)?).await?;
        application.applied(&mut step).await
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

#[cfg(test)]
mod tests {
    use super::same_place;

    #[test]
    fn a_folder_is_the_same_however_it_is_written() {
        assert!(same_place("file:///srv/shop", "/srv/shop/"));
        assert!(same_place("https://example.org/a.git", "https://example.org/a.git"));
        assert!(!same_place("/srv/shop", "/home/shop"));
    }
}
