//! The reconciler of GitRepository: keeps the newest checkout of each, and says in the status what it is.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base::constants::annotations::RECONCILE_REQUESTED_AT;
use client::{Cache, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::conditions::{self, READY, RECONCILING};
use crate::duration;
use crate::source::{self, Checkout, Login, SourceError, local_path};
use crate::types::{Artifact, GitRepository, GitRepositoryStatus};

const INTERVAL: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(60);

/// The newest checkout of each repository; those who apply them read it here.
#[derive(Clone, Default)]
pub struct Checkouts(Arc<Mutex<HashMap<Key, Checkout>>>);

impl Checkouts {
    pub fn get(&self, key: &Key) -> Option<Checkout> {
        self.0.lock().get(key).cloned()
    }
}

pub struct GitRepositories {
    pub client: Client,
    pub cache: Arc<Cache<GitRepository>>,
    pub checkouts: Checkouts,
    pub recorder: Recorder,
    /// Where mirrors of remote repositories are kept.
    pub folder: PathBuf,
    /// Wakes this reconciler for a repository whose files on disk have changed.
    pub trigger: Arc<dyn Fn(Key) + Send + Sync>,
    /// Told when there is a new checkout, or none any more.
    pub changed: Arc<dyn Fn(&Key) + Send + Sync>,
    pub watched: Mutex<HashMap<Key, (PathBuf, CancellationToken)>>,
}

impl Reconciler for GitRepositories {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(self.look(key))
    }
}

impl GitRepositories {
    async fn look(&self, key: Key) -> Outcome {
        let Some(repository) = self.cache.get(&key) else {
            self.checkouts.0.lock().remove(&key);
            self.unwatch(&key);
            // Those that apply it have lost their source, and say so.
            (self.changed)(&key);
            return Ok(Next::OnChange);
        };
        if repository.spec.suspend == Some(true) {
            self.unwatch(&key);
            return Ok(Next::OnChange);
        }
        self.watch(&key, &repository.spec.url);
        let known = self.checkouts.get(&key);
        let result = self.checkout(&key, &repository, known.clone()).await;
        let interval = duration::or(Some(&repository.spec.interval), INTERVAL);
        let mut is_new = false;
        match &result {
            Ok(checkout) if known.as_ref().map(|k| &k.revision) != Some(&checkout.revision) => {
                is_new = true;
                self.checkouts.0.lock().insert(key.clone(), checkout.clone());
                let message = format!("stored artifact for revision '{}'", checkout.revision);
                self.recorder.record(&*repository, Level::Normal, "NewArtifact", message);
            }
            Ok(_) => {}
            Err(error) => {
                self.recorder.record(&*repository, Level::Warning, "GitOperationFailed", error.to_string())
            }
        }
        self.report(&key, &repository, &result).await?;
        if is_new {
            (self.changed)(&key);
        }
        Ok(Next::After(interval))
    }

    async fn checkout(
        &self,
        key: &Key,
        repository: &GitRepository,
        known: Option<Checkout>,
    ) -> Result<Checkout, SourceError> {
        let url = repository.spec.url.clone();
        let reference = repository.spec.reference.clone().unwrap_or_default();
        let mirror = source::mirror(&self.folder, &key.namespace, &key.name, &url);
        let login = match &repository.spec.secret_ref {
            Some(secret) => Some(self.login(&key.namespace, &secret.name, &url).await?),
            None => None,
        };
        let cancel = Arc::new(AtomicBool::new(false));
        let (flag, at) = (Arc::clone(&cancel), url.clone());
        let work = tokio::task::spawn_blocking(move || {
            source::checkout(&at, &reference, &mirror, login.as_ref(), known.as_ref(), &flag)
        });
        let timeout = duration::or(repository.spec.timeout.as_deref(), TIMEOUT);
        let failed = |detail: String| SourceError::Fetch { url: url.clone(), detail };
        match tokio::time::timeout(timeout, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => {
                cancel.store(true, std::sync::atomic::Ordering::Relaxed);
                Err(failed(format!("no answer within {}", duration::show(timeout))))
            }
        }
    }

