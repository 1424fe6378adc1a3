//! One cache a kind: filled by a single list and watch, shared by all who look at that kind, indexed by namespace,
//! label and owner, so that nobody lists the world.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch as signal;
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::slim::slim;

/// What a kind must be to be cached.
pub trait Object:
    kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}
impl<T> Object for T where
    T: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// An object came (no `old`), changed, or went (no `new`).
pub struct Change<T> {
    pub old: Option<Arc<T>>,
    pub new: Option<Arc<T>>,
}

impl<T> Change<T> {
    /// The object as it is, or as it last was.
    pub fn object(&self) -> &Arc<T> {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has at least one side")
    }
}

type Listener<T> = Box<dyn Fn(&Change<T>) + Send + Sync>;

pub struct Cache<T> {
    state: RwLock<State<T>>,
    listeners: Mutex<Vec<Listener<T>>>,
    ready: signal::Sender<bool>,
}

type Keys = HashSet<Arc<Key>>;

struct State<T> {
    objects: HashMap<Arc<Key>, Arc<T>>,
    by_namespace: HashMap<String, Keys>,
    /// See [`label`].
    by_label: HashMap<String, Keys>,
    /// Uid of an owner → what it owns.
    by_owner: HashMap<String, Keys>,
}

/// A label of objects in a namespace, as the index names it.
fn label(namespace: &str, (name, value): (&str, &str)) -> String {
    format!("{namespace}/{name}={value}")
}

impl<T> State<T> {
    fn objects(&self, keys: Option<&Keys>) -> Vec<Arc<T>> {
        keys.into_iter().flatten().filter_map(|key| self.objects.get(key).cloned()).collect()
    }
}

impl<T: Object> Cache<T> {
    fn new() -> Self {
        let state = State {
            objects: HashMap::new(),
            by_namespace: HashMap::new(),
            by_label: HashMap::new(),
            by_owner: HashMap::new(),
        };
        Self { state: RwLock::new(state), listeners: Mutex::default(), ready: signal::Sender::new(false) }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.state.read().objects.get(key).cloned()
    }

    pub fn all(&self) -> Vec<Arc<T>> {
        self.state.read().objects.values().cloned().collect()
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let state = self.state.read();
        state.objects(state.by_namespace.get(namespace))
    }

    /// Those in a namespace that have at least one of these labels, the rarest: what has all of them is among those. Without
    /// labels all.
    pub fn labelled<'a>(
        &self,
        namespace: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Vec<Arc<T>> {
        self.state.read().labelled(namespace, labels)
    }

    /// What has an owner reference to this uid, in the owner's namespace: in others it means nothing.
    pub fn owned_by(&self, namespace: &str, uid: &str) -> Vec<Arc<T>> {
        self.state.read().owned(namespace, uid)
    }

    /// What has an owner reference to this uid, and what may become its: see [`Cache::labelled`]. Of one moment, so that
    /// what is taken over just now is in one or the other.
    pub fn owned_or_labelled<'a>(
        &self,
        namespace: &str,
        uid: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Vec<Arc<T>> {
        let state = self.state.read();
        let mut found = state.owned(namespace, uid);
        let labelled = state.labelled(namespace, labels).into_iter();
        found.extend(labelled.filter(|object| owners(&**object).all(|owner| owner != uid)));
        found
    }

    /// Calls `listener` for each change from now on, and first for each object that is there. It must return quickly.
    pub fn listen(&self, listener: impl Fn(&Change<T>) + Send + Sync + 'static) {
        let mut listeners = self.listeners.lock();
        for object in self.all() {
            listener(&Change { old: None, new: Some(object) });
        }
        listeners.push(Box::new(listener));
    }

    /// Returns once the first list has been taken in.
    pub async fn ready(&self) {
        // The sender lives as long as this cache does.
        drop(self.ready.subscribe().wait_for(|ready| *ready).await);
    }

    fn set(&self, object: T) {
        let key = Key::of(&object);
        let object = Arc::new(object);
        // Listeners are held across the change, so that each sees all changes in one order.
        let listeners = self.listeners.lock();
        let old = self.state.write().insert(key, Arc::clone(&object));
        let change = Change { old, new: Some(object) };
        listeners.iter().for_each(|listener| listener(&change));
    }

