//! `kedge reconcile`: has an application's source looked at now instead of at its next interval. It is what a Git
//! server's push hook calls, and does what Flux's clients do: it puts a new token into an annotation.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use base::constants::annotations::RECONCILE_REQUESTED_AT;
use clap::Args;
use serde_json::{Value, json};

use crate::application::{KUSTOMIZATION, NAMESPACE, SOURCE};
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
    /// What the GitRepository is called; all Kustomizations that have it as their source are followed
    #[arg(value_name = "NAME")]
    name: String,
    /// Wait until the newest commit is deployed and healthy
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,
}

impl Reconcile {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let cluster = session.cluster().await?;
        let namespace = session.namespace_named().unwrap_or(NAMESPACE);
        let token = base::time::rfc3339_nanos(base::time::now());
        let patch = json!({"metadata": {"annotations": {RECONCILE_REQUESTED_AT: token}}});
        let source = SOURCE.path(namespace, &self.name);
        let Some(known) = requests::get_optional(&cluster.client, &source).await? else {
            let kustomization = KUSTOMIZATION.path(namespace, &self.name);
            let of = requests::get_optional(&cluster.client, &kustomization).await?;
            let of = of.as_ref().and_then(|found| found["spec"]["sourceRef"]["name"].as_str());
            if let Some(of) = of.filter(|of| *of != self.name) {
                bail!(
                    "there is no GitRepository {} in the namespace {namespace}; the Kustomization of that name is of the GitRepository {of}: kedge reconcile {of}",
                    self.name
                );
            }
            bail!("{}", SOURCE.not_there(namespace, &self.name));
        };
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
                let url = known["spec"]["url"].as_str().unwrap_or_default();
                let told = explain::unreachable(&format!("{error:#}"), url);
                return Err(anyhow::anyhow!(told).context("cannot read the repository"));
            }
        };
        step.done(&short(&revision));
        let all = requests::get(&cluster.client, &KUSTOMIZATION.everywhere()).await?;
        let all = all["items"].as_array().cloned().unwrap_or_default();
        let followed = of_source(&all, namespace, &self.name);
        for (namespace, name) in &followed {
            requests::merge(&cluster.client, &KUSTOMIZATION.path(namespace, name), &patch).await?;
        }
        for (namespace, name) in &followed {
            let mut step = progress.step(match followed.len() {
                1 => "Deploy it".to_owned(),
                _ => format!("Deploy {name}"),
            });
            let application = Application { client: &cluster.client, namespace, name, token: &token };
            if let Err(error) = application.applied(&mut step, deadline).await {
                step.failed();
                return Err(explain::failure(&cluster.client, namespace, name, error).await);
            }
            step.done("");
        }
        if followed.is_empty() {
            output::line(&format!("nothing is deployed from {}: no Kustomization has it as its source", self.name))?;
        }
        output::line(&format!("{} is at {}", self.name, short(&revision)))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Namespaces and names of the Kustomizations that apply a source, those that others wait for first: what holds them up is
/// then told of, and not that they wait. Of those that are suspended only the one of the source's own name, which then says so.
fn of_source(all: &[Value], namespace: &str, name: &str) -> Vec<(String, String)> {
    let text = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let key = |object: &Value| {
        let own = |field: &str| text(object, &format!("/metadata/{field}")).unwrap_or_default();
        (own("namespace"), own("name"))
    };
    let applies = |object: &&Value| {
        let of = text(object, "/spec/sourceRef/namespace").unwrap_or_else(|| key(object).0);
        let is_it = object["spec"]["sourceRef"]["kind"] == "GitRepository" && object["spec"]["sourceRef"]["name"] == name;
        let is_followed = object["spec"]["suspend"] != true || key(object) == (namespace.to_owned(), name.to_owned());
        is_it && of == namespace && is_followed
    };
    let mut rest: Vec<&Value> = all.iter().filter(applies).collect();
    let mut order = Vec::new();
    while !rest.is_empty() {
        let left: Vec<_> = rest.iter().map(|object| key(object)).collect();
        let waits = |object: &Value| {
            let others = object["spec"]["dependsOn"].as_array().into_iter().flatten();
            others.into_iter().any(|other| {
                let namespace = text(other, "/namespace").unwrap_or_else(|| key(object).0);
                left.contains(&(namespace, text(other, "/name").unwrap_or_default()))
            })
        };
        // Those that wait for one another in a circle come as they are.
        let next = rest.iter().position(|object| !waits(object)).unwrap_or(0);
        order.push(key(rest.remove(next)));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_apply_a_source_are_followed_in_their_order() {
        let one = |namespace: &str, name: &str, spec: Value| json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        let source = json!({"kind": "GitRepository", "name": "shop"});
        let elsewhere = json!({"kind": "GitRepository", "name": "shop", "namespace": "gitops"});
        let all = [
            one("gitops", "app", json!({"sourceRef": source, "dependsOn": [{"name": "base"}, {"name": "other"}]})),
            one("gitops", "base", json!({"sourceRef": source, "dependsOn": [{"name": "shop"}]})),
            one("gitops", "other", json!({"sourceRef": {"kind": "GitRepository", "name": "other"}})),
            one("gitops", "held", json!({"sourceRef": source, "suspend": true})),
            one("gitops", "shop", json!({"sourceRef": source, "suspend": true})),
            one("team", "near", json!({"sourceRef": elsewhere})),
            one("team", "far", json!({"sourceRef": source})),
            one("gitops", "x", json!({"sourceRef": source, "dependsOn": [{"name": "y"}]})),
            one("gitops", "y", json!({"sourceRef": source, "dependsOn": [{"name": "x"}]})),
        ];
        let names = |namespace: &str| -> Vec<String> {
            of_source(&all, namespace, "shop").into_iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect()
        };
        let wanted = ["gitops/shop", "gitops/base", "gitops/app", "team/near", "gitops/x", "gitops/y"];
        assert_eq!(names("gitops"), wanted);
        assert_eq!(names("team"), ["team/far"]);
    }
}
