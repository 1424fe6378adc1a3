//! Events about pods and the node: queued, written by one task, repeated ones counted instead of written again.

use std::collections::VecDeque;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

/// Events that may wait to be written; beyond that they are dropped, for they are only a courtesy.
const QUEUE_MAX: usize = 1024;
/// Events remembered so that a repetition is counted.
const REMEMBERED_MAX: usize = 512;
const MESSAGE_CHARS_MAX: usize = 1024;

#[derive(Clone, Debug)]
struct Note {
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Takes events from anywhere; never blocks, never fails.
#[derive(Clone)]
pub struct Recorder {
    notes: mpsc::Sender<Note>,
}

impl Recorder {
    /// The recorder and the task that writes, to be spawned by the caller.
    pub fn new(client: Client, node_name: &str) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (notes, queue) = mpsc::channel(QUEUE_MAX);
        (Self { notes }, write_all(client, node_name.to_owned(), queue))
    }

    pub fn pod_event(&self, pod: &Pod, kind: &'static str, reason: &str, message: &str) {
        self.note(reference(pod, None), kind, reason, message);
    }

    /// `container` says which; the API's field path follows from where the spec lists it.
    pub fn container_event(
        &self,
        pod: &Pod,
        container: &str,
        kind: impl AsRef<str>,
        reason: &str,
        message: &str,
    ) {
        let kind = if kind.as_ref() == "Warning" { "Warning" } else { "Normal" };
        self.note(reference(pod, Some(container)), kind, reason, message);
    }

    pub fn node_event(&self, node_name: &str, kind: &'static str, reason: &str, message: &str) {
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(node_name.to_owned()),
            uid: Some(node_name.to_owned()),
            ..ObjectReference::default()
        };
        self.note(about, kind, reason, message);
    }

    fn note(&self, about: ObjectReference, kind: &'static str, reason: &str, message: &str) {
        let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
        let note = Note { about, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        if self.notes.try_send(note).is_err() {
            tracing::debug!(reason, "an event is dropped, too many wait");
        }
    }
}

fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let field_path = container.map(|name| {
        let spec = pod.spec.as_ref();
        let is_init = spec.is_some_and(|s| s.init_containers.iter().flatten().any(|c| c.name == name));
        let is_ephemeral =
            spec.is_some_and(|s| s.ephemeral_containers.iter().flatten().any(|c| c.name == name));
        let list = match (is_init, is_ephemeral) {
            (true, _) => "initContainers",
            (_, true) => "ephemeralContainers",
            _ => "containers",
        };
        format!("spec.{list}{{{name}}}")
    });
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}

/// An event that was written and may be repeated.
struct Written {
    note: Note,
    name: String,
    count: i32,
}

impl Written {
    fn is_of(&self, note: &Note) -> bool {
        let (a, b) = (&self.note, note);
        a.about.uid == b.about.uid
            && a.about.field_path == b.about.field_path
            && (a.kind, &a.reason, &a.message) == (b.kind, &b.reason, &b.message)
    }
}

async fn write_all(client: Client, node_name: String, mut queue: mpsc::Receiver<Note>) {
    let mut remembered: VecDeque<Written> = VecDeque::new();
    while let Some(note) = queue.recv().await {
        let namespace = note.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        if let Some(written) = remembered.iter_mut().find(|written| written.is_of(&note)) {
            written.count += 1;
            let patch = json!({"count": written.count, "lastTimestamp": Time(note.at)});
            let patched = api.patch(&written.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            match patched {
                Ok(_) => continue,
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    // It has aged out; this one begins anew.
                    remembered.retain(|written| !written.is_of(&note));
                }
                Err(error) => {
                    tracing::debug!(%error, "count an event");
                    continue;
                }
            }
        }
        let event = new_event(&note, &namespace, &node_name);
        let name = event.metadata.name.clone().unwrap_or_default();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if remembered.len() == REMEMBERED_MAX {
                    remembered.pop_front();
                }
                remembered.push_back(Written { note, name, count: 1 });
            }
            Err(error) => tracing::debug!(%error, reason = %note.reason, "write an event"),
        }
    }
}

fn new_event(note: &Note, namespace: &str, node_name: &str) -> Event {
    let about = note.about.name.as_deref().unwrap_or_default();
    // Unique by time, as others name theirs, and never the same twice.
    let name = format!("{about}.{:x}{}", note.at.as_nanosecond(), base::id::name_suffix(2));
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: note.about.clone(),
        reason: Some(note.reason.clone()),
        message: Some(note.message.clone()),
        type_: Some(note.kind.to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(note.at)),
        last_timestamp: Some(Time(note.at)),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node_name.to_owned()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node_name.to_owned()),
        ..Event::default()
    }
}