    fn remove(&self, key: &Key) {
        let listeners = self.listeners.lock();
        let old = self.state.write().remove(key);
        if old.is_some() {
            let change = Change { old, new: None };
            listeners.iter().for_each(|listener| listener(&change));
        }
    }

    /// Follows the API until stopped. After an interruption it lists again and works out what was missed.
    async fn follow(&self, client: Client, stop: CancellationToken) {
        let config = watch::Config::default().any_semantic();
        let mut events = watch::watcher(Api::<T>::all(client), config).default_backoff().boxed();
        let mut listed: Option<HashSet<Key>> = None;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = stop.cancelled() => return,
            };
            match event {
                Some(Ok(event)) => self.take(event, &mut listed),
                Some(Err(error)) => tracing::debug!(%error, kind = %T::kind(&()), "a watch was interrupted"),
                None => return,
            }
        }
    }

    fn take(&self, event: watcher::Event<T>, listed: &mut Option<HashSet<Key>>) {
        match event {
            Event::Init => *listed = Some(HashSet::new()),
            Event::InitApply(object) => {
                if let Some(listed) = listed {
                    listed.insert(Key::of(&object));
                }
                self.set(slim(object));
            }
            Event::InitDone => {
                let listed = listed.take().unwrap_or_default();
                let gone: Vec<Arc<Key>> = {
                    let state = self.state.read();
                    state.objects.keys().filter(|key| !listed.contains(&***key)).cloned().collect()
                };
                gone.iter().for_each(|key| self.remove(key));
                self.ready.send_replace(true);
            }
            Event::Apply(object) => self.set(slim(object)),
            Event::Delete(object) => self.remove(&Key::of(&object)),
        }
    }
}

fn owners<T: Object>(object: &T) -> impl Iterator<Item = &str> {
    object.meta().owner_references.iter().flatten().map(|owner| owner.uid.as_str())
}

impl<T: Object> State<T> {
    fn owned(&self, namespace: &str, uid: &str) -> Vec<Arc<T>> {
        let keys = self.by_owner.get(uid).into_iter().flatten();
        keys.filter(|key| key.namespace == namespace)
            .filter_map(|key| self.objects.get(key).cloned())
            .collect()
    }

    fn labelled<'a>(&self, namespace: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Arc<T>> {
        let found = labels.map(|pair| self.by_label.get(&label(namespace, pair)));
        match found.min_by_key(|keys| keys.map_or(0, HashSet::len)) {
            Some(keys) => self.objects(keys),
            None => self.objects(self.by_namespace.get(namespace)),
        }
    }

    fn insert(&mut self, key: Key, object: Arc<T>) -> Option<Arc<T>> {
        let old = self.remove(&key);
        let key = Arc::new(key);
        self.by_namespace.entry(key.namespace.clone()).or_default().insert(Arc::clone(&key));
        for (name, value) in object.meta().labels.iter().flatten() {
            let label = label(&key.namespace, (name, value));
            self.by_label.entry(label).or_default().insert(Arc::clone(&key));
        }
        for owner in object.meta().owner_references.iter().flatten() {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(Arc::clone(&key));
        }
        self.objects.insert(key, object);
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<T>> {
        let old = self.objects.remove(key)?;
        unindex(&mut self.by_namespace, &key.namespace, key);
        for (name, value) in old.meta().labels.iter().flatten() {
            unindex(&mut self.by_label, &label(&key.namespace, (name, value)), key);
        }
        for owner in old.meta().owner_references.iter().flatten() {
            unindex(&mut self.by_owner, &owner.uid, key);
        }
        Some(old)
    }
}

fn unindex(index: &mut HashMap<String, Keys>, at: &str, key: &Key) {
    if let Some(keys) = index.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(at);
        }
    }
}

/// The caches of this process. Asking for a kind starts its cache; asking again gives the same.
#[derive(Clone)]
pub struct Caches {
    client: Client,
    reader: Client,
    stop: CancellationToken,
    by_type: Arc<Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>,
}

