//! Where several servers share a store: following what the others write. What is made from stored objects (roles,
//! hooks, policies, kinds, remote servers) is made anew as if this server had written them, and addresses that others
//! have given out count as used.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use api::kinds::{Kind, Storage};
use store::{Event, StoreError};

use crate::{ApiServer, Server, aside, claims};

const ROOT: &str = "/registry/";
const PAUSE: Duration = Duration::from_secs(1);

/// Which kind's objects lie below a prefix.
struct Places(HashMap<String, Arc<Kind>>);

impl Places {
    fn new(kinds: &[Arc<Kind>]) -> Self {
        let place = |kind: &Arc<Kind>| match &kind.storage {
            Storage::Stored(prefix) => Some((prefix.to_string(), Arc::clone(kind))),
            Storage::Virtual => None,
        };
        Self(kinds.iter().filter_map(place).collect())
    }

    /// A prefix has one segment below the root, or two.
    fn kind(&self, key: &str) -> Option<&Arc<Kind>> {
        let slashes = key.match_indices('/').map(|(at, _)| at).skip(2).take(2);
        slashes.filter_map(|end| self.0.get(&key[..end])).last()
    }
}

impl ApiServer {
    /// Follows the store from a revision on, for as long as the server is there.
    pub(crate) fn follow_others(&self, after: u64) {
        if !self.0.objects.store.is_shared() {
            return;
        }
        let server = Arc::downgrade(&self.0);
        let places = Places::new(api::kinds::builtin());
        tokio::spawn(async move {
            let mut after = after;
            while let Some(reached) = follow(&server, &places, after).await {
                after = reached;
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

/// Until the watch ends; then where to go on, if there is still a server. What others write may be large: to compile a
/// definition takes as long here as where it was written.
async fn follow(server: &Weak<Server>, places: &Places, after: u64) -> Option<u64> {
    let watch = server.upgrade()?.objects.store.watch(ROOT, after);
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(StoreError::Compacted { .. }) => {
            return aside::able(None, look_anew(&*server.upgrade()?, places)).await;
        }
        Err(error) => {
            tracing::warn!(%error, "cannot follow the other servers");
            return Some(after);
        }
    };
    loop {
        match watch.next().await {
            Ok(events) => aside::able(None, server.upgrade()?.others_wrote(places, &events)).await,
            Err(StoreError::Closed) => return None,
            Err(_) => return aside::able(None, look_anew(&*server.upgrade()?, places)).await,
        }
    }
}

/// Events were missed: anything may have been written.
async fn look_anew(server: &Server, places: &Places) -> Option<u64> {
    let revision = server.objects.store.revision();
    for kind in places.0.values() {
        server.after_write(kind, "").await;
    }
    if let Err(error) = server.reload_catalog().await {
        tracing::warn!(%error, "cannot reload the CustomResourceDefinitions");
    }
    if let Err(error) = server.load_addresses().await {
        tracing::warn!(%error, "cannot read the services' addresses");
    }
    Some(revision)
}

impl Server {
    async fn others_wrote(&self, places: &Places, events: &[Arc<Event>]) {
        let mut written = BTreeMap::new();
        let looked_into = events.iter().filter(|event| claims::may_be_held_by(&event.entry.key)).cloned();
        let looked_into: Vec<Arc<Event>> = looked_into.collect();
        if let Err(error) = self.objects.unlock_events(&looked_into).await {
            tracing::error!(%error, "cannot read what another server wrote");
        }
        for event in events {
            let Some(kind) = places.kind(&event.entry.key) else { continue };
            // What is made from all objects of a kind is made once; definitions are looked at one by one.
            let name = match &*kind.group {
                "apiextensions.k8s.io" => event.entry.key.rsplit('/').next().unwrap_or_default(),
                _ => "",
            };
            written.insert((kind.group.clone(), kind.plural.clone(), name.to_owned()), kind);
            let object = |entry: &store::Entry| self.objects.decode(entry).ok();
            let new = (!event.deleted).then(|| object(&event.entry)).flatten();
            self.addresses_changed(kind, event.previous.as_ref().and_then(object).as_ref(), new.as_ref());
        }
        for ((_, _, name), kind) in written {
            self.after_write(kind, &name).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_their_keys() {
        let places = Places::new(api::kinds::builtin());
        for (key, plural) in [
            ("/registry/services/specs/default/a", Some("services")),
            ("/registry/services/endpoints/default/a", Some("endpoints")),
            ("/registry/clusterroles/a:b/c", Some("clusterroles")),
            ("/registry/apiregistration.k8s.io/apiservices/v1.", Some("apiservices")),
            ("/registry/example.org/things/default/a", None),
            ("/registry/.kedge/ports/1", None),
        ] {
            assert_eq!(places.kind(key).map(|kind| &*kind.plural), plural, "{key}");
        }
    }
}
