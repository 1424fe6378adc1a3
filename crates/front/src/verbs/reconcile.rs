//! `kedge reconcile`: has an application's source looked at now instead of at its next interval. It is what a Git
//! server's push hook calls, and does what Flux's clients do: it puts a new token into an annotation.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base::constants::annotations::RECONCILE_REQUESTED_AT;
use clap::Args;
use kube::Client;
use serde_json::{Value, json};

use crate::session::Session;
use crate::tree::short;
use crate::{duration, output, requests};

/// Look at an application's Git repository now, and wait until what it holds is deployed
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge reconcile shop
  kedge reconcile shop --wait=false       in a Git server's hooks/post-receive")]
pub struct Reconcile {
    /// What the GitRepository and the Kustomization are called
    #[arg(value_name = "NAME")]
    name: String,
    /// Wait until the newest commit is deployed and healthy
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,
}

/// Where `kedge up` puts an application's objects, unless -n says otherwise.
const NAMESPACE: &str = "gitops";
const SOURCES: (&str, &str) = ("source.toolkit.fluxcd.io", "gitrepositories");
const KUSTOMIZATIONS: (&str, &str) = ("kustomize.toolkit.fluxcd.io", "kustomizations");
const LOOK: Duration = Duration::from_millis(100);

impl Reconcile {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let cluster = session.cluster().await?;
        let namespace = session.namespace_named().unwrap_or(NAMESPACE);
        let path = |(group, plural): (&str, &str)| {
            format!("/apis/{group}/v1/namespaces/{namespace}/{plural}/{}", self.name)
        };
        let token = base::time::rfc3339_nanos(base::time::now());
        let patch = json!({"metadata": {"annotations": {RECONCILE_REQUESTED_AT: token}}});
        let source = path(SOURCES);
        if requests::get_optional(&cluster.client, &source).await?.is_none() {
            bail!(
                "there is no GitRepository {} in the namespace {namespace}; `kedge get gitrepositories -A` lists them",
                self.name
            );
        }
        requests::merge(&cluster.client, &source, &patch).await?;
        if !self.wait {
            return Ok(ExitCode::SUCCESS);
        }
        let deadline = Instant::now() + self.timeout;
        let fetched = handled(&cluster.client, &source, &token, deadline).await.context("cannot read the repository")?;
        let revision = fetched["status"]["artifact"]["revision"].as_str().unwrap_or_default().to_owned();
        let kustomization = path(KUSTOMIZATIONS);
        if requests::get_optional(&cluster.client, &kustomization).await?.is_some() {
            requests::merge(&cluster.client, &kustomization, &patch).await?;
            handled(&cluster.client, &kustomization, &token, deadline).await.context("cannot deploy it")?;
        }
        output::line(&format!("{} is at {}", self.name, short(&revision)))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Until the engine has handled the request, and well.
async fn handled(client: &Client, path: &str, token: &str, deadline: Instant) -> anyhow::Result<Value> {
    loop {
        let object = requests::get(client, path).await?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|c| c["type"] == "Ready").unwrap_or_default();
        let message = ready["message"].as_str().unwrap_or_default();
        if object["status"]["lastHandledReconcileAt"] == token {
            match ready["status"].as_str() {
                Some("True") => return Ok(object),
                Some("False") => bail!("{message}"),
                _ => {}
            }
        }
        if Instant::now() > deadline {
            bail!("it was not done in time; give it longer with --timeout\nthe last that was said: {message}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
