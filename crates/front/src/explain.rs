//! Why an application is not deployed: the engine's word, what its pods say, and what to look at next.

use gitops::health::UNCONTROLLED;
use kube::Client;

use crate::follow::LONGER;
use crate::tree::trouble::{OOM_KILLED, UNSCHEDULED};
use crate::tree::{self, Node, State};
use crate::world::{self, Scope};

/// Pods that are told of, and steps that are named, at most: replicas fail alike.
const PODS_MAX: usize = 5;
const STEPS_MAX: usize = 3;

/// The engine's word, with what the pods say and what to do.
pub async fn failure(client: &Client, namespace: &str, name: &str, error: anyhow::Error) -> anyhow::Error {
    let mut text = format!("{name} is not deployed: {error:#}");
    let scope = Scope::One { namespace, name };
    // The first error counts; a second one on the way to explain it would only hide it.
    let world = world::read(client, scope).await.unwrap_or_default();
    let roots = tree::build(&world);
    let mut pods = Vec::new();
    let is_told = |node: &Node| node.kind == "Pod" && node.health > State::Terminating;
    roots.iter().for_each(|root| root.walk(&mut |node| pods.extend(Some(node).filter(|node| is_told(node)))));
    if pods.iter().any(|node| does_not_pass(node)) {
        text = text.replace(LONGER, "");
    }
    text = without_false_hope(text);
    // The one that the line above was about is not told twice.
    let head = text.clone();
    let others = pods.iter().filter(|node| node.message.is_empty() || !head.contains(&node.message));
    for node in others.take(PODS_MAX) {
        text += &format!("\n  pod {}/{}: {}", node.namespace, node.name, node.message);
    }
    let mut steps = next_steps(&roots);
    if steps.is_empty() {
        steps.push("kedge status".to_owned());
    }
    text += &further(&steps);
    let is_suspended =
        world.sources.iter().chain(&world.kustomizations).any(|o| o["spec"]["suspend"] == true);
    if !is_suspended {
        text += "\na commit that mends it is deployed by itself";
    }
    anyhow::anyhow!(text)
}

/// What nobody acts on is not done later either.
fn without_false_hope(text: String) -> String {
    if text.contains(UNCONTROLLED) { text.replace(LONGER, "") } else { text }
}

/// Whether more time would not help a pod.
fn does_not_pass(pod: &Node) -> bool {
    pod.health >= State::Failed || pod.message.contains(OOM_KILLED) || pod.message.starts_with(UNSCHEDULED)
}

pub fn further(steps: &[String]) -> String {
    let lines: Vec<String> = steps.iter().map(|step| format!("\n  {step}")).collect();
    format!("\n\nlook further with:{}", lines.concat())
}

/// What to look at, or to do, about what is not healthy; a workload's pods tell more than itself.
pub fn next_steps(roots: &[Node]) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    let mut visit = |node: &Node| {
        let is_ill = |node: &Node| node.health > State::Terminating && !node.next.is_empty();
        let told = node.children.iter().any(is_ill);
        if is_ill(node) && !told && !steps.contains(&node.next) {
            steps.push(node.next.clone());
        }
    };
    roots.iter().for_each(|root| root.walk(&mut visit));
    steps.truncate(STEPS_MAX);
    steps
}

/// What to do about a repository that cannot be fetched.
pub fn unreachable(message: &str, url: &str) -> String {
    if !message.contains("cannot fetch ") {
        return message.to_owned();
    }
    format!(
        "{message}\nsee whether the address is right and this machine gets there: git ls-remote {url}\na private repository needs a Secret, which \
         `spec.secretRef` of the GitRepository names"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Node {
        Node {
            kind: "Pod".into(),
            namespace: "shop".into(),
            name: "web-1".into(),
            health: State::Healthy,
            ready: None,
            revision: None,
            images: Vec::new(),
            created: None,
            message: String::new(),
            next: String::new(),
            children: Vec::new(),
        }
    }

    #[test]
    fn more_time_is_no_advice_where_it_would_not_help() {
        let check = |health: State, message: &str, wanted: bool| {
            let pod = Node { health, message: message.into(), ..pod() };
            assert_eq!(does_not_pass(&pod), wanted, "{message}");
        };
        check(State::Failed, "c: ImagePullBackOff", true);
        check(State::Progressing, "c: started again after OOMKilled: it took more memory", true);
        check(State::Progressing, "not scheduled: 0/1 nodes are available: 1 Insufficient cpu.", true);
        check(State::Progressing, "c: Readiness probe failed: not yet", false);
        let late =
            |why: &str| without_false_hope(format!("it was not done in time{LONGER}: DaemonSet/a/b: {why}"));
        assert!(!late(UNCONTROLLED).contains(LONGER));
        assert!(late("1 of 2 replicas are available").contains(LONGER));
    }

    #[test]
    fn who_cannot_be_reached_is_told_how_to_look() {
        let url = "https://nowhere.example/a.git";
        let told = unreachable(&format!("cannot fetch {url}: dns error"), url);
        assert!(
            told.contains("\nsee whether the address is right")
                && told.contains(&format!("git ls-remote {url}\n")),
            "{told}"
        );
        assert_eq!(
            unreachable("branch \"x\" is not in the repository", url),
            "branch \"x\" is not in the repository"
        );
    }
}
