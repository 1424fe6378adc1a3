//! Keeps the graph of nodes up to date: one look at what is there, then every change as the store tells it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use api::status::ApiError;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use store::{Event, RangeRequest, Revision};
use tokio::sync::watch;

use super::graph::Graph;
use crate::objects::store_error;
use crate::{ApiServer, Server};

/// So long a refusal waits for what has been written already and is still to be taken in.
const PATIENCE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(1);

/// The kinds that the graph is made of: group, resource, and how one of them is taken in or forgotten.
const SOURCES: &[(&str, &str, Take)] = &[
    ("", "pods", |graph, (namespace, name), object| match object {
        // Until it has a node there is nothing to it.
        Some(pod) if node_name(pod).is_none() => {
            graph.remove_pod(namespace, name);
            Ok(())
        }
        Some(pod) => Pod::deserialize(pod).map(|pod| graph.set_pod(&pod)),
        None => {
            graph.remove_pod(namespace, name);
            Ok(())
        }
    }),
    ("", "persistentvolumes", |graph, (_, name), object| match object {
        Some(volume) => PersistentVolume::deserialize(volume).map(|volume| graph.set_volume(&volume)),
        None => {
            graph.remove_volume(name);
            Ok(())
        }
    }),
    ("storage.k8s.io", "volumeattachments", |graph, (_, name), object| {
        graph.set_own("volumeattachments", name, object.and_then(node_name));
        Ok(())
    }),
    ("resource.k8s.io", "resourceslices", |graph, (_, name), object| {
        graph.set_own("resourceslices", name, object.and_then(node_name));
        Ok(())
    }),
];

type Take = fn(&mut Graph, (&str, &str), Option<&Value>) -> Result<(), serde_json::Error>;

fn node_name(object: &Value) -> Option<&str> {
    object["spec"]["nodeName"].as_str().filter(|name| !name.is_empty())
}

pub struct Follower {
    graph: RwLock<Graph>,
    /// Everything up to this revision has been taken in.
    progress: watch::Sender<Revision>,
}

impl Default for Follower {
    fn default() -> Self {
        Self { graph: RwLock::default(), progress: watch::Sender::new(0) }
    }
}

impl Follower {
    /// Asks the graph; what it says no to is asked again once all that was written before has been taken in.
    pub async fn ask(&self, revision: Revision, question: impl Fn(&Graph) -> bool) -> bool {
        if question(&self.graph.read()) {
            return true;
        }
        let mut progress = self.progress.subscribe();
        if *progress.borrow() < revision {
            // Time out, and it stays a no: the one who asks asks again.
            let taken_in = progress.wait_for(|at| *at >= revision);
            drop(tokio::time::timeout(PATIENCE, taken_in).await);
            return question(&self.graph.read());
        }
        false
    }
}

impl ApiServer {
    /// Follows for as long as the server is there.
    pub(crate) fn follow_nodes(&self) {
        let server = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            while let Some(ended) = follow(&server).await {
                match ended {
                    // Too far behind, mostly: it begins anew.
                    Err(error) => tracing::warn!(%error, "cannot follow what nodes have to do with"),
                    Ok(()) => return,
                }
                tokio::time::sleep(RETRY).await;
            }
        });
    }
}

/// Until the watch breaks off. Nothing when the server is gone.
async fn follow(server: &Weak<Server>) -> Option<Result<(), ApiError>> {
    let (mut watch, sources) = match begin(&*server.upgrade()?).await {
        Ok(begun) => begun,
        Err(error) => return Some(Err(error)),
    };
    loop {
        let events = match watch.next().await {
            Ok(events) => events,
            Err(store::StoreError::Closed) => return Some(Ok(())),
            Err(error) => return Some(Err(store_error(error))),
        };
        let server = server.upgrade()?;
        let ours = |event: &&Arc<Event>| {
            sources.iter().any(|(prefix, _)| event.entry.key.starts_with(prefix.as_str()))
        };
        let ours: Vec<Arc<Event>> = events.iter().filter(ours).cloned().collect();
        if let Err(error) = server.objects.unlock_events(&ours).await {
            return Some(Err(error));
        }
        for event in &events {
            if let Err(error) = take(&server, &sources, event) {
                return Some(Err(error));
            }
        }
        let at = watch.progress().max(events.last().map_or(0, |e| e.revision));
        server.nodes_graph.progress.send_replace(at);
    }
}

/// Key prefixes of the sources, with what takes them in.
type Sources = Vec<(String, Take)>;

async fn begin(server: &Server) -> Result<(Box<dyn store::Watch>, Sources), ApiError> {
    let kinds = server.catalog.snapshot();
    let mut graph = Graph::default();
    let mut sources = Sources::new();
    let mut since = None;
    for (group, plural, take) in SOURCES {
        let Some(kind) = kinds.of_resource(group, plural) else { continue };
        let prefix = kind.key("", "");
        let range = server.objects.store.range(RangeRequest { prefix: prefix.clone(), ..Default::default() });
        let range = range.await.map_err(store_error)?;
        server.objects.unlock(&range.entries).await?;
        // What changes while the rest is read is taken in again by the watch.
        since.get_or_insert(range.revision);
        for entry in &range.entries {
            let object = server.objects.decode(entry)?;
            apply(&mut graph, *take, &prefix, &entry.key, Some(&object));
        }
        sources.push((prefix, *take));
    }
    *server.nodes_graph.graph.write() = graph;
    let since = since.unwrap_or_default();
    server.nodes_graph.progress.send_replace(since);
    let watch = server.objects.store.watch("", since).map_err(store_error)?;
    Ok((watch, sources))
}

fn take(server: &Server, sources: &Sources, event: &Event) -> Result<(), ApiError> {
    let key = &event.entry.key;
    let Some((prefix, take)) = sources.iter().find(|(prefix, _)| key.starts_with(prefix.as_str())) else {
        return Ok(());
    };
    let object = match event.deleted {
        true => None,
        false => Some(server.objects.look(&event.entry)?),
    };
    apply(&mut server.nodes_graph.graph.write(), *take, prefix, key, object.as_deref());
    Ok(())
}

fn apply(graph: &mut Graph, take: Take, prefix: &str, key: &str, object: Option<&Value>) {
    let rest = key.strip_prefix(prefix).unwrap_or_default();
    let at = rest.split_once('/').unwrap_or(("", rest));
    if let Err(error) = take(graph, at, object) {
        tracing::error!(%error, key, "cannot take in an object");
    }
}
