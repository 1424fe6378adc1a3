//! The reconciler of Kustomization: source → build → check → apply → prune → health, each step's failure said in the
//! Ready condition. A broken source never takes down what runs: nothing is applied unless all of it would be accepted.

mod apply;
mod outcome;
mod terminating;
mod wait;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::constants::annotations::KUSTOMIZE_PRUNE;
use base::constants::labels::{KUSTOMIZATION_NAME, KUSTOMIZATION_NAMESPACE};
use client::{Cache, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::Value;

use crate::cluster::{Cluster, ClusterError};
use crate::conditions::{self, READY};
use crate::drift::Drift;
use crate::git_repository::Checkouts;
use crate::inventory::{self, Id};
use crate::kustomize::{self, Overrides};
use crate::source::Checkout;
use crate::types::{
    GitRepository, Inventory, Kustomization, KustomizationSpec, KustomizationStatus, SourceReference,
};
use crate::{duration, substitute};
use outcome::{Done, Failure};
use wait::{NOT_FOUND, Waiting};

const FINALIZER: &str = "finalizers.fluxcd.io";
const INTERVAL: Duration = Duration::from_secs(600);

pub struct Kustomizations {
    pub client: Client,
    pub cluster: Cluster,
    pub cache: Arc<Cache<Kustomization>>,
    pub sources: Arc<Cache<GitRepository>>,
    pub checkouts: Checkouts,
    pub recorder: Recorder,
    pub drift: Drift,
    /// Revisions whose objects are applied and are now waited for: since when.
    pub waiting: Mutex<BTreeMap<Key, Waiting>>,
}

impl Reconciler for Kustomizations {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(self.look(key))
    }
}

