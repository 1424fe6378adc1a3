//! What every controller is given, and the few ways in which all of them write.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use client::{Caches, Object, Recorder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::certificates::CertificateSigner;
use crate::deletions::Deletions;
use crate::meta;
use crate::token_secrets::TokenSigner;

/// What only the one who starts the controllers knows.
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificate authority of the API server, published in every namespace.
    pub cluster_ca_pem: String,
    /// Where the local provisioner makes the directories of volumes, on the node.
    pub volumes_dir: PathBuf,
    /// Signs the certificates of requests that were approved.
    pub signer: Arc<dyn CertificateSigner>,
    /// Signs the tokens that lie in Secrets.
    pub tokens: Arc<dyn TokenSigner>,
}

#[derive(Clone)]
pub struct Context {
    pub caches: Caches,
    pub config: Arc<Config>,
    /// Ends what a controller started beside its reconciles.
    pub stop: CancellationToken,
    pub deletions: Deletions,
}

impl Context {
    pub fn client(&self) -> Client {
        self.caches.client()
    }

    pub fn recorder(&self, component: &str) -> Recorder {
        Recorder::new(self.client(), component, None)
    }

    pub fn api<T>(&self, namespace: &str) -> Api<T>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client(), namespace)
    }

    pub fn cluster_api<T>(&self) -> Api<T>
    where
        T: Resource<DynamicType = (), Scope = ClusterResourceScope>,
    {
        Api::all(self.client())
    }

    /// Applies a set's claims to pods or sets it found: adopts the free, releases those that match no longer.
    /// Returns what is now the set's. Before anything is adopted the owner is read live: a cache may not have seen
    /// that it was replaced by a namesake.
    pub async fn claim<O, T>(
        &self,
        owner: &O,
        selector: &api::selector::Selector,
        candidates: Vec<Arc<T>>,
    ) -> Result<Vec<Arc<T>>, kube::Error>
    where
        O: Object + Resource<Scope = NamespaceResourceScope>,
        T: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let mut claimed = Vec::new();
        let mut may_adopt = None;
        let objects: Api<T> = self.api(meta::namespace(owner.meta()));
        for object in candidates {
            match meta::claim(object.meta(), owner.meta(), selector) {
                meta::Claim::Keep => claimed.push(object),
                meta::Claim::Ignore => {}
                meta::Claim::Release => {
                    let owners = json!([{ "$patch": "delete", "uid": meta::uid(owner.meta()) }]);
                    ignore_missing(patch_owners(&objects, object.meta(), owners).await)?;
                }
                meta::Claim::Adopt => {
                    if may_adopt.is_none() {
                        may_adopt = Some(self.is_alive(owner).await?);
                    }
                    if may_adopt == Some(true) {
                        let owners = json!([meta::controller_ref(owner)]);
                        // What it looks like now comes with the next change.
                        ignore_missing(patch_owners(&objects, object.meta(), owners).await)?;
                        claimed.push(object);
                    }
                }
            }
        }
        Ok(claimed)
    }

    /// What may be an owner's: what is by its word, and what has the labels. Which of it is, [`Context::claim`] finds out.
    pub fn candidates<T: Object>(
        cache: &client::Cache<T>,
        owner: &impl Object,
        selector: &api::selector::Selector,
    ) -> Vec<Arc<T>> {
        let (namespace, uid) = (meta::namespace(owner.meta()), meta::uid(owner.meta()));
        cache.owned_or_labelled(namespace, uid, selector.equalities())
    }

    async fn is_alive<O>(&self, owner: &O) -> Result<bool, kube::Error>
    where
        O: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let api: Api<O> = self.api(meta::namespace(owner.meta()));
        let live = api.get_opt(meta::name(owner.meta())).await?;
        Ok(live.is_some_and(|live| live.meta().uid == owner.meta().uid && !meta::is_deleting(live.meta())))
    }

    pub async fn delete_pod(&self, pod: &Pod) -> Result<(), kube::Error> {
        let api: Api<Pod> = self.api(meta::namespace(&pod.metadata));
        delete_exactly(&api, &pod.metadata, DeleteParams::default()).await
    }
}

async fn patch_owners<T: Object>(
    api: &Api<T>,
    object: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    owners: serde_json::Value,
) -> Result<T, kube::Error> {
    let patch = json!({ "metadata": { "uid": meta::uid(object), "ownerReferences": owners } });
    api.patch(meta::name(object), &params_patch(), &Patch::Strategic(patch)).await
}

/// Now, in the whole seconds in which the API spells times: what is written reads back as the same.
pub fn now() -> Timestamp {
    let now = base::time::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

pub fn params() -> PostParams {
    PostParams { field_manager: Some(base::constants::FIELD_MANAGER.into()), ..Default::default() }
}

pub fn params_patch() -> PatchParams {
    PatchParams { field_manager: Some(base::constants::FIELD_MANAGER.into()), ..Default::default() }
}

/// Deletes this very object and no namesake; that it is gone already is as good.
pub async fn delete_exactly<T>(
    api: &Api<T>,
    object: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    how: DeleteParams,
) -> Result<(), kube::Error>
where
    T: Clone + Debug + serde::de::DeserializeOwned,
{
    let exactly = Preconditions { uid: object.uid.clone(), resource_version: None };
    let how = DeleteParams { preconditions: Some(exactly), ..how };
    match api.delete(meta::name(object), &how).await {
        Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Replaces the status, if it still is the version that was looked at.
pub async fn write_status<T>(api: &Api<T>, object: &T) -> Result<T, kube::Error>
where
    T: Object + Serialize,
{
    api.replace_status(meta::name(object.meta()), &params(), object).await
}

/// Sets the finalizers of this very version of an object.
pub async fn set_finalizers<T: Object>(
    api: &Api<T>,
    object: &T,
    finalizers: Vec<String>,
) -> Result<(), kube::Error> {
    let meta = object.meta();
    let patch = json!({ "metadata": { "resourceVersion": meta.resource_version, "uid": meta.uid, "finalizers": finalizers } });
    api.patch(meta::name(meta), &params_patch(), &Patch::Merge(patch)).await.map(drop)
}

pub async fn add_finalizer<T: Object>(api: &Api<T>, object: &T, finalizer: &str) -> Result<(), kube::Error> {
    let mut all = object.meta().finalizers.clone().unwrap_or_default();
    all.push(finalizer.to_owned());
    set_finalizers(api, object, all).await
}

pub async fn remove_finalizer<T: Object>(
    api: &Api<T>,
    object: &T,
    finalizer: &str,
) -> Result<(), kube::Error> {
    let mut all = object.meta().finalizers.clone().unwrap_or_default();
    all.retain(|f| f != finalizer);
    ignore_missing(set_finalizers(api, object, all).await)
}

pub fn ignore_missing<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if !client::is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

/// That something exists already is what was wanted.
pub fn ignore_existing<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if !client::is_conflict(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The namespace may go away while its content is made: then there is nothing left to do.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if status.code == 403 && status.message.contains("because it is being terminated"))
}