    async fn login(&self, namespace: &str, name: &str, url: &str) -> Result<Login, SourceError> {
        let failed = |detail: String| SourceError::Fetch { url: url.to_owned(), detail };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret =
            secrets.get(name).await.map_err(|e| failed(format!("secret {namespace}/{name}: {e}")))?;
        let bytes = |keys: &[&str]| {
            let data = secret.data.as_ref();
            keys.iter().find_map(|key| data.and_then(|d| d.get(*key))).map(|b| b.0.clone())
        };
        let text = |key: &str| bytes(&[key]).and_then(|b| String::from_utf8(b).ok());
        // The older names of the keys came before the ones that TLS Secrets have.
        let certificate = bytes(&["tls.crt", "certFile"]).zip(bytes(&["tls.key", "keyFile"]));
        let login = Login {
            username: text("username"),
            password: text("password"),
            bearer_token: text("bearerToken"),
            authorities: bytes(&["ca.crt", "caFile"]),
            identity: certificate.map(|(certificate, key)| [certificate, b"\n".to_vec(), key].concat()),
        };
        let has_name = login.username.is_some() && login.password.is_some();
        let has_any = has_name || login.bearer_token.is_some() || login.authorities.is_some();
        if !has_any && login.identity.is_none() {
            return Err(failed(format!(
                "secret {namespace}/{name} has neither username and password, nor bearerToken, ca.crt, or tls.crt and tls.key"
            )));
        }
        Ok(login)
    }

    async fn report(
        &self,
        key: &Key,
        repository: &GitRepository,
        result: &Result<Checkout, SourceError>,
    ) -> Result<(), kube::Error> {
        let before = repository.status.clone().unwrap_or_default();
        let mut status =
            GitRepositoryStatus { observed_generation: repository.metadata.generation, ..before.clone() };
        let generation = repository.metadata.generation;
        conditions::remove(&mut status.conditions, RECONCILING);
        match result {
            Ok(checkout) => {
                if status.artifact.as_ref().map(|a| &a.revision) != Some(&checkout.revision) {
                    status.artifact = Some(Artifact {
                        revision: checkout.revision.clone(),
                        digest: format!("sha1:{}", checkout.commit),
                        path: format!("gitrepository/{}/{}/{}", key.namespace, key.name, checkout.commit),
                        url: repository.spec.url.clone(),
                        last_update_time: base::time::rfc3339_seconds(base::time::now()),
                    });
                }
                let message = format!("stored artifact for revision '{}'", checkout.revision);
                conditions::set(&mut status.conditions, READY, "True", "Succeeded", &message, generation);
                conditions::set(
                    &mut status.conditions,
                    "ArtifactInStorage",
                    "True",
                    "Succeeded",
                    &message,
                    generation,
                );
            }
            Err(error) => {
                let message = format!("failed to checkout and determine revision: {error}");
                conditions::set(
                    &mut status.conditions,
                    READY,
                    "False",
                    "GitOperationFailed",
                    &message,
                    generation,
                );
            }
        }
        let annotations = repository.metadata.annotations.as_ref();
        status.last_handled_reconcile_at = annotations.and_then(|a| a.get(RECONCILE_REQUESTED_AT)).cloned();
        if status == before {
            return Ok(());
        }
        let api: Api<GitRepository> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Merge(serde_json::json!({"status": status}));
        api.patch_status(&key.name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Follows the references of a repository on this machine.
    fn watch(&self, key: &Key, url: &str) {
        let path = local_path(url);
        let mut watched = self.watched.lock();
        match (watched.get(key), &path) {
            (Some((known, _)), Some(path)) if known == path => return,
            (Some((_, stop)), _) => stop.cancel(),
            (None, _) => {}
        }
        watched.remove(key);
        let Some(path) = path.filter(|p| p.is_dir()) else { return };
        let stop = CancellationToken::new();
        let (trigger, woken) = (Arc::clone(&self.trigger), key.clone());
        tokio::spawn(source::watch::watch(path.clone(), move || trigger(woken.clone()), stop.clone()));
        watched.insert(key.clone(), (path, stop));
    }

    fn unwatch(&self, key: &Key) {
        if let Some((_, stop)) = self.watched.lock().remove(key) {
            stop.cancel();
        }
    }
}
