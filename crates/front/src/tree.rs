//! From the commit to the pod: a tree of what was read, and what each part of it says about itself. Pure.

use base::constants::annotations::DEPLOYMENT_REVISION;
use gitops::health::{self, Health};
use gitops::inventory::Id;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::table::TextTable;
use crate::world::{World, inventory};

pub mod trouble;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    Healthy,
    /// A pod that was told to end: as it should be.
    Terminating,
    Progressing,
    Failed,
    /// It was applied and is gone.
    Missing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    pub health: State,
    /// `2/2`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// A Git revision, or the number of a rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What to look at, or to do, about it.
    #[serde(skip)]
    pub next: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Node>,
}

const WORKLOADS: [&str; 6] = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"];

impl Node {
    pub fn is_workload(&self) -> bool {
        WORKLOADS.contains(&self.kind.as_str())
    }

    /// Itself and all below.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Node)) {
        visit(self);
        self.children.iter().for_each(|child| child.walk(visit));
    }

    fn of(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let (health, message) = match health::of(object) {
            Health::Healthy => (State::Healthy, String::new()),
            Health::Progressing(message) => (State::Progressing, message),
            Health::Failed(message) => (State::Failed, message),
        };
        Self {
            kind: text("/kind").unwrap_or_default(),
            namespace: text("/metadata/namespace").unwrap_or_default(),
            name: text("/metadata/name").unwrap_or_default(),
            health,
            ready: None,
            revision: None,
            images: Vec::new(),
            created: text("/metadata/creationTimestamp"),
            message,
            next: String::new(),
            children: Vec::new(),
        }
    }

    /// `settling`: a new revision is being brought about, which may have taken it away on purpose.
    fn missing(id: &Id, settling: bool, is_known: bool) -> Self {
        let (health, message) = match (settling, is_known) {
            (true, true) => (State::Progressing, "is being replaced or removed".to_owned()),
            (false, true) => (State::Missing, "was applied and is gone".to_owned()),
            (_, false) => (State::Missing, unknown_kind(id)),
        };
        Self {
            kind: id.kind.clone(),
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            health,
            message,
            next: String::new(),
            ready: None,
            revision: None,
            images: Vec::new(),
            created: None,
            children: Vec::new(),
        }
    }
}

/// As kubectl and Flux say it.
fn unknown_kind(id: &Id) -> String {
    let version = match id.group.as_str() {
        "" => id.version.clone(),
        group => format!("{group}/{}", id.version),
    };
    format!(
        "no matches for kind {:?} in version {version:?}; apply its CustomResourceDefinition, or take the object out of Git",
        id.kind
    )
}

/// Sources, with the Kustomizations that apply them below; then those whose source is not there.
pub fn build(world: &World) -> Vec<Node> {
    let mut kustomizations: Vec<(String, Node)> =
        world.kustomizations.iter().map(|k| (source_of(k), kustomization(world, k))).collect();
    let mut roots = Vec::new();
    for source in &world.sources {
        let mut node = engine_node(source);
        node.revision = string(source, "/status/artifact/revision");
        let key = format!("{}/{}/{}", node.kind, node.namespace, node.name);
        let (own, rest): (Vec<_>, Vec<_>) =
            kustomizations.into_iter().partition(|(source, _)| *source == key);
        kustomizations = rest;
        node.children = own.into_iter().map(|(_, node)| node).collect();
        roots.push(node);
    }
    roots.extend(kustomizations.into_iter().map(|(_, node)| node));
    roots
}

