//! `kedge build`: an image from a Dockerfile, at hand for the cluster at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use image::builder::{BuildEvent, BuildRequest};

use super::images::size;
use crate::session::Session;
use crate::{builds, duration, output};

/// Build an image from a Dockerfile; the cluster can use it at once, without a registry
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge build -t localhost/shop:v2 examples/shop
  kedge build -t localhost/tool:dev -f Dockerfile.dev --build-arg VERSION=3 .")]
pub struct Build {
    /// The folder that COPY and ADD take from
    context: PathBuf,
    /// A name for the image; may be given several times
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// [default: Dockerfile in the context]
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// A value for an ARG
    #[arg(long = "build-arg", value_name = "NAME=VALUE", value_parser = pair)]
    arguments: Vec<(String, String)>,
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Do every step anew
    #[arg(long)]
    no_cache: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Build {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let request = BuildRequest {
            context: self.context,
            dockerfile: self.file,
            tags: self.tags,
            arguments: self.arguments.into_iter().collect::<BTreeMap<_, _>>(),
            target: self.target,
            labels: self.labels.into_iter().collect::<BTreeMap<_, _>>(),
            no_cache: self.no_cache,
        };
        let record = builds::run(&session.layout, request, |event| match event {
            BuildEvent::Started { .. } => {}
            BuildEvent::Output { line, .. } => eprintln!("    {line}"),
            BuildEvent::Finished { step, steps, text, cached, duration } => {
                let how = if cached { "cached".to_owned() } else { duration::show(duration) };
                eprintln!("[{step}/{steps}] {text}  {how}");
            }
        })
        .await?;
        let name = record.tags.first().unwrap_or(&record.id);
        output::line(&format!("{name}  {}", size(record.size_bytes)))?;
        Ok(ExitCode::SUCCESS)
    }
}
