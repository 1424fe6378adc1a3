//! `kedge suspend`: an application is held as it is, for work by hand that Git is not to undo.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::application::{self, KUSTOMIZATION, NAMESPACE};
use crate::session::Session;
use crate::{output, requests};

/// Hold an application as it is: commits are not deployed, and changes by hand stay
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge suspend shop
  kedge resume shop        all is as Git says again")]
pub struct Suspend {
    /// What the Kustomization is called
    #[arg(value_name = "NAME")]
    name: String,
}

impl Suspend {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let client = session.cluster().await?.client;
        let namespace = session.namespace_named().unwrap_or(NAMESPACE);
        let path = KUSTOMIZATION.path(namespace, &self.name);
        if requests::get_optional(&client, &path).await?.is_none() {
            bail!("{}", KUSTOMIZATION.not_there(namespace, &self.name));
        }
        requests::merge(&client, &path, &json!({"spec": {"suspend": true}})).await?;
        let resume = application::resume(namespace, &self.name);
        output::line(&format!("{} is held as it is; `{resume}` lets Git drive it again", self.name))?;
        Ok(ExitCode::SUCCESS)
    }
}
