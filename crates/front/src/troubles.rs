//! What keeps pods from running while a deployment is waited for: the line that tells more than "not ready yet".

use std::collections::BTreeMap;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};

use crate::tree::trouble::{self, Trouble};

/// What keeps each pod from running, by its namespace and name.
pub type Troubles = BTreeMap<(String, String), String>;

/// Pods in trouble, anew whenever that changes. Never ends.
pub fn of_pods(client: &Client) -> impl Stream<Item = Troubles> + use<> {
    let events = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
    let mut known = Troubles::new();
    events.filter_map(move |event| {
        let changed = match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => note(&mut known, &pod),
            Ok(Event::Delete(pod)) => known.remove(&name_of(&pod)).is_some(),
            Ok(Event::Init) => {
                known.clear();
                false
            }
            // A watch that breaks is taken up again by itself.
            Ok(Event::InitDone) | Err(_) => false,
        };
        futures::future::ready(changed.then(|| known.clone()))
    })
}

fn name_of(pod: &Pod) -> (String, String) {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

/// Whether there is news.
fn note(known: &mut Troubles, pod: &Pod) -> bool {
    // What is typed can be written.
    let value = serde_json::to_value(pod).unwrap_or_default();
    let going = pod.metadata.deletion_timestamp.is_some();
    match trouble::of(&value).filter(|trouble| trouble.stuck && !going) {
        Some(Trouble { message, .. }) => {
            known.insert(name_of(pod), message.clone()).as_ref() != Some(&message)
        }
        None => known.remove(&name_of(pod)).is_some(),
    }
}
