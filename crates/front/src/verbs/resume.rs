//! `kedge resume`: an application that was held is as Git says again.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::application::{KUSTOMIZATION, NAMESPACE, SOURCE};
use crate::session::Session;
use crate::{output, requests};

/// Let Git drive an application again that was suspended
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge resume shop && kedge reconcile shop       and wait until all is as Git says")]
pub struct Resume {
    /// What the Kustomization, the GitRepository, or both are called
    #[arg(value_name = "NAME")]
    name: String,
}

impl Resume {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let client = session.cluster().await?.client;
        let namespace = session.namespace_named().unwrap_or(NAMESPACE);
        let (mut is_there, mut was_held) = (false, false);
        // The source first: what is deployed then is its newest.
        for kind in [SOURCE, KUSTOMIZATION] {
            let path = kind.path(namespace, &self.name);
            let Some(object) = requests::get_optional(&client, &path).await? else { continue };
            is_there = true;
            if object["spec"]["suspend"] == true {
                was_held = true;
                requests::merge(&client, &path, &json!({"spec": {"suspend": null}})).await?;
            }
        }
        if !is_there {
            bail!("{}", KUSTOMIZATION.not_there(namespace, &self.name));
        }
        let told = if was_held { "is driven by Git again" } else { "was not suspended" };
        output::line(&format!("{} {told}", self.name))?;
        Ok(ExitCode::SUCCESS)
    }
}
