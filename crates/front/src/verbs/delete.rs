//! `kedge delete`: takes objects away and waits until they are gone.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use kube::Client;
use serde_json::{Value, json};

use super::apply::{Manifests, path_of};
use super::get::{objects, select};
use crate::discovery::Discovery;
use crate::session::Session;
use crate::{duration, output, requests};

/// Delete objects, by name, by label, or those of files
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge delete pod web-6d4b -n shop
  kedge delete deploy/web svc/web
  kedge delete -f manifests/
  kedge delete pods -l app=web --wait=false")]
pub struct Delete {
    #[arg(value_name = "KIND[/NAME]", required_unless_present_any = ["files", "folder"])]
    kinds: Option<String>,
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    from: Manifests,
    /// All with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// All of the kind in the namespace
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// Wait until they are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,
    /// Seconds that pods have to end; 0 at once
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// What becomes of what they own
    #[arg(long, value_enum, default_value = "background")]
    cascade: Cascade,
    /// It is no error when they are not there
    #[arg(long)]
    ignore_not_found: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cascade {
    Background,
    Foreground,
    Orphan,
}

/// What is to go: how it is called, where it is, which one it was.
struct Target {
    label: String,
    path: String,
}

impl Delete {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let targets = self.targets(session).await?;
        let client = session.cluster().await?.client;
        if targets.is_empty() {
            eprintln!("nothing found");
        }
        let mut gone = Vec::new();
        for target in &targets {
            let Some(before) = requests::get_optional(&client, &target.path).await? else {
                if self.ignore_not_found {
                    continue;
                }
                bail!("{} is not there; look in all namespaces with `kedge get KIND -A`", target.label);
            };
            requests::delete(&client, &target.path, &self.options()).await.with_context(|| target.label.clone())?;
            output::line(&format!("{} deleted", target.label))?;
            gone.push((target, before["metadata"]["uid"].clone()));
        }
        if self.wait {
            let deadline = Instant::now() + self.timeout;
            for (target, uid) in gone {
                wait_gone(&client, target, &uid, deadline).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn options(&self) -> Value {
        let policy = format!("{:?}", self.cascade);
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        if let Some(seconds) = self.grace_period {
            options["gracePeriodSeconds"] = seconds.into();
        }
        options
    }

    async fn targets(&self, session: &Session) -> anyhow::Result<Vec<Target>> {
        let cluster = session.cluster().await?;
        let discovery = Discovery::read(&cluster.client).await?;
        let mut targets = Vec::new();
        if !self.from.is_empty() {
            // What was made last goes first.
            for (object, _) in self.from.read()?.iter().rev() {
                let resource = discovery.of(object)?;
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                targets.push(Target {
                    label: format!("{}/{name}", resource.label()),
                    path: path_of(&cluster, resource, object),
                });
            }
        }
        let Some(kinds) = &self.kinds else { return Ok(targets) };
        for selection in select(&discovery, kinds, &self.names)? {
            let resource = &selection.resource;
            let path = |name: Option<&str>| requests::path(resource, Some(&cluster.namespace), name);
            let mut names = selection.names.clone();
            if names.is_empty() {
                if !self.all && self.selector.is_none() {
                    bail!("name what is to be deleted, or say --all");
                }
                let query = self.selector.as_deref().map(|selector| ("labelSelector", selector));
                let list = requests::with_query(&path(None), query.as_slice());
                let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                names = objects(&cluster.client, resource, &list).await?.iter().map(name).collect();
            }
            targets.extend(names.iter().map(|name| Target {
                label: format!("{}/{name}", resource.label()),
                path: path(Some(name)),
            }));
        }
        Ok(targets)
    }
}

const LOOK: Duration = Duration::from_millis(100);

async fn wait_gone(client: &Client, target: &Target, uid: &Value, deadline: Instant) -> anyhow::Result<()> {
    loop {
        match requests::get_optional(client, &target.path).await? {
            Some(object) if object["metadata"]["uid"] == *uid => {
                if Instant::now() > deadline {
                    let finalizers = &object["metadata"]["finalizers"];
                    bail!("{} is not gone yet; its finalizers are {finalizers}", target.label);
                }
                tokio::time::sleep(LOOK).await;
            }
            _ => return Ok(()),
        }
    }
}
