//! `kedge reconcile`: has an application's source looked at now instead of at its next interval. It is what a Git
//! server's push hook calls, and does what Flux's clients do: it puts a new token into an annotation.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use base::constants::annotations::RECONCILE_REQUESTED_AT;
use clap::Args;
use serde_json::json;

use crate::follow::{Application, in_time};
use crate::progress::Progress;
use crate::session::Session;
use crate::tree::short;
use crate::{duration, explain, output, requests};

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
        let progress = Progress::new();
        let application =
            Application { client: &cluster.client, namespace, name: &self.name, token: &token };
        let mut step = progress.step(format!("Read the repository of {}", self.name));
        let revision = match in_time(deadline, application.fetched(&mut step)).await {
            Ok(revision) => revision,
            Err(error) => {
                step.failed();
                return Err(error.context("cannot read the repository"));
            }
        };
        step.done(&short(&revision));
        let kustomization = path(KUSTOMIZATIONS);
        if requests::get_optional(&cluster.client, &kustomization).await?.is_some() {
            let mut step = progress.step("Deploy it");
            requests::merge(&cluster.client, &kustomization, &patch).await?;
            if let Err(error) = in_time(deadline, application.applied(&mut step)).await {
                step.failed();
                return Err(explain::failure(&cluster.client, namespace, &self.name, error).await);
            }
            step.done("");
        }
        output::line(&format!("{} is at {}", self.name, short(&revision)))?;
        Ok(ExitCode::SUCCESS)
    }
}
