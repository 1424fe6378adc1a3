//! What `up` says at the end: what runs and where, or what does not and why.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;

use super::plan::{NAMESPACE, Plan};
use crate::output::{self, Paint};
use crate::session::Session;
use crate::table::TextTable;
use crate::tree::{self, Node, State};
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

/// The engine's word, with what the pods say and what to do.
pub async fn failure(client: &Client, plan: &Plan, error: anyhow::Error) -> anyhow::Error {
    let mut text = format!("{} is not deployed: {error:#}", plan.name);
    let scope = Scope::One { namespace: NAMESPACE, name: &plan.name };
    // The first error counts; a second one on the way to explain it would only hide it.
    let roots = world::read(client, scope).await.map(|world| tree::build(&world)).unwrap_or_default();
    let mut hints = Vec::new();
    roots.iter().for_each(|root| root.walk(&mut |node| tell(node, &mut text, &mut hints)));
    if hints.is_empty() {
        hints.push("kedge status".to_owned());
    }
    // Replicas fail alike.
    let mut seen = BTreeSet::new();
    hints.retain(|hint| seen.insert(hint.clone()));
    hints.truncate(3);
    text += "\n\nlook further with:";
    hints.iter().for_each(|hint| text += &format!("\n  {hint}"));
    text += "\na commit that mends it is deployed by itself";
    anyhow::anyhow!(text)
}

fn tell(node: &Node, text: &mut String, hints: &mut Vec<String>) {
    if node.kind != "Pod" || node.health <= State::Terminating {
        return;
    }
    *text += &format!("\n  pod {}/{}: {}", node.namespace, node.name, node.message);
    let (namespace, name) = (&node.namespace, &node.name);
    if node.message.contains("CrashLoopBackOff") || node.message.contains("ended with code") {
        hints.push(format!("kedge logs -n {namespace} -p {name}"));
    } else if node.message.contains("Image") || node.message.contains("ErrImage") {
        let image = node.images.first().map_or("IMAGE", String::as_str);
        hints.push(match image.starts_with("localhost/") {
            true => format!("kedge build -t {image} FOLDER    (or add it to `images:` in kedge.yaml)"),
            false => format!("kedge describe -n {namespace} pod {name}"),
        });
    } else {
        hints.push(format!("kedge describe -n {namespace} pod {name}"));
    }
}
