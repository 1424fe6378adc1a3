//! Why an application is not deployed: the engine's word, what its pods say, and what to look at next.

use std::collections::BTreeSet;

use kube::Client;

use crate::tree::{self, Node, State};
use crate::world::{self, Scope};

/// The engine's word, with what the pods say and what to do.
pub async fn failure(client: &Client, namespace: &str, name: &str, error: anyhow::Error) -> anyhow::Error {
    let mut text = format!("{name} is not deployed: {error:#}");
    let scope = Scope::One { namespace, name };
    // The first error counts; a second one on the way to explain it would only hide it.
    let world = world::read(client, scope).await.unwrap_or_default();
    let roots = tree::build(&world);
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
    let is_suspended =
        world.sources.iter().chain(&world.kustomizations).any(|o| o["spec"]["suspend"] == true);
    if !is_suspended {
        text += "\na commit that mends it is deployed by itself";
    }
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
