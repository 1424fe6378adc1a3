//! Custom resource definitions that are deleted: their objects go before they do. What names they have the server says itself.

use std::sync::Arc;
use std::time::Duration;

use api::kinds::definitions::{self, FINALIZER};
use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Definition;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::ApiResource;

use crate::context::{self, Context, now};
use crate::meta;

const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub fn start(context: &Context) -> Vec<Controller> {
    let definitions = context.caches.of::<Definition>();
    let reconciler = Definitions { context: context.clone(), definitions: Arc::clone(&definitions) };
    vec![Controller::new("customresourcedefinition", reconciler).owns_kind(&definitions)]
}

struct Definitions {
    context: Context,
    definitions: Arc<Cache<Definition>>,
}

impl Reconciler for Definitions {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(definition) = self.definitions.get(&key) else { return Ok(Next::OnChange) };
            let api: Api<Definition> = self.context.cluster_api();
            match meta::is_deleting(&definition.metadata) {
                true => self.clean_up(&api, &definition).await,
                false => Ok(Next::OnChange),
            }
        })
    }
}

impl Definitions {
    async fn clean_up(&self, api: &Api<Definition>, definition: &Definition) -> Outcome {
        if !meta::has_finalizer(&definition.metadata, FINALIZER) {
            return Ok(Next::OnChange);
        }
        let status = definitions::going(definition.status.clone().unwrap_or_default(), now());
        if definition.status.as_ref() != Some(&status) {
            let updated = Definition { status: Some(status), ..definition.clone() };
            context::ignore_missing(context::write_status(api, &updated).await)?;
            return Ok(Next::OnChange);
        }
        if self.delete_instances(definition).await? > 0 {
            return Ok(Next::After(LOOK_AGAIN));
        }
        context::remove_finalizer(api, definition, FINALIZER).await?;
        Ok(Next::OnChange)
    }

    /// Returns how many are left.
    async fn delete_instances(&self, definition: &Definition) -> Result<usize, kube::Error> {
        if !has_condition(definition, "Established") {
            return Ok(0);
        }
        let Some(version) = definition.spec.versions.iter().find(|v| v.served).map(|v| v.name.clone()) else {
            return Ok(0);
        };
        let spec = &definition.spec;
        let resource = ApiResource {
            group: spec.group.clone(),
            api_version: format!("{}/{version}", spec.group),
            version,
            kind: spec.names.kind.clone(),
            plural: spec.names.plural.clone(),
        };
        let all: Api<DynamicObject> = Api::all_with(self.context.client(), &resource);
        let instances = match all.list_metadata(&ListParams::default()).await {
            Ok(list) => list.items,
            Err(error) if client::is_not_found(&error) => return Ok(0),
            Err(error) => return Err(error),
        };
        for instance in instances.iter().filter(|i| !meta::is_deleting(&i.metadata)) {
            let api: Api<DynamicObject> = match spec.scope.as_str() {
                "Namespaced" => Api::namespaced_with(
                    self.context.client(),
                    meta::namespace(&instance.metadata),
                    &resource,
                ),
                _ => all.clone(),
            };
            context::delete_exactly(&api, &instance.metadata, DeleteParams::default()).await?;
        }
        match instances.is_empty() {
            true => Ok(0),
            false => all.list_metadata(&ListParams::default()).await.map(|list| list.items.len()),
        }
    }
}

fn has_condition(definition: &Definition, type_: &str) -> bool {
    let conditions = definition.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == type_ && c.status == "True")
}
