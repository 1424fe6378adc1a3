//! What keeps pods from running while a deployment is waited for: the line that tells more than "not ready yet".

use std::collections::{BTreeMap, BTreeSet};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::tree::trouble::{self, Trouble};

/// A probe that has failed this often is no longer one of a container that is still starting.
const FAILURES_TOLD: i32 = 3;

/// How a start that takes its time is told of.
const CREATING: &str = ": ContainerCreating";

/// What was seen of a pod, or of its probes.
pub enum Seen {
    Pod(Box<watcher::Event<Pod>>),
    Probe(Box<watcher::Event<Event>>),
}

/// Both, of the whole cluster. Never ends: a watch that breaks is taken up again by itself.
pub fn watch(client: &Client) -> impl Stream<Item = Seen> + use<> {
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
    let probes = watcher::Config::default().fields("involvedObject.kind=Pod,reason=Unhealthy");
    let probes = watcher(Api::<Event>::all(client.clone()), probes).default_backoff();
    let pods = pods.filter_map(async |event| event.ok().map(|event| Seen::Pod(Box::new(event)))).boxed();
    futures::stream::select(
        pods,
        probes.filter_map(async |event| event.ok().map(|event| Seen::Probe(Box::new(event)))).boxed(),
    )
}

/// The pods of a cluster, as far as they are in trouble.
#[derive(Default)]
pub struct Troubles {
    /// By namespace and name.
    pods: BTreeMap<(String, String), Known>,
    /// What a probe has found last, by the pod's uid.
    probes: BTreeMap<String, Value>,
}

struct Known {
    trouble: Option<Trouble>,
    /// With what tells one from another. Only of a pod that runs and is not ready.
    unready: Option<Value>,
}

impl Troubles {
    pub fn note(&mut self, seen: Seen) {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        match seen {
            Seen::Pod(event) => self.note_pod(*event),
            Seen::Probe(event) => match *event {
                Apply(event) | InitApply(event) => self.note_probe(&event),
                // It says what was, and is forgotten after a while; the pod says whether it still is.
                Delete(_) | Init | InitDone => {}
            },
        }
    }

    fn note_pod(&mut self, event: watcher::Event<Pod>) {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        match event {
            Apply(pod) | InitApply(pod) => match Known::of(&pod) {
                Some(known) => drop(self.pods.insert(name_of(&pod), known)),
                None => drop(self.pods.remove(&name_of(&pod))),
            },
            Delete(pod) => drop(self.pods.remove(&name_of(&pod))),
            Init => self.pods.clear(),
            InitDone => {}
        }
    }

    fn note_probe(&mut self, event: &Event) {
        let often = event.count.or(event.series.as_ref().and_then(|series| series.count)).unwrap_or(1);
        if let Some(uid) = event.involved_object.uid.as_ref().filter(|_| often >= FAILURES_TOLD) {
            // What is typed can be written.
            self.probes.insert(uid.clone(), serde_json::to_value(event).unwrap_or_default());
        }
    }

    /// What matters most of the pods in some namespaces: what does not pass by itself comes first.
    pub fn worst(&self, namespaces: &BTreeSet<String>) -> Option<String> {
        let own = self.pods.iter().filter(|((namespace, _), _)| namespaces.contains(namespace));
        let told = own.filter_map(|(name, known)| self.told(known).map(|(rank, text)| (rank, name, text)));
        let (_, (namespace, pod), text) = told.min_by_key(|(rank, name, _)| (*rank, *name))?;
        Some(format!("pod {namespace}/{pod}: {text}"))
    }

    fn told(&self, known: &Known) -> Option<(u8, String)> {
        if let Some(trouble) = &known.trouble {
            return Some((u8::from(!trouble.stuck), trouble.message.clone()));
        }
        let pod = known.unready.as_ref()?;
        let found = self.probes.get(pod.pointer("/metadata/uid")?.as_str()?)?;
        Some((2, trouble::by_probe(pod, std::slice::from_ref(found))?))
    }
}

impl Known {
    /// `None`: it is as it should be, or going.
    fn of(pod: &Pod) -> Option<Self> {
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        // What every start goes through is no trouble.
        let trouble = trouble::of(&serde_json::to_value(pod).unwrap_or_default());
        let trouble = trouble.filter(|trouble| trouble.stuck || !trouble.message.ends_with(CREATING));
        let status = pod.status.as_ref()?;
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let waits = status.phase.as_deref() == Some("Running") && ready.is_some_and(|c| c.status == "False");
        let unready = waits.then(|| serde_json::json!({"metadata": {"uid": pod.metadata.uid}}));
        (trouble.is_some() || unready.is_some()).then_some(Self { trouble, unready })
    }
}

fn name_of(pod: &Pod) -> (String, String) {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(namespace: &str, name: &str, status: Value) -> Seen {
        let pod = json!({"metadata": {"namespace": namespace, "name": name, "uid": format!("u-{name}")}, "status": status});
        Seen::Pod(Box::new(watcher::Event::Apply(serde_json::from_value(pod).expect("a pod"))))
    }

    fn probe(name: &str, count: i32) -> Seen {
        let event = json!({"metadata": {}, "message": "Readiness probe failed: 500", "reason": "Unhealthy", "count": count,
            "involvedObject": {"kind": "Pod", "uid": format!("u-{name}"), "fieldPath": "spec.containers{c}"}});
        Seen::Probe(Box::new(watcher::Event::Apply(serde_json::from_value(event).expect("an event"))))
    }

    #[test]
    fn the_gravest_is_told_while_it_lasts() {
        let mut troubles = Troubles::default();
        let own = BTreeSet::from(["shop".to_owned()]);
        let unready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]});
        let pending = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]});
        let image = json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImagePull"}}}]});
        let mut check = |seen: Seen, wanted: Option<&str>| {
            troubles.note(seen);
            assert_eq!(troubles.worst(&own).as_deref(), wanted);
        };
        let creating = json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ContainerCreating"}}}]});
        check(pod("shop", "new", creating), None);
        check(pod("shop", "web", unready), None);
        check(probe("web", 2), None);
        let probed = Some("pod shop/web: c: Readiness probe failed: 500");
        check(probe("web", 3), probed);
        check(pod("shop", "api", pending), Some("pod shop/api: not scheduled: 0/1 nodes"));
        check(pod("other", "web", image.clone()), Some("pod shop/api: not scheduled: 0/1 nodes"));
        check(pod("shop", "store", image), Some("pod shop/store: c: ErrImagePull"));
        check(
            pod("shop", "store", json!({"phase": "Running"})),
            Some("pod shop/api: not scheduled: 0/1 nodes"),
        );
        check(pod("shop", "api", json!({"phase": "Running"})), probed);
        check(
            pod(
                "shop",
                "web",
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
            ),
            None,
        );
    }
}
