//! `kedge status`: what runs, from the commit to the pod, and where it can be reached.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::explain;
use crate::output::{self, Paint};
use crate::process::{self, State};
use crate::session::Session;
use crate::tree::{self, Node};
use crate::world::{self, Scope, Url, World};

/// Show what runs: sources, what they deploy, workloads and pods, each with its health
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge status
  kedge status -o wide           all objects, and images
  kedge status -o json | jq '.urls[].url'

Ends with 0 when all is healthy, with 1 when not or when the cluster is down.")]
pub struct Status {
    #[arg(short, long, value_enum, value_name = "FORM")]
    output: Option<Form>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Wide,
    Json,
    Yaml,
}

impl Status {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let layout = &session.layout;
        let state = process::look(layout)?;
        let State::Serving(file) = &state else {
            return self.is_down(session, &state);
        };
        let cluster = session.own_cluster().await?;
        let world = world::read(&cluster.client, Scope::All).await?;
        let roots = tree::build(&world);
        let urls = urls(&world);
        let warnings = world::warnings(&world);
        let healthy = tree::worst(&roots) <= tree::State::Terminating;
        match self.output {
            Some(form @ (Form::Json | Form::Yaml)) => {
                let value = json!({
                    "dataDir": layout.data_dir(), "kubeconfig": file.kubeconfig, "server": file.server, "pid": file.pid,
                    "running": true, "healthy": healthy, "urls": urls, "tree": roots,
                    "warnings": warnings,
                });
                structured(form, &value)?;
            }
            form => {
                print(layout.data_dir(), &file.server, &roots, &urls, form == Some(Form::Wide))?;
                for warning in &warnings {
                    output::line(&format!("\nwarning: {warning}"))?;
                }
            }
        }
        Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn is_down(&self, session: &Session, state: &State) -> anyhow::Result<ExitCode> {
        let layout = &session.layout;
        let data_dir = layout.data_dir().display();
        match self.output {
            Some(form @ (Form::Json | Form::Yaml)) => structured(
                form,
                &json!({"dataDir": layout.data_dir(), "kubeconfig": layout.kubeconfig(), "server": null,
                    "running": false, "healthy": false, "urls": [], "tree": [], "warnings": []}),
            )?,
            _ => match state {
                State::Between { .. } => output::line(&format!(
                    "the cluster in {data_dir} starts or ends just now; see {}",
                    layout.log().display()
                ))?,
                _ if let Some(why) = process::lost(layout) => output::line(&why)?,
                _ if !layout.data_dir().exists() => {
                    output::line(&format!("there is no cluster in {data_dir}; start one with `kedge up`"))?;
                }
                _ => output::line(&format!("the cluster in {data_dir} is down; start it with `kedge up`"))?,
            },
        }
        Ok(ExitCode::FAILURE)
    }
}

fn structured(form: Form, value: &Value) -> anyhow::Result<()> {
    if form == Form::Yaml { output::yaml(value) } else { output::json(value) }
}

pub fn urls(world: &World) -> Vec<Url> {
    world::urls(world.services.iter())
}

fn print(
    data_dir: &std::path::Path,
    server: &str,
    roots: &[Node],
    urls: &[Url],
    wide: bool,
) -> anyhow::Result<()> {
    let paint = Paint::stdout();
    output::line(&format!("{} {server}  {}", paint.strong("cluster"), paint.soft(&data_dir.display().to_string())))?;
    if roots.is_empty() {
        output::line("nothing is deployed from Git yet; `kedge up DIR` in a repository does it")?;
    } else {
        output::line("")?;
        output::text(&tree::render(roots, base::time::now(), wide))?;
    }
    if !urls.is_empty() {
        output::line("")?;
    }
    for url in urls {
        output::line(&format!("{}  {}", url.url, paint.soft(&url.service)))?;
    }
    // What only takes its time needs nobody to look; a pod that says why it does not get on does.
    let steps = explain::next_steps(roots);
    let mut is_told = tree::worst(roots) >= tree::State::Failed;
    roots.iter().for_each(|root| root.walk(&mut |node| is_told |= node.kind == "Pod" && !node.message.is_empty()));
    if is_told && !steps.is_empty() {
        output::line(&format!("\n{}", explain::further(&steps).trim_start()))?;
    }
    Ok(())
}
