//! GitOps: what Git holds is what the cluster runs. Sources are checked out, Kustomizations are built, applied, pruned
//! and watched. The engine knows the API only through a client, and so runs on any cluster.

mod cluster;
mod conditions;
mod definitions;
mod drift;
mod duration;
pub mod files;
pub mod fuzzed;
mod git_repository;
pub mod health;
pub mod inventory;
mod kustomization;
pub mod kustomize;
pub mod source;
mod substitute;
mod takeover;
pub mod types;
pub mod wording;

use std::path::PathBuf;
use std::sync::Arc;

use client::{Caches, Controller, Key, Recorder};
use tokio_util::sync::CancellationToken;

use cluster::{Cluster, ClusterError};
use git_repository::{Checkouts, GitRepositories};
use kustomization::Kustomizations;
use types::{GitRepository, Kustomization};

pub struct Config {
    /// Where mirrors of remote repositories are kept.
    pub folder: PathBuf,
}

/// Runs the engine until stopped. Its definitions are applied first.
pub async fn run(caches: Caches, config: Config, stop: CancellationToken) -> Result<(), ClusterError> {
    let client = caches.client();
    let cluster = Cluster::new(client.clone());
    for definition in definitions::all() {
        cluster.apply(&definition, false).await?;
    }
    let (repositories, kustomizations) = (caches.of::<GitRepository>(), caches.of::<Kustomization>());
    let checkouts = Checkouts::default();

    // Each of the two controllers wakes the other, or itself from outside; the queues exist before the reconcilers do.
    let (wake_source, sources) = client::waker();
    let (wake_apply, applies) = client::waker();
    let for_change = (Arc::clone(&kustomizations), wake_apply.clone());
    let changed = move |source: &Key| {
        for object in for_change.0.all() {
            let reference = &object.spec.source_ref;
            let key = Key::of(&*object);
            let namespace = reference.namespace.as_deref().unwrap_or(&key.namespace);
            if (namespace, reference.name.as_str()) == (source.namespace.as_str(), source.name.as_str()) {
                (for_change.1)(key);
            }
        }
    };
    let source = GitRepositories {
        client: client.clone(),
        cache: Arc::clone(&repositories),
        checkouts: checkouts.clone(),
        recorder: Recorder::new(client.clone(), "source-controller", None),
        folder: config.folder,
        trigger: Arc::new(wake_source),
        changed: Arc::new(changed),
        watched: Default::default(),
    };
    let apply = Kustomizations {
        client: client.clone(),
        cluster: cluster.clone(),
        cache: Arc::clone(&kustomizations),
        sources: Arc::clone(&repositories),
        checkouts,
        recorder: Recorder::new(client.clone(), "kustomize-controller", None),
        drift: drift::Drift::new(client, cluster, Arc::new(wake_apply), stop.clone()),
        waiting: Default::default(),
    };
    let source = Controller::new("git-repository", source).woken_by(sources).on_spec_change(&repositories);
    let apply = Controller::new("kustomization", apply)
        .woken_by(applies)
        .on_spec_change(&kustomizations)
        .watches(&kustomizations, dependents(&kustomizations));
    futures::future::join(source.run(stop.clone()), apply.run(stop)).await;
    Ok(())
}

/// Those that wait for a Kustomization, when it becomes ready.
fn dependents(
    cache: &Arc<client::Cache<Kustomization>>,
) -> impl Fn(&client::Change<Kustomization>) -> Vec<Key> + Send + Sync + use<> {
    let cache = Arc::downgrade(cache);
    move |change| {
        let ready = |k: &Arc<Kustomization>| {
            k.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, conditions::READY))
        };
        let became = change.new.as_ref().is_some_and(ready) && !change.old.as_ref().is_some_and(ready);
        let Some(cache) = cache.upgrade().filter(|_| became) else { return Vec::new() };
        let of = Key::of(&**change.object());
        let waits = |k: &Arc<Kustomization>| {
            let own = Key::of(&**k);
            k.spec.depends_on.iter().any(|d| {
                d.name == of.name && d.namespace.as_deref().unwrap_or(&own.namespace) == of.namespace
            })
        };
        cache.all().iter().filter(|k| waits(k)).map(|k| Key::of(&**k)).collect()
    }
}