fn string(object: &Value, pointer: &str) -> Option<String> {
    object.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

fn source_of(kustomization: &Value) -> String {
    let own = string(kustomization, "/metadata/namespace");
    let reference = |field: &str| string(kustomization, &format!("/spec/sourceRef/{field}"));
    let namespace = reference("namespace").or(own).unwrap_or_default();
    format!("{}/{namespace}/{}", reference("kind").unwrap_or_default(), reference("name").unwrap_or_default())
}

/// An object of the engine: its `Ready` condition is its word, also when it says no.
fn engine_node(object: &Value) -> Node {
    let mut node = Node::of(object);
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    match conditions.and_then(|list| list.iter().find(|c| c["type"] == "Ready")) {
        None => (node.health, node.message) = (State::Progressing, "has not been looked at yet".into()),
        Some(ready) => {
            node.ready = string(ready, "/status");
            if ready["status"] == "False" {
                node.health = State::Failed;
            }
            if node.health != State::Healthy {
                node.message = string(ready, "/message").unwrap_or_default();
            }
        }
    }
    if object.pointer("/spec/suspend") == Some(&Value::Bool(true)) {
        node.message = "is suspended".into();
        // It was asked for, and is not looked at: but what was amiss before still is.
        if node.health == State::Progressing {
            node.health = State::Healthy;
        }
    }
    node
}

fn kustomization(world: &World, object: &Value) -> Node {
    let mut node = engine_node(object);
    node.revision = string(object, "/status/lastAppliedRevision");
    let settling = node.ready.as_deref() == Some("Unknown");
    let mut children: Vec<Node> = inventory(object)
        .iter()
        .map(|id| match world.objects.get(id) {
            Some(Some(object)) => applied(world, object),
            _ => Node::missing(id, settling, !world.unknown.contains(&(id.group.clone(), id.kind.clone()))),
        })
        .collect();
    // What runs comes first.
    children.sort_by_key(|child| {
        (!child.is_workload(), child.kind.clone(), child.namespace.clone(), child.name.clone())
    });
    node.children = children;
    node
}

fn applied(world: &World, object: &Value) -> Node {
    let mut node = Node::of(object);
    if node.kind == "Pod" {
        return pod(world, object);
    }
    if !node.is_workload() {
        return node;
    }
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    node.ready = match node.kind.as_str() {
        "DaemonSet" => number("/status/desiredNumberScheduled")
            .map(|want| format!("{}/{want}", number("/status/numberReady").unwrap_or(0))),
        "Job" => Some(format!(
            "{}/{}",
            number("/status/succeeded").unwrap_or(0),
            number("/spec/completions").unwrap_or(1)
        )),
        "CronJob" => None,
        _ => Some(format!(
            "{}/{}",
            number("/status/readyReplicas").unwrap_or(0),
            number("/spec/replicas").unwrap_or(1)
        )),
    };
    let key = DEPLOYMENT_REVISION.replace('/', "~1");
    node.revision = string(object, &format!("/metadata/annotations/{key}")).or_else(|| {
        string(object, "/status/updateRevision").map(|r| r.rsplit('-').next().unwrap_or(&r).to_owned())
    });
    node.images = images(object, "/spec/template/spec");
    node.children = pods_of(world, object).map(|object| pod(world, object)).collect();
    if node.health == State::Failed {
        let (kind, namespace, name) = (node.kind.to_lowercase(), &node.namespace, &node.name);
        node.next = format!("kedge describe -n {namespace} {kind} {name}");
    }
    node
}

/// Pods that an object owns, itself or through a ReplicaSet or a Job.
pub fn pods_of<'a>(world: &'a World, owner: &Value) -> impl Iterator<Item = &'a Value> {
    let uid = string(owner, "/metadata/uid").unwrap_or_default();
    let between = world.replica_sets.iter().chain(&world.jobs);
    let mut uids: Vec<String> =
        between.filter(|object| is_owned(object, &uid)).filter_map(|o| string(o, "/metadata/uid")).collect();
    uids.push(uid);
    world.pods.iter().filter(move |pod| uids.iter().any(|uid| is_owned(pod, uid)))
}

fn is_owned(object: &Value, uid: &str) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    !uid.is_empty() && owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
}

fn images(object: &Value, spec: &str) -> Vec<String> {
    let containers = object.pointer(&format!("{spec}/containers")).and_then(Value::as_array);
    containers.into_iter().flatten().filter_map(|c| c["image"].as_str().map(str::to_owned)).collect()
}

