//! `kedge up`: from nothing to a running application in one step. Each part may be there already and is then reused.

mod deploy;
mod folder;
mod hints;
mod plan;
mod rebuilt;
mod report;
mod server;
mod uncommitted;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use image::ImageRecord;
use image::builder::{BuildEvent, BuildRequest};

use crate::progress::{Progress, Step};
use crate::project::Image;
use crate::repository;
use crate::session::Session;
use crate::{builds, duration};
use plan::Plan;

/// Start the cluster on this machine and deploy a Git repository to it
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge up                                 the repository you are in, as its kedge.yaml says
  kedge up ~/shop --path deploy/prod       another folder of manifests
  kedge up https://github.com/stefanprodan/podinfo --branch master --path kustomize
  kedge up --foreground                    stay, and stop all at Ctrl-C

From then on each commit to the branch is deployed by itself. What is not committed is not deployed.
To take an application away again: kedge delete kustomization,gitrepository NAME -n gitops")]
pub struct Up {
    /// A folder in a Git repository, or an https:// address [default: the folder you are in]
    #[arg(value_name = "REPOSITORY")]
    repository: Option<String>,
    /// [default: that of kedge.yaml, else the one checked out]
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// The folder with the kustomization.yaml, as seen from the repository's top [default: that of kedge.yaml]
    #[arg(long, value_name = "FOLDER")]
    path: Option<String>,
    /// What to call the application [default: that of kedge.yaml, else the repository's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Let an application of the same name that is deployed from elsewhere go
    #[arg(long)]
    replace: bool,
    /// Stay until Ctrl-C or until the server ends, and then stop everything
    #[arg(long)]
    foreground: bool,
    /// How long all of it may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,
    /// For a new server: the API's port on 127.0.0.1
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// For a new server: what to call the node
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
}

impl Up {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let plan = self.plan()?;
        if !self.foreground {
            self.all(session, plan.as_ref()).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let interrupted = server::interrupted()?;
        tokio::pin!(interrupted);
        let result = tokio::select! {
            result = self.all(session, plan.as_ref()) => result,
            () = &mut interrupted => return server::end(session).await,
        };
        // What failed may be mended by the next commit, but whoever waits for this process is to learn of it.
        if let Err(error) = result {
            server::end(session).await?;
            return Err(error);
        }
        server::hold(session, interrupted).await
    }

    /// All that can be wrong with what was typed is found before anything is started.
    fn plan(&self) -> anyhow::Result<Option<Plan>> {
        let source = repository::find(self.repository.as_deref().unwrap_or("."))?;
        match source {
            Some(source) => Plan::new(source, self).map(Some),
            None if self.repository.is_none() && self.path.is_none() => Ok(None),
            None => anyhow::bail!(
                "{} is in no Git repository, and what is deployed is what is committed\nmake one with `git init && git add . && git commit -m first`",
                self.repository.as_deref().unwrap_or("this folder")
            ),
        }
    }

    async fn all(&self, session: &Session, plan: Option<&Plan>) -> anyhow::Result<()> {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let progress = Progress::new();
        let cluster = server::ensure(session, self, progress, deadline).await?;
        let Some(plan) = plan else {
            return report::cluster_only(session);
        };
        let before = deploy::check(&cluster.client, plan, &session.layout).await?;
        if !plan.unbuilt.is_empty() {
            eprintln!(
                "  {} is not built: a bare repository has no working tree; `kedge build` does it in a clone",
                plan.unbuilt.join(", ")
            );
        }
        if let Some(hint) = &plan.uncommitted {
            eprintln!("  {hint}");
        }
        let mut built = Vec::new();
        for image in &plan.images {
            built.push(build(session, plan, image, progress).await?);
        }
        rebuilt::restart(&cluster.client, plan, &built, progress).await?;
        deploy::run(&cluster.client, plan, &before, &session.layout, progress, deadline).await?;
        report::deployed(session, &cluster.client, plan, started.elapsed()).await
    }
}

/// Builds one image of the project.
async fn build(
    session: &Session,
    plan: &Plan,
    image: &Image,
    progress: Progress,
) -> anyhow::Result<ImageRecord> {
    let mut step = progress.step(format!("Build {}", image.name));
    let context = plan.top.join(&image.context);
    let request = BuildRequest {
        dockerfile: image.dockerfile.as_ref().map(|file| context.join(file)),
        context,
        tags: vec![image.name.clone()],
        arguments: image.args.clone(),
        target: image.target.clone(),
        ..BuildRequest::default()
    };
    let mut cached = true;
    let result = builds::run(&session.layout, request, |event| tell(&mut step, event, &mut cached)).await;
    match result {
        Ok(record) => {
            step.done(if cached { "cached" } else { "" });
            Ok(record)
        }
        Err(error) => {
            step.failed();
            Err(error.context(format!("cannot build {} from {}", image.name, plan.top.join(&image.context).display())))
        }
    }
}

fn tell(step: &mut Step, event: BuildEvent, all_cached: &mut bool) {
    match event {
        BuildEvent::Started { step: number, steps, text } => step.hint(&format!("[{number}/{steps}] {text}")),
        BuildEvent::Output { line, .. } => step.say(&line),
        BuildEvent::Finished { cached: true, .. } => {}
        BuildEvent::Finished { step: number, steps, text, .. } => {
            *all_cached = false;
            step.say(&format!("[{number}/{steps}] {text}"));
        }
    }
}