impl Caches {
    /// Caches follow the API until `stop`.
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        Self { reader: client.clone(), client, stop, by_type: Arc::default() }
    }

    /// Those who follow kinds read by this client, which may leave out what [`slim`] does.
    pub fn reading_by(self, reader: Client) -> Self {
        Self { reader, ..self }
    }

    /// By which kinds are followed.
    pub fn reader(&self) -> Client {
        self.reader.clone()
    }

    /// The same caches for somebody else, who acts by a client of their own: what is cached is read once for all.
    pub fn acting_by(&self, client: Client) -> Self {
        Self { client, ..self.clone() }
    }

    /// By which whoever has these caches acts.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub fn of<T: Object>(&self) -> Arc<Cache<T>> {
        let mut by_type = self.by_type.lock();
        let known = by_type.get(&TypeId::of::<T>()).cloned();
        if let Some(cache) = known.and_then(|cache| cache.downcast::<Cache<T>>().ok()) {
            return cache;
        }
        let cache = Arc::new(Cache::<T>::new());
        by_type.insert(TypeId::of::<T>(), Arc::clone(&cache) as Arc<dyn Any + Send + Sync>);
        let (following, client, stop) = (Arc::clone(&cache), self.reader.clone(), self.stop.clone());
        tokio::spawn(async move { following.follow(client, stop).await });
        cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn map(namespace: &str, name: &str, owner: Option<&str>) -> ConfigMap {
        let owners = owner.map(|uid| {
            vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
                uid: uid.into(),
                ..Default::default()
            }]
        });
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some(namespace.into());
        map.metadata.name = Some(name.into());
        map.metadata.owner_references = owners;
        map
    }

    #[test]
    fn indexes_follow_every_change_and_a_new_list_removes_what_is_gone() {
        let cache = Cache::<ConfigMap>::new();
        let mut listed = None;
        for event in [
            Event::Init,
            Event::InitApply(map("a", "x", Some("1"))),
            Event::InitApply(map("b", "y", None)),
            Event::InitDone,
            Event::Apply(map("a", "x", Some("2"))),
        ] {
            cache.take(event, &mut listed);
        }
        assert!(cache.owned_by("a", "1").is_empty());
        assert_eq!(cache.owned_by("a", "2").len(), 1);
        assert!(cache.owned_by("b", "2").is_empty(), "an owner has nothing in other namespaces");
        let either = cache.owned_or_labelled("a", "2", std::iter::empty());
        assert_eq!(either.len(), 1, "what is both is there once");
        assert_eq!(cache.in_namespace("b").len(), 1);
        let gone = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&gone);
        cache.listen(move |change| {
            if change.new.is_none() {
                seen.lock().push(Key::of(&**change.object()).to_string());
            }
        });
        for event in [Event::Init, Event::InitApply(map("b", "y", None)), Event::InitDone] {
            cache.take(event, &mut listed);
        }
        assert_eq!(*gone.lock(), ["a/x"]);
        assert!(cache.owned_by("a", "2").is_empty() && cache.in_namespace("a").is_empty());
    }

    #[test]
    fn labels_find_what_has_them_and_forget_what_has_them_no_more() {
        let cache = Cache::<ConfigMap>::new();
        let labelled = |namespace: &str, name: &str, labels: &[(&str, &str)]| {
            let mut map = map(namespace, name, None);
            map.metadata.labels =
                Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
            map
        };
        let found = |labels: &[(&str, &str)]| {
            let mut names: Vec<_> = cache.labelled("a", labels.iter().copied());
            names.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
            names.iter().filter_map(|map| map.metadata.name.clone()).collect::<String>()
        };
        cache.set(labelled("a", "x", &[("app", "1"), ("tier", "web")]));
        cache.set(labelled("a", "y", &[("app", "1")]));
        cache.set(labelled("b", "z", &[("app", "1")]));
        assert_eq!(found(&[]), "xy");
        assert_eq!(found(&[("app", "1")]), "xy");
        assert_eq!(found(&[("app", "1"), ("tier", "web")]), "x", "the rarer of the two");
        assert_eq!(found(&[("app", "2"), ("tier", "web")]), "");
        cache.set(labelled("a", "x", &[("app", "2")]));
        assert_eq!((found(&[("app", "1")]), found(&[("app", "2")])), ("y".into(), "x".into()));
        cache.remove(&Key::new("a", "y"));
        assert_eq!(found(&[("app", "1")]), "");
        let state = cache.state.read();
        assert_eq!(state.by_label.len(), 2, "nothing is kept of labels that nobody has");
    }
}