fn pod(world: &World, object: &Value) -> Node {
    let mut node = Node::of(object);
    let statuses = object.pointer("/status/containerStatuses").and_then(Value::as_array);
    let total = object.pointer("/spec/containers").and_then(Value::as_array).map_or(0, Vec::len);
    let ready = statuses.map_or(0, |list| list.iter().filter(|status| status["ready"] == true).count());
    node.ready = Some(format!("{ready}/{total}"));
    node.images = images(object, "/spec");
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        (node.health, node.message) = (State::Terminating, String::new());
    } else if let Some(trouble) = trouble::of(object) {
        (node.message, node.next) = (trouble.message, trouble.next);
        if trouble.stuck {
            node.health = State::Failed;
        }
    } else if node.health != State::Healthy {
        node.next = trouble::describe(object);
        if let Some(found) = trouble::by_probe(object, &world.unhealthy) {
            node.message = found;
        }
    }
    node
}

/// The worst of a tree.
pub fn worst(nodes: &[Node]) -> State {
    let mut worst = State::Healthy;
    nodes.iter().for_each(|root| root.walk(&mut |node| worst = worst.max(node.health)));
    worst
}

/// The tree as lines; `wide` shows what does not run as well. What is too long for a line stands below, whole.
pub fn render(roots: &[Node], now: Timestamp, wide: bool) -> String {
    let mut text = table(roots, now, wide);
    roots.iter().for_each(|root| {
        root.walk(&mut |node| {
            if clip(&node.message, limit(wide)) != node.message.replace(['\n', '\r'], " ") {
                let message = node.message.trim_end().replace('\n', "\n  ");
                text += &format!("\n{}:\n  {message}\n", title(node));
            }
        });
    });
    text
}

fn limit(wide: bool) -> usize {
    if wide { 400 } else { 100 }
}

fn table(roots: &[Node], now: Timestamp, wide: bool) -> String {
    let header = ["APP", "READY", "HEALTH", "REVISION", "AGE"].into_iter();
    let mut table = TextTable::new(header.chain(wide.then_some("IMAGE")).chain(["MESSAGE"]));
    for root in roots {
        add(&mut table, root, "", "", now, wide);
    }
    table.render()
}

fn add(table: &mut TextTable, node: &Node, branch: &str, indent: &str, now: Timestamp, wide: bool) {
    let created = node.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    let age =
        created.map(|then| base::time::human_age(now.as_second() - then.as_second())).unwrap_or_default();
    let mut cells = vec![
        format!("{branch}{}", title(node)),
        node.ready.clone().unwrap_or_default(),
        format!("{:?}", node.health),
        short(node.revision.as_deref().unwrap_or_default()),
        age,
    ];
    if wide {
        cells.push(node.images.join(","));
    }
    cells.push(clip(&node.message, limit(wide)));
    table.row(cells);
    let runs = |child: &&Node| child.is_workload() || child.kind == "Pod";
    let engine = |child: &&Node| ["Kustomization", "GitRepository"].contains(&child.kind.as_str());
    let shown: Vec<&Node> = node
        .children
        .iter()
        .filter(|child| wide || runs(child) || engine(child) || child.health != State::Healthy)
        .collect();
    for (index, child) in shown.iter().enumerate() {
        let (here, below) = if index + 1 == shown.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        add(table, child, &format!("{indent}{here}"), &format!("{indent}{below}"), now, wide);
    }
}

/// `Deployment shop/web`
fn title(node: &Node) -> String {
    match node.namespace.as_str() {
        "" => format!("{} {}", node.kind, node.name),
        _ if node.kind == "Pod" => format!("{} {}", node.kind, node.name),
        namespace => format!("{} {namespace}/{}", node.kind, node.name),
    }
}

/// `main@sha1:0123…` with as many digits as people use.
pub fn short(revision: &str) -> String {
    match revision.split_once("sha1:") {
        Some((before, digits)) => format!("{before}{}", &digits[..digits.len().min(8)]),
        None => revision.to_owned(),
    }
}

fn clip(text: &str, limit: usize) -> String {
    let text = &text.replace(['\n', '\r'], " ");
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

#[cfg(test)]
mod tests;