impl Kustomizations {
    async fn look(&self, key: Key) -> Outcome {
        if self.cache.get(&key).is_none() {
            return Ok(Next::OnChange);
        }
        // Read itself: its status holds the inventory, and a cache that lags behind our own last word would set it back.
        let Some(object) = self.api(&key).get_opt(&key.name).await? else { return Ok(Next::OnChange) };
        if object.metadata.deletion_timestamp.is_some() {
            return self.finalize(&key, &object).await;
        }
        if !object.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER) {
            self.set_finalizer(&key, true).await?;
        }
        if object.spec.suspend == Some(true) {
            return Ok(Next::OnChange);
        }
        let started = Instant::now();
        let mut status = object.status.clone().unwrap_or_default();
        let source = self.source(&object, &key);
        if matches!(source, Err(Failure::NoArtifact(_))) && self.is_known(&object, &key) {
            return Ok(Next::OnChange);
        }
        let revision = source.as_ref().map(|s| s.revision.clone()).unwrap_or_default();
        let result = match source {
            Ok(source) => self.bring_about(&key, &object, &source, &mut status).await,
            Err(failure) => Err(failure),
        };
        let next = self.settle(&key, &object, &revision, started, result, &mut status);
        self.report(&key, &object, &status).await?;
        Ok(next)
    }

    fn source(&self, object: &Kustomization, key: &Key) -> Result<Checkout, Failure> {
        let SourceReference { kind, name, namespace } = &object.spec.source_ref;
        let source = source_key(object, key);
        self.checkouts.get(&source).ok_or_else(|| match (self.sources.get(&source), namespace) {
            (Some(_), _) => Failure::NoArtifact(retry_interval(&object.spec)),
            (None, Some(namespace)) => Failure::NoSource(format!("{kind}/{namespace}/{name}")),
            (None, None) => Failure::NoSource(format!("{kind}/{name}")),
        })
    }

    /// Whether the source was fetched before this process began, and is about to be again: nothing is amiss until it comes.
    fn is_known(&self, object: &Kustomization, key: &Key) -> bool {
        self.sources.get(&source_key(object, key)).is_some_and(|source| {
            source.spec.suspend != Some(true) && source.status.as_ref().is_some_and(|s| s.artifact.is_some())
        })
    }

    async fn bring_about(
        &self,
        key: &Key,
        object: &Kustomization,
        source: &Checkout,
        status: &mut KustomizationStatus,
    ) -> Result<Done, Failure> {
        check_supported(&object.spec)?;
        self.check_dependencies(key, &object.spec)?;
        status.last_attempted_revision = Some(source.revision.clone());
        let (mut wanted, origins): (Vec<Value>, Vec<String>) =
            self.render(key, object, source).await?.into_iter().unzip();
        self.place(&mut wanted).await;
        let mark = format!("{} {}", source.revision, object.metadata.generation.unwrap_or(0));
        let already = self.waiting.lock().get(key).is_some_and(|w| w.mark == mark && !w.lost);
        if !already {
            let before = status.inventory.clone().unwrap_or_default();
            let origins = wanted.iter().map(Id::of).zip(origins).collect();
            self.check_namespaces(&wanted).await?;
            if let Err(failure) = self.apply_all(key, object, &mut wanted, &origins, status).await {
                // One may have begun to go meanwhile: that is why, then.
                self.check_namespaces(&wanted).await?;
                return Err(failure);
            }
            let after = inventory::of(&wanted);
            if object.spec.prune {
                self.prune(key, object, &before, &wanted).await.map_err(Failure::Prune)?;
            }
            status.inventory = Some(after);
            let ids: Vec<Id> = wanted.iter().map(Id::of).collect();
            self.drift.follow(&ids).await;
        }
        let unhealthy = self.check_health(&object.spec, &wanted).await?;
        let Some(unhealthy) = unhealthy else {
            self.waiting.lock().remove(key);
            return Ok(Done::Ready);
        };
        let since = {
            let mut waiting = self.waiting.lock();
            let begun = waiting.get(key).filter(|w| w.mark == mark).map_or_else(Instant::now, |w| w.since);
            // What somebody has taken away meanwhile will not come by waiting: it is applied again the next time.
            let lost = unhealthy.contains(NOT_FOUND);
            waiting.insert(key.clone(), Waiting { mark, since: begun, lost });
            begun
        };
        let timeout = duration::or(object.spec.timeout.as_deref(), interval(&object.spec));
        if since.elapsed() > timeout {
            self.waiting.lock().remove(key);
            return Err(Failure::Late { timeout, what: unhealthy });
        }
        Ok(Done::Waiting(unhealthy))
    }

    fn check_dependencies(&self, key: &Key, spec: &KustomizationSpec) -> Result<(), Failure> {
        for dependency in &spec.depends_on {
            let namespace = dependency.namespace.clone().unwrap_or_else(|| key.namespace.clone());
            let other = Key::new(namespace, &dependency.name);
            let ready = self.cache.get(&other).is_some_and(|k| {
                let status = k.status.clone().unwrap_or_default();
                conditions::is_true(&status.conditions, READY)
                    && status.observed_generation == k.metadata.generation
            });
            if !ready {
                return Err(Failure::Dependency(other.to_string()));
            }
        }
        Ok(())
    }

    /// The objects that the source and the Kustomization's own fields amount to, each with the file it is from.
    async fn render(
        &self,
        key: &Key,
        object: &Kustomization,
        source: &Checkout,
    ) -> Result<Vec<(Value, String)>, Failure> {
        let spec = &object.spec;
        let overrides = Overrides {
            namespace: spec.target_namespace.clone(),
            name_prefix: spec.name_prefix.clone(),
            name_suffix: spec.name_suffix.clone(),
            patches: spec.patches.clone(),
            images: spec.images.clone(),
        };
        let path = spec.path.as_deref().unwrap_or_default();
        let mut objects = kustomize::build_from(&source.files, path, &overrides)?;
        if let Some(post_build) = &spec.post_build {
            let variables = self.variables(key, post_build).await?;
            objects.iter_mut().for_each(|(object, _)| substitute::run(object, &variables));
        }
        for (value, _) in &mut objects {
            if let Some(common) = &spec.common_metadata {
                for (field, pairs) in [("labels", &common.labels), ("annotations", &common.annotations)] {
                    pairs.iter().for_each(|(k, v)| value["metadata"][field][k] = v.as_str().into());
                }
            }
            value["metadata"]["labels"][KUSTOMIZATION_NAME] = key.name.as_str().into();
            value["metadata"]["labels"][KUSTOMIZATION_NAMESPACE] = key.namespace.as_str().into();
        }
        Ok(objects)
    }

    async fn variables(
        &self,
        key: &Key,
        post_build: &crate::types::PostBuild,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let mut variables = BTreeMap::new();
        for from in &post_build.substitute_from {
            let found = match from.kind.as_str() {
                "Secret" => {
                    let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
                    let secret =
                        api.get_opt(&from.name).await.map_err(|e| Failure::PostBuild(e.to_string()))?;
                    secret.map(|s| {
                        s.data
                            .unwrap_or_default()
                            .into_iter()
                            .map(|(k, v)| (k, String::from_utf8_lossy(&v.0).into_owned()))
                            .collect()
                    })
                }
                _ => {
                    let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
                    let map = api.get_opt(&from.name).await.map_err(|e| Failure::PostBuild(e.to_string()))?;
                    map.map(|m| m.data.unwrap_or_default())
                }
            };
            match found {
                Some(found) => variables.extend(found),
                None if from.optional => {}
                None => {
                    return Err(Failure::PostBuild(format!(
                        "substitute from '{}/{}': not found",
                        from.kind, from.name
                    )));
                }
            }
        }
        variables.extend(post_build.substitute.clone());
        Ok(variables)
    }

    fn announce(&self, object: &Kustomization, changed: &[String]) {
        if !changed.is_empty() {
            self.recorder.record(object, Level::Normal, "Progressing", changed.join("\n"));
        }
    }

    async fn prune(
        &self,
        key: &Key,
        object: &Kustomization,
        before: &Inventory,
        wanted: &[Value],
    ) -> Result<(), ClusterError> {
        let mut deleted = Vec::new();
        for id in inventory::stale(before, wanted) {
            let Some(found) = self.cluster.get(&id).await? else { continue };
            if self.is_ours(key, &found) {
                self.cluster.delete(&id).await?;
                deleted.push(format!("{} deleted", id.label()));
            }
        }
        self.announce(object, &deleted);
        Ok(())
    }

    /// Only what carries our labels and does not forbid it is deleted.
    fn is_ours(&self, key: &Key, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned();
        let kept = |field: &str| object["metadata"][field][KUSTOMIZE_PRUNE] == "disabled";
        label(KUSTOMIZATION_NAME) == key.name
            && label(KUSTOMIZATION_NAMESPACE) == key.namespace
            && !kept("annotations")
            && !kept("labels")
    }

    async fn report(
        &self,
        key: &Key,
        object: &Kustomization,
        status: &KustomizationStatus,
    ) -> Result<(), kube::Error> {
        if object.status.as_ref() == Some(status) {
            return Ok(());
        }
        let patch = Patch::Merge(serde_json::json!({"status": status}));
        self.api(key).patch_status(&key.name, &PatchParams::default(), &patch).await.map(drop)
    }

    fn api(&self, key: &Key) -> Api<Kustomization> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// Takes everything down that was applied, then lets the object go.
    async fn finalize(&self, key: &Key, object: &Kustomization) -> Outcome {
        let before = object.status.as_ref().and_then(|s| s.inventory.clone()).unwrap_or_default();
        if object.spec.prune && object.spec.suspend != Some(true) {
            self.prune(key, object, &before, &[]).await?;
        }
        self.waiting.lock().remove(key);
        self.set_finalizer(key, false).await?;
        Ok(Next::OnChange)
    }

    async fn set_finalizer(&self, key: &Key, present: bool) -> Result<(), kube::Error> {
        let api = self.api(key);
        let Some(current) = api.get_opt(&key.name).await? else { return Ok(()) };
        let mut finalizers = current.metadata.finalizers.unwrap_or_default();
        finalizers.retain(|f| f != FINALIZER);
        if present {
            finalizers.push(FINALIZER.into());
        }
        let metadata = serde_json::json!({"metadata": {"finalizers": finalizers, "resourceVersion": current.metadata.resource_version}});
        api.patch(&key.name, &PatchParams::default(), &Patch::Merge(metadata)).await.map(drop)
    }
}

/// Fields that change on whose behalf, where or how things are applied: passing over them would be wrong.
fn check_supported(spec: &KustomizationSpec) -> Result<(), Failure> {
    let given = [
        ("serviceAccountName", &spec.service_account_name),
        ("kubeConfig", &spec.kube_config),
        ("decryption", &spec.decryption),
    ];
    given
        .into_iter()
        .find(|(_, value)| value.is_some())
        .map_or(Ok(()), |(name, _)| Err(Failure::Unsupported(name)))
}

fn source_key(object: &Kustomization, key: &Key) -> Key {
    let reference = &object.spec.source_ref;
    Key::new(reference.namespace.as_ref().unwrap_or(&key.namespace), &reference.name)
}

fn interval(spec: &KustomizationSpec) -> Duration {
    duration::or(Some(&spec.interval), INTERVAL)
}

fn retry_interval(spec: &KustomizationSpec) -> Duration {
    duration::or(spec.retry_interval.as_deref(), interval(spec))
}
