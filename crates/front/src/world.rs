//! What is read from the cluster to say what runs: sources, Kustomizations, the objects they applied, and the pods of
//! those. Read in one go, so that all that is shown is of one moment.

use std::collections::{BTreeMap, BTreeSet};

use base::constants::annotations::PUBLISHED_PORTS;
use futures::{StreamExt, TryStreamExt};
use gitops::inventory::Id;
use gitops::types::{Inventory, KUSTOMIZE_GROUP, SOURCE_GROUP};
use kube::Client;
use serde::Serialize;
use serde_json::Value;

use crate::discovery::{Discovery, Resource};
use crate::requests;

/// Requests under way at a time.
const PARALLEL: usize = 8;

#[derive(Clone, Debug, Default)]
pub struct World {
    pub sources: Vec<Value>,
    pub kustomizations: Vec<Value>,
    /// What Kustomizations have applied; `None`: it is gone.
    pub objects: BTreeMap<Id, Option<Value>>,
    /// Groups and kinds among them that the cluster does not have.
    pub unknown: BTreeSet<(String, String)>,
    pub replica_sets: Vec<Value>,
    pub jobs: Vec<Value>,
    pub pods: Vec<Value>,
    /// What probes have found amiss, as events tell it.
    pub unhealthy: Vec<Value>,
    /// Objects that several Kustomizations apply, and these; of one application, those that it has a part in.
    pub shared: Vec<(Id, Vec<String>)>,
    /// Of the whole cluster when all is looked at: also those that nothing from Git has made.
    pub services: Vec<Value>,
}

/// Which of the cluster's applications are looked at.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    All,
    One { namespace: &'a str, name: &'a str },
}

pub async fn read(client: &Client, scope: Scope<'_>) -> anyhow::Result<World> {
    let discovery = Discovery::read(client).await?;
    let mut world = World::default();
    if let Some(resource) = discovery.by_group(SOURCE_GROUP, "GitRepository") {
        world.sources = list(client, resource, None).await?;
    }
    if let Some(resource) = discovery.by_group(KUSTOMIZE_GROUP, "Kustomization") {
        world.kustomizations = list(client, resource, None).await?;
    }
    world.shared = shared(&world.kustomizations);
    if let Scope::One { namespace, name } = scope {
        world.shared.retain(|(_, owners)| owners.contains(&format!("{namespace}/{name}")));
        let is_it = |o: &Value| o["metadata"]["name"] == name && o["metadata"]["namespace"] == namespace;
        world.sources.retain(is_it);
        world.kustomizations.retain(is_it);
    }
    let ids: BTreeSet<Id> = world.kustomizations.iter().flat_map(inventory).collect();
    let is_unknown = |id: &&Id| discovery.by_group(&id.group, &id.kind).is_none();
    world.unknown = ids.iter().filter(is_unknown).map(|id| (id.group.clone(), id.kind.clone())).collect();
    let reads = ids.iter().map(|id| object(client, &discovery, id));
    world.objects = futures::stream::iter(reads).buffer_unordered(PARALLEL).try_collect().await?;

    world.services = match scope {
        Scope::All => match discovery.by_group("", "Service") {
            Some(resource) => list(client, resource, None).await?,
            None => Vec::new(),
        },
        Scope::One { .. } => world.objects.values().flatten().cloned().collect(),
    };

    let namespaces: BTreeSet<&str> =
        ids.iter().map(|id| id.namespace.as_str()).filter(|name| !name.is_empty()).collect();
    for namespace in namespaces {
        for (group, kind, list_of) in [
            ("", "Pod", &mut world.pods),
            ("apps", "ReplicaSet", &mut world.replica_sets),
            ("batch", "Job", &mut world.jobs),
        ] {
            if let Some(resource) = discovery.by_group(group, kind) {
                list_of.extend(list(client, resource, Some(namespace)).await?);
            }
        }
        if let Some(resource) = discovery.by_group("", "Event") {
            let path = requests::path(resource, Some(namespace), None);
            let path = requests::with_query(&path, &[("fieldSelector", "reason=Unhealthy")]);
            let mut events = requests::get(client, &path).await?;
            world.unhealthy.extend(events["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
        }
    }
    Ok(world)
}

/// What a Kustomization has applied.
pub fn inventory(kustomization: &Value) -> Vec<Id> {
    let inventory = kustomization.pointer("/status/inventory").cloned().unwrap_or_default();
    let inventory: Inventory = serde_json::from_value(inventory).unwrap_or_default();
    inventory.entries.iter().filter_map(Id::parse).collect()
}

/// Each of the owners changes such an object at its own interval, and so undoes what the other has done.
fn shared(kustomizations: &[Value]) -> Vec<(Id, Vec<String>)> {
    let mut owners: BTreeMap<Id, Vec<String>> = BTreeMap::new();
    for kustomization in kustomizations {
        let text = |field: &str| kustomization["metadata"][field].as_str().unwrap_or_default();
        let owner = format!("{}/{}", text("namespace"), text("name"));
        for id in inventory(kustomization) {
            // The same object in whichever version.
            let of = owners.entry(Id { version: String::new(), ..id }).or_default();
            if !of.contains(&owner) {
                of.push(owner.clone());
            }
        }
    }
    owners.into_iter().filter(|(_, owners)| owners.len() > 1).collect()
}

/// What is amiss without anything being ill yet.
pub fn warnings(world: &World) -> Vec<String> {
    let told = |(id, owners): &(Id, Vec<String>)| {
        let owners = owners.join(" and ");
        format!(
            "{} is applied by the Kustomizations {owners}: each undoes what the other does; take it out of one",
            id.label()
        )
    };
    world.shared.iter().map(told).collect()
}

async fn object(client: &Client, discovery: &Discovery, id: &Id) -> anyhow::Result<(Id, Option<Value>)> {
    let Some(resource) = discovery.by_group(&id.group, &id.kind) else { return Ok((id.clone(), None)) };
    let path = requests::path(resource, Some(&id.namespace), Some(&id.name));
    Ok((id.clone(), requests::get_optional(client, &path).await?))
}

/// Objects of one kind, each with its kind: a list's items do not say it.
async fn list(client: &Client, resource: &Resource, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut list = requests::get(client, &requests::path(resource, namespace, None)).await?;
    let api_version = list["apiVersion"].clone();
    let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let named = |mut item: Value| {
        item["kind"] = resource.kind.clone().into();
        item["apiVersion"] = api_version.clone();
        item
    };
    Ok(items.into_iter().map(named).collect())
}

/// Where a service answers on this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Url {
    /// `shop/web`
    pub service: String,
    /// Of the port, if it has one.
    pub port: String,
    pub url: String,
}

/// Of the load-balanced services among some objects.
pub fn urls<'a>(objects: impl Iterator<Item = &'a Value>) -> Vec<Url> {
    let mut urls: Vec<Url> = objects.flat_map(urls_of).collect();
    urls.sort();
    urls
}

