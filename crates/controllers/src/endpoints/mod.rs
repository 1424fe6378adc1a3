//! EndpointSlices (and `Endpoints`, for old clients) of Services that select pods.

mod plan;

pub use plan::Plan;

use std::sync::Arc;

use api::selector::Selector;
use base::constants::labels;
use client::{Cache, Change, Controller, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::DeleteParams;

use crate::context::{self, Context, is_namespace_terminating};
use crate::expectations::Expectations;
use crate::meta;

pub fn start(context: &Context) -> Vec<Controller> {
    let services = context.caches.of::<Service>();
    let pods = context.caches.of::<Pod>();
    let slices = context.caches.of::<EndpointSlice>();
    let mirrors = context.caches.of::<Endpoints>();
    let reconciler = Slices {
        expectations: Expectations::follow(&slices),
        recorder: context.recorder("endpoint-slice-controller"),
        services: Arc::clone(&services),
        pods: Arc::clone(&pods),
        slices: Arc::clone(&slices),
        mirrors: Arc::clone(&mirrors),
        context: context.clone(),
    };
    let selecting = Arc::clone(&services);
    let controller = Controller::new("endpointslice", reconciler)
        .owns_kind(&services)
        .watches(&pods, move |change| concerned(&selecting, change))
        .watches_owned(&slices, "Service")
        .watches(&mirrors, |change| match change.new {
            None => vec![Key::of(&**change.object())],
            Some(_) => Vec::new(),
        });
    vec![controller]
}

/// The services that select a pod as it is or as it was, if anything they care for changed.
fn concerned(services: &Cache<Service>, change: &Change<Pod>) -> Vec<Key> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && plan::pod_mark(old) == plan::pod_mark(new)
    {
        return Vec::new();
    }
    let sides: Vec<&Arc<Pod>> = [&change.old, &change.new].into_iter().flatten().collect();
    let services = services.in_namespace(meta::namespace(&change.object().metadata));
    let selecting = services.iter().filter(|service| {
        selector(service).is_some_and(|s| sides.iter().any(|pod| s.matches(meta::labels(&pod.metadata))))
    });
    selecting.map(|service| Key::of(&**service)).collect()
}

fn selector(service: &Service) -> Option<Selector> {
    if !plan::is_selecting(service) {
        return None;
    }
    service.spec.as_ref()?.selector.clone().map(Selector::from_labels)
}

/// Brings a plan for the slices of one owner (its namespace and uid) about, as far as it goes; the first fault is told.
pub async fn write(
    context: &Context,
    expectations: &Expectations,
    (namespace, owner): (&str, &str),
    plan: &Plan,
) -> Result<(), kube::Error> {
    let api: Api<EndpointSlice> = context.api(namespace);
    if !plan.create.is_empty() || !plan.delete.is_empty() {
        let deleted = plan.delete.iter().map(|s| meta::uid(&s.metadata).to_owned());
        expectations.expect(owner, plan.create.len(), deleted);
    }
    let mut result = Ok(());
    for slice in &plan.create {
        if let Err(error) = api.create(&context::params(), slice).await {
            expectations.created(owner);
            result = result.and(Err(error));
        }
    }
    for slice in &plan.replace {
        let replaced = api.replace(meta::name(&slice.metadata), &context::params(), slice).await;
        result = result.and(replaced.map(drop));
    }
    for slice in &plan.delete {
        let deleted = context::delete_exactly(&api, &slice.metadata, DeleteParams::default()).await;
        if deleted.is_err() {
            expectations.deleted(owner, meta::uid(&slice.metadata));
        }
        result = result.and(deleted);
    }
    result
}

struct Slices {
    context: Context,
    services: Arc<Cache<Service>>,
    pods: Arc<Cache<Pod>>,
    slices: Arc<Cache<EndpointSlice>>,
    mirrors: Arc<Cache<Endpoints>>,
    expectations: Arc<Expectations>,
    recorder: Recorder,
}

impl Reconciler for Slices {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(service) = self.services.get(&key) else { return self.remove_mirror(&key).await };
            let (Some(selector), false) = (selector(&service), meta::is_deleting(&service.metadata)) else {
                return Ok(Next::OnChange);
            };
            if let Some(wait) = self.expectations.pending(meta::uid(&service.metadata)) {
                return Ok(Next::After(wait));
            }
            match self.sync(&service, &selector).await {
                Err(error) if is_namespace_terminating(&error) => Ok(Next::OnChange),
                Err(error) => {
                    if !client::is_conflict(&error) {
                        let message = format!(
                            "Error updating Endpoint Slices for Service {key}: {}",
                            crate::message_of(&error)
                        );
                        self.recorder.record(
                            &*service,
                            Level::Warning,
                            "FailedToUpdateEndpointSlices",
                            message,
                        );
                    }
                    Err(error.into())
                }
                Ok(()) => Ok(Next::OnChange),
            }
        })
    }
}

impl Slices {
    async fn sync(&self, service: &Service, selector: &Selector) -> Result<(), kube::Error> {
        let namespace = meta::namespace(&service.metadata);
        let pods = self.pods.labelled(namespace, selector.equalities()).into_iter();
        let mut pods: Vec<_> = pods.filter(|pod| selector.matches(meta::labels(&pod.metadata))).collect();
        pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let existing: Vec<_> = self.owned(service);
        let plan = plan::slices(service, &pods, &existing);
        let owner = (namespace, meta::uid(&service.metadata));
        let result = write(&self.context, &self.expectations, owner, &plan).await;
        result.and(self.write_mirror(service, &pods).await)
    }

    /// Slices that were made for this service by us: others may add their own.
    fn owned(&self, service: &Service) -> Vec<Arc<EndpointSlice>> {
        let (namespace, uid) = (meta::namespace(&service.metadata), meta::uid(&service.metadata));
        let owned = self.slices.owned_by(namespace, uid).into_iter();
        let owned = owned.filter(|slice| {
            let managed = meta::labels(&slice.metadata).get(labels::ENDPOINTSLICE_MANAGED_BY);
            managed.map(String::as_str) == Some(plan::MANAGED_BY) && !meta::is_deleting(&slice.metadata)
        });
        owned.collect()
    }

    async fn write_mirror(&self, service: &Service, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
        let wanted = plan::mirror(service, pods);
        let api: Api<Endpoints> = self.context.api(meta::namespace(&service.metadata));
        let Some(known) = self.mirrors.get(&Key::of(service)) else {
            return context::ignore_existing(api.create(&context::params(), &wanted).await);
        };
        if known.subsets == wanted.subsets && known.metadata.labels == wanted.metadata.labels {
            return Ok(());
        }
        let mut updated = (*known).clone();
        updated.subsets = wanted.subsets;
        updated.metadata.labels = wanted.metadata.labels;
        updated
            .metadata
            .annotations
            .get_or_insert_default()
            .extend(wanted.metadata.annotations.unwrap_or_default());
        context::ignore_missing(
            api.replace(meta::name(&updated.metadata), &context::params(), &updated).await,
        )
    }

    /// `Endpoints` have no owner: those we made go with their service.
    async fn remove_mirror(&self, key: &Key) -> Outcome {
        if let Some(known) = self.mirrors.get(key)
            && meta::labels(&known.metadata).contains_key("endpoints.kubernetes.io/managed-by")
        {
            let api: Api<Endpoints> = self.context.api(&key.namespace);
            context::delete_exactly(&api, &known.metadata, DeleteParams::default()).await?;
        }
        Ok(Next::OnChange)
    }
}
