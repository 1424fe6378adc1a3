//! The engine's hands on a cluster: server-side apply, deletion and reading of objects of any kind, by discovery.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::error::DiscoveryError;
use kube::runtime::wait::{await_condition, conditions::is_deleted};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::Value;

use crate::inventory::Id;
use crate::wording;

pub const FIELD_MANAGER: &str = "kustomize-controller";

/// How long an object that is made anew may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "{label}: no matches for kind {kind:?} in version {version:?}; is its CustomResourceDefinition applied? apply it first, or mend kind and apiVersion"
    )]
    NoKind { label: String, kind: String, version: String },
    /// `said` is what the server answered, with its reason: ` (Invalid): Deployment.apps "web" is invalid: …`.
    #[error("{label} {doing} failed{said}")]
    Api {
        label: String,
        doing: &'static str,
        said: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error(
        "{label} was to be made anew, but the old one does not go within {limit_s} s; see its finalizers"
    )]
    Stays { label: String, limit_s: u64 },
    #[error("{label} is not an object: {source}")]
    NotAnObject {
        label: String,
        #[source]
        source: serde_json::Error,
    },
}

impl ClusterError {
    fn api(id: &Id, doing: &'static str, source: kube::Error, object: &Value) -> Self {
        let said = match &source {
            kube::Error::Api(status) => {
                let words = wording::refusal(status, object);
                let next = match wording::is_immutable(status) {
                    true => format!("; {}", wording::made_anew(&id.kind, &id.namespace, &id.name)),
                    false => String::new(),
                };
                match status.reason.as_str() {
                    "" => format!(": {words}{next}"),
                    reason => format!(" ({reason}): {words}{next}"),
                }
            }
            other => format!(": {other}"),
        };
        Self::Api { label: id.label(), doing, said, source: Box::new(source) }
    }

    /// Whether the object would be taken if it were made anew.
    pub fn is_immutable(&self) -> bool {
        let Self::Api { source, .. } = self else { return false };
        matches!(&**source, kube::Error::Api(status) if wording::is_immutable(status))
    }
}

/// Whether it says that there is no such kind, or no such version of its group.
fn is_unknown(error: &kube::Error) -> bool {
    client::is_not_found(error) || matches!(error, kube::Error::Discovery(DiscoveryError::MissingKind(_)))
}

/// Group, version, kind.
type Gvk = (String, String, String);
type Known = (ApiResource, ApiCapabilities);

#[derive(Clone)]
pub struct Cluster {
    client: Client,
    kinds: Arc<Mutex<HashMap<Gvk, Known>>>,
}

impl Cluster {
    pub fn new(client: Client) -> Self {
        Self { client, kinds: Arc::default() }
    }

    async fn kind(&self, id: &Id) -> Result<Known, ClusterError> {
        let key = (id.group.clone(), id.version.clone(), id.kind.clone());
        if let Some(known) = self.kinds.lock().get(&key) {
            return Ok(known.clone());
        }
        let gvk = GroupVersionKind::gvk(&id.group, &id.version, &id.kind);
        let found = kube::discovery::pinned_kind(&self.client, &gvk).await.map_err(|error| match error {
            // That nobody answers does not mean that there is no such kind.
            error if !is_unknown(&error) => ClusterError::api(id, "discovery", error, &Value::Null),
            _ => {
                ClusterError::NoKind { label: id.label(), kind: id.kind.clone(), version: gvk.api_version() }
            }
        })?;
        self.kinds.lock().insert(key, found.clone());
        Ok(found)
    }

    /// What the API calls the kind, for those who watch it.
    pub async fn resource(&self, id: &Id) -> Result<ApiResource, ClusterError> {
        Ok(self.kind(id).await?.0)
    }

    pub async fn is_namespaced(&self, id: &Id) -> Result<bool, ClusterError> {
        Ok(self.kind(id).await?.1.scope == Scope::Namespaced)
    }

    async fn api(&self, id: &Id) -> Result<Api<DynamicObject>, ClusterError> {
        let (resource, capabilities) = self.kind(id).await?;
        Ok(match capabilities.scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), &id.namespace, &resource),
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
        })
    }

    /// Applies an object, or only finds out whether it could be (`dry_run`). The answer is the object as it is then.
    pub async fn apply(&self, object: &Value, dry_run: bool) -> Result<Value, ClusterError> {
        let id = Id::of(object);
        let api = self.api(&id).await?;
        let mut params = PatchParams::apply(FIELD_MANAGER).force();
        params.dry_run = dry_run;
        params.field_validation = Some(kube::api::ValidationDirective::Strict);
        let doing = if dry_run { "dry-run" } else { "apply" };
        let applied = api.patch(&id.name, &params, &Patch::Apply(object)).await;
        let applied = match applied {
            Ok(applied) => applied,
            Err(error) => {
                // The kind may have gone since it was asked for.
                if client::is_not_found(&error) {
                    self.kinds.lock().remove(&(id.group.clone(), id.version.clone(), id.kind.clone()));
                    self.kind(&id).await?;
                }
                return Err(ClusterError::api(&id, doing, error, object));
            }
        };
        serde_json::to_value(applied)
            .map_err(|source| ClusterError::NotAnObject { label: id.label(), source })
    }

    /// Deletes an object, waits until it is gone, and applies it: what may not be changed can be made anew.
    pub async fn replace(&self, object: &Value) -> Result<Value, ClusterError> {
        let id = Id::of(object);
        let uid = self.get(&id).await?.and_then(|found| found["metadata"]["uid"].as_str().map(str::to_owned));
        if let Some(uid) = uid {
            self.delete(&id).await?;
            let gone = await_condition(self.api(&id).await?, &id.name, is_deleted(&uid));
            let stays = || ClusterError::Stays { label: id.label(), limit_s: GONE_WITHIN.as_secs() };
            // A watch that breaks off shows in what the apply says.
            drop(tokio::time::timeout(GONE_WITHIN, gone).await.map_err(|_| stays())?);
        }
        self.apply(object, false).await
    }

    /// Sets whose fields are whose, if the object is still as it was read.
    pub async fn set_managed_fields(&self, object: &Value, entries: Vec<Value>) -> Result<(), ClusterError> {
        let id = Id::of(object);
        let failed = |source| ClusterError::api(&id, "take-over of fields", source, object);
        let version = object["metadata"]["resourceVersion"].clone();
        let patch = serde_json::json!({"metadata": {"resourceVersion": version, "managedFields": entries}});
        let api = self.api(&id).await?;
        let patched = api.patch(&id.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(failed)
    }

    pub async fn get(&self, id: &Id) -> Result<Option<Value>, ClusterError> {
        let api = match self.api(id).await {
            Ok(api) => api,
            // A kind that is gone has no objects.
            Err(ClusterError::NoKind { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = api.get_opt(&id.name).await;
        let found = found.map_err(|source| ClusterError::api(id, "get", source, &Value::Null))?;
        let value = found.map(serde_json::to_value).transpose();
        value.map_err(|source| ClusterError::NotAnObject { label: id.label(), source })
    }

    /// Deletes an object; one that is gone already is as good.
    pub async fn delete(&self, id: &Id) -> Result<(), ClusterError> {
        let api = match self.api(id).await {
            Ok(api) => api,
            Err(ClusterError::NoKind { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        match api.delete(&id.name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(error) if client::is_not_found(&error) => Ok(()),
            Err(source) => Err(ClusterError::api(id, "deletion", source, &Value::Null)),
        }
    }
}