fn urls_of(service: &Value) -> Vec<Url> {
    if service["kind"] != "Service" || service["spec"]["type"] != "LoadBalancer" {
        return Vec::new();
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let annotations = &service["metadata"]["annotations"];
    let published: Vec<u16> =
        text(&annotations[PUBLISHED_PORTS]).split(',').filter_map(|port| port.trim().parse().ok()).collect();
    let name = format!("{}/{}", text(&service["metadata"]["namespace"]), text(&service["metadata"]["name"]));
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let tcp = ports.iter().filter(|port| port["protocol"].as_str().unwrap_or("TCP") == "TCP");
    tcp.enumerate()
        .filter_map(|(index, port)| {
            let own = port["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            // Until that is said it may be another service's; 0 stands for one that could not be opened.
            let host = published.get(index).copied().filter(|port| *port > 0)?;
            let secure =
                own == Some(443) || port["name"].as_str().is_some_and(|name| name.starts_with("https"));
            let url = match (secure, host) {
                (true, 443) => "https://localhost".to_owned(),
                (true, port) => format!("https://localhost:{port}"),
                (false, 80) => "http://localhost".to_owned(),
                (false, port) => format!("http://localhost:{port}"),
            };
            Some(Url { service: name.clone(), port: text(&port["name"]), url })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_two_apply_is_told() {
        let of = |name: &str, ids: &[&str]| {
            let entries: Vec<Value> = ids.iter().map(|id| json!({"id": id, "v": "v1"})).collect();
            json!({"metadata": {"namespace": "gitops", "name": name}, "status": {"inventory": {"entries": entries}}})
        };
        let map = "shop_settings__ConfigMap";
        let world = World {
            shared: shared(&[of("a", &[map, "shop_web__Service"]), of("b", &[map])]),
            ..World::default()
        };
        assert_eq!(
            warnings(&world),
            [
                "ConfigMap/shop/settings is applied by the Kustomizations gitops/a and gitops/b: each undoes what the other does; take it out of one"
            ]
        );
        assert!(shared(&[of("a", &[map]), of("b", &[])]).is_empty());
    }

    #[test]
    fn a_service_answers_where_it_is_published() {
        let service = |annotation: Value| {
            json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "web", "annotations": annotation},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 8080}, {"port": 9090, "name": "admin"}]}})
        };
        let shown = |service: Value| {
            let urls = urls([service].iter());
            urls.into_iter().map(|url| url.url).collect::<Vec<_>>()
        };
        assert!(shown(service(json!({}))).is_empty(), "nobody has opened them yet");
        assert_eq!(shown(service(json!({PUBLISHED_PORTS: "0,9090"}))), ["http://localhost:9090"]);
        let published = json!({PUBLISHED_PORTS: "41000,9090"});
        assert_eq!(shown(service(published)), ["http://localhost:41000", "http://localhost:9090"]);
        let inside = json!({"kind": "Service", "spec": {"type": "ClusterIP", "ports": [{"port": 1}]}});
        assert!(urls([inside].iter()).is_empty());
    }
}
