//! `kedge version`: ours, and the cluster's if one answers.

use std::process::ExitCode;

use base::constants::KUBERNETES_VERSION;
use clap::Args;

use crate::session::Session;
use crate::{output, requests};

/// Print the version of this program and of the cluster
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge version")]
pub struct Version {}

impl Version {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        output::line(&format!("kedge {} (Kubernetes {KUBERNETES_VERSION})", env!("CARGO_PKG_VERSION")))?;
        let server = match session.cluster().await {
            Ok(cluster) => requests::get(&cluster.client, "/version").await,
            Err(error) => Err(error),
        };
        match server {
            Ok(version) => output::line(&format!(
                "server {} on {}",
                version["gitVersion"].as_str().unwrap_or("unknown"),
                version["platform"].as_str().unwrap_or("unknown"),
            ))?,
            // Not an error: one may ask without a cluster.
            Err(_) => output::line("server: does not answer")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
