//! What `up` says at the end: what runs and where, or what does not and why.

use std::time::Duration;

use kube::Client;

use super::plan::{NAMESPACE, Plan};
use crate::output::{self, Paint};
use crate::session::Session;
use crate::table::TextTable;
use crate::tree;
use crate::verbs::status;
use crate::world::{self, Scope};
use crate::duration;

pub async fn deployed(session: &Session, client: &Client, plan: &Plan, took: Duration) -> anyhow::Result<()> {
    let world = world::read(client, Scope::One { namespace: NAMESPACE, name: &plan.name }).await?;
    let roots = tree::build(&world);
    let paint = Paint::stdout();
    let mut table = TextTable::new(["WORKLOAD", "READY", "IMAGE"]);
    roots.iter().for_each(|root| {
        root.walk(&mut |node| {
            if node.is_workload() {
                let name = format!("{}/{} ({})", node.namespace, node.name, node.kind);
                table.row([name, node.ready.clone().unwrap_or_default(), node.images.join(",")]);
            }
        });
    });
    output::line("")?;
    if !table.is_empty() {
        output::text(&table.render())?;
        output::line("")?;
    }
    for url in status::urls(&world) {
        output::line(&format!("  {}  {}", paint.strong(&url.url), paint.soft(&url.service)))?;
    }
    for warning in world::warnings(&world) {
        output::line(&format!("\nwarning: {warning}"))?;
    }
    output::line(&format!(
        "\n{} runs after {}; each commit to {} is deployed from now on.",
        plan.name,
        duration::show(took),
        plan.label()
    ))?;
    further(session)
}

pub fn cluster_only(session: &Session) -> anyhow::Result<()> {
    output::line("\nThe cluster runs. This folder is in no Git repository: `kedge up DIR|URL` deploys one.")?;
    further(session)
}

fn further(session: &Session) -> anyhow::Result<()> {
    // Said in the words that work: another directory has to be named each time.
    let flag = match &session.globals.data_dir {
        Some(_) => format!(" --data-dir {}", session.layout.data_dir().display()),
        None => String::new(),
    };
    let kubeconfig = session.layout.kubeconfig();
    output::line(&format!(
        "\n  kedge status{flag}\n  kubectl --kubeconfig {} get pods -A\n  kedge down{flag}",
        kubeconfig.display()
    ))
}
