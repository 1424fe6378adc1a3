//! The engine's hands on a cluster: server-side apply, deletion and reading of objects of any kind, by discovery.

use std::collections::HashMap;
use std::sync::Arc;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::Value;

use crate::inventory::Id;

pub const FIELD_MANAGER: &str = "kustomize-controller";

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("no matches for kind {kind:?} in version {version:?}; is its CustomResourceDefinition applied?")]
    NoKind { kind: String, version: String },
    #[error("{label} {doing} failed: {}", message(.source))]
    Api {
        label: String,
        doing: &'static str,
        #[source]
        source: kube::Error,
    },
    #[error("{label} is not an object: {source}")]
    NotAnObject {
        label: String,
        #[source]
        source: serde_json::Error,
    },
}

/// The server's own words, with their reason if they have one: `(Invalid): Deployment.apps "web" is invalid: …`.
fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.reason.is_empty() && status.message.is_empty() => {
            format!("the server answered with code {}", status.code)
        }
        kube::Error::Api(status) if status.reason.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("({}): {}", status.reason, status.message),
        other => other.to_string(),
    }
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
        let found = kube::discovery::pinned_kind(&self.client, &gvk)
            .await
            .map_err(|_| ClusterError::NoKind { kind: id.kind.clone(), version: gvk.api_version() })?;
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
        let applied = applied.map_err(|source| ClusterError::Api { label: id.label(), doing, source })?;
        serde_json::to_value(applied)
            .map_err(|source| ClusterError::NotAnObject { label: id.label(), source })
    }

    /// Sets whose fields are whose, if the object is still as it was read.
    pub async fn set_managed_fields(&self, object: &Value, entries: Vec<Value>) -> Result<(), ClusterError> {
        let id = Id::of(object);
        let failed = |source| ClusterError::Api { label: id.label(), doing: "take-over of fields", source };
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
        let found = found.map_err(|source| ClusterError::Api { label: id.label(), doing: "get", source })?;
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
            Err(source) => Err(ClusterError::Api { label: id.label(), doing: "deletion", source }),
        }
    }
}
