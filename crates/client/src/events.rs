//! Events, recorded as Kubernetes users read them: repeated ones are counted, not written again, and recording never
//! holds anybody up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Events that wait to be written; past this the newest are dropped.
const WAITING_LIMIT: usize = 1024;
/// Events that are remembered to be counted.
const KNOWN_LIMIT: usize = 4096;
const KNOWN_FOR: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Normal,
    Warning,
}

#[derive(Clone)]
pub struct Recorder {
    component: Arc<str>,
    host: Option<Arc<str>>,
    known: Arc<Mutex<HashMap<String, Known>>>,
    waiting: mpsc::Sender<Write>,
}

struct Known {
    name: String,
    count: i32,
    since: Instant,
}

enum Write {
    New(Box<Event>),
    Again { namespace: String, name: String, count: i32 },
}

impl Recorder {
    /// `component` is the source that users see (`deployment-controller`, `kubelet`).
    pub fn new(client: Client, component: &str, host: Option<&str>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_LIMIT);
        tokio::spawn(write_all(client, receiver));
        Self {
            component: component.into(),
            host: host.map(Into::into),
            known: Arc::default(),
            waiting: sender,
        }
    }

    pub fn record<T: Resource<DynamicType = ()>>(
        &self,
        object: &T,
        level: Level,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.record_reference(object.object_ref(&()), level, reason, message);
    }

    /// For an object that is only known by reference, or a part of one (`fieldPath`).
    pub fn record_reference(
        &self,
        object: ObjectReference,
        level: Level,
        reason: &str,
        message: impl Into<String>,
    ) {
        let message: String = message.into().chars().take(1024).collect();
        let namespace = object.namespace.clone().unwrap_or_else(|| "default".into());
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let identity = [
            text(&object.kind),
            namespace.clone(),
            text(&object.name),
            text(&object.uid),
            text(&object.field_path),
            reason.into(),
            message.clone(),
        ]
        .join("\n");
        let write = {
            let mut known = self.known.lock();
            match known.get_mut(&identity).filter(|k| k.since.elapsed() < KNOWN_FOR) {
                Some(seen) => {
                    seen.count += 1;
                    Write::Again { namespace, name: seen.name.clone(), count: seen.count }
                }
                None => {
                    if known.len() >= KNOWN_LIMIT {
                        known.retain(|_, k| k.since.elapsed() < KNOWN_FOR / 2);
                    }
                    if known.len() >= KNOWN_LIMIT {
                        known.clear();
                    }
                    let name =
                        format!("{}.{}", text(&object.name), base::id::hex(&base::id::random_bytes::<8>()));
                    known.insert(identity, Known { name: name.clone(), count: 1, since: Instant::now() });
                    Write::New(Box::new(self.event(name, namespace, object, level, reason, message)))
                }
            }
        };
        if self.waiting.try_send(write).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait");
        }
    }

    fn event(
        &self,
        name: String,
        namespace: String,
        object: ObjectReference,
        level: Level,
        reason: &str,
        message: String,
    ) -> Event {
        let now = Some(Time(base::time::now()));
        let component = Some(self.component.to_string());
        let host = self.host.as_ref().map(ToString::to_string);
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..Default::default() },
            involved_object: object,
            type_: Some(
                match level {
                    Level::Normal => "Normal",
                    Level::Warning => "Warning",
                }
                .into(),
            ),
            reason: Some(reason.into()),
            message: Some(message),
            source: Some(EventSource { component: component.clone(), host: host.clone() }),
            reporting_component: component,
            reporting_instance: host,
            first_timestamp: now.clone(),
            last_timestamp: now,
            count: Some(1),
            ..Default::default()
        }
    }
}

async fn write_all(client: Client, mut waiting: mpsc::Receiver<Write>) {
    while let Some(write) = waiting.recv().await {
        let result = match write {
            Write::New(event) => {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
                api.create(&PostParams::default(), &event).await.map(drop)
            }
            Write::Again { namespace, name, count } => {
                let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
                let last = base::time::rfc3339_seconds(base::time::now());
                let patch = Patch::Merge(Counted { count, last_timestamp: last });
                api.patch(&name, &PatchParams::default(), &patch).await.map(drop)
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "an event could not be written");
        }
    }
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    count: i32,
    last_timestamp: String,
}
