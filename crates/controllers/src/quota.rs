//! Resource quotas: what is used now, counted from what is there. Admission adds to it as objects are made; this takes
//! back what has gone, and puts right what was added for nothing.

use std::sync::Arc;
use std::time::Duration;

use api::quota::{self, Amounts};
use api::status::Resource;
use client::{Cache, Change, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use kube::Api;
use kube::api::{DynamicObject, ListParams, PartialObjectMeta};
use kube::core::ApiResource;
use serde::Serialize;

use crate::context::{self, Context};
use crate::{discovery, meta, pod};

/// What nobody told of is found at last.
const RESYNC: Duration = Duration::from_secs(300);

pub fn start(context: &Context) -> Vec<Controller> {
    let quotas = context.caches.of::<ResourceQuota>();
    let (wake, woken) = client::waker();
    let all = Arc::clone(&quotas);
    context.deletions.listen(move |namespace| {
        all.in_namespace(namespace).iter().for_each(|quota| wake(Key::of(&**quota)));
    });
    let reconciler = Quotas {
        context: context.clone(),
        quotas: Arc::clone(&quotas),
        pods: context.caches.of(),
        services: context.caches.of(),
        claims: context.caches.of(),
    };
    let (of_pods, of_services, of_claims) = (Arc::clone(&quotas), Arc::clone(&quotas), Arc::clone(&quotas));
    let controller = Controller::new("resourcequota", reconciler)
        .woken_by(woken)
        .watches(&quotas, |change| {
            let spec = |q: &Option<Arc<ResourceQuota>>| q.as_ref().and_then(|q| q.spec.clone());
            let same = spec(&change.old) == spec(&change.new);
            if same { Vec::new() } else { vec![Key::of(&**change.object())] }
        })
        // What is summed up from caches is looked at when the caches have seen it go: others may hear of it earlier.
        .watches(&context.caches.of::<Pod>(), move |change: &Change<Pod>| {
            let over = |side: &Option<Arc<Pod>>| side.as_ref().is_none_or(|p| pod::has_ended(p));
            let went = over(&change.new) && !over(&change.old);
            if went { of_namespace(&of_pods, change) } else { Vec::new() }
        })
        .watches(&context.caches.of::<Service>(), move |change| {
            if existed(change) { of_namespace(&of_services, change) } else { Vec::new() }
        })
        .watches(&context.caches.of::<PersistentVolumeClaim>(), move |change| {
            if existed(change) { of_namespace(&of_claims, change) } else { Vec::new() }
        });
    vec![controller]
}

/// Whether an object is gone, or is another than it was; a new one was counted at admission.
fn existed<T>(change: &Change<T>) -> bool {
    change.old.is_some()
}

fn of_namespace<T: client::Object>(quotas: &Cache<ResourceQuota>, change: &Change<T>) -> Vec<Key> {
    let quotas = quotas.in_namespace(meta::namespace(change.object().meta()));
    quotas.iter().map(|quota| Key::of(&**quota)).collect()
}

struct Quotas {
    context: Context,
    quotas: Arc<Cache<ResourceQuota>>,
    pods: Arc<Cache<Pod>>,
    services: Arc<Cache<Service>>,
    claims: Arc<Cache<PersistentVolumeClaim>>,
}

impl Reconciler for Quotas {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(quota) = self.quotas.get(&key) else { return Ok(Next::OnChange) };
            let spec = quota.spec.clone().unwrap_or_default();
            let used = self.used(&key.namespace, &spec).await?;
            let status = ResourceQuotaStatus { hard: spec.hard.clone(), used: Some(quota::write(&used)) };
            // Amounts are compared as numbers: the same one may be written otherwise.
            let before = quota.status.clone().unwrap_or_default();
            let same = quota::read(before.used.as_ref()) == used && before.hard == status.hard;
            if !same || quota.status.is_none() {
                let api: Api<ResourceQuota> = self.context.api(&key.namespace);
                let updated = ResourceQuota { status: Some(status), ..(*quota).clone() };
                context::ignore_missing(context::write_status(&api, &updated).await)?;
            }
            Ok(Next::After(RESYNC))
        })
    }
}

impl Quotas {
    /// How much of each limited resource is used in a namespace.
    async fn used(&self, namespace: &str, spec: &ResourceQuotaSpec) -> Result<Amounts, kube::Error> {
        let hard = quota::read(spec.hard.as_ref());
        let zero = api::quantity::Quantity::ZERO;
        let mut used: Amounts = hard.keys().map(|name| (name.clone(), zero)).collect();
        add_up(&mut used, spec, "pods", &self.pods.in_namespace(namespace));
        add_up(&mut used, spec, "services", &self.services.in_namespace(namespace));
        add_up(&mut used, spec, "persistentvolumeclaims", &self.claims.in_namespace(namespace));
        if quota::needs_pods(spec) {
            return Ok(used);
        }
        // What is served is asked once, and only where something is counted by its name.
        let mut served = None;
        for (name, amount) in &mut used {
            let Some((plural, group)) = quota::counted(name) else { continue };
            let counted_above = ["pods", "services", "persistentvolumeclaims"].contains(&plural);
            if group.is_empty() && counted_above {
                continue;
            }
            let served = match &mut served {
                Some(served) => served,
                none => none.insert(discovery::served(self.context.client()).await?),
            };
            let found = served.iter().find(|s| {
                s.resource.plural == plural && s.resource.group == group && s.namespaced && s.listable
            });
            if let Some(found) = found {
                let count = self.count(namespace, &found.resource).await?;
                *amount = api::quantity::Quantity::from_units(count);
            }
        }
        Ok(used)
    }

    /// How many objects of a resource there are.
    async fn count(&self, namespace: &str, resource: &ApiResource) -> Result<i64, kube::Error> {
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::namespaced_with(self.context.client(), namespace, resource);
        let page = api.list_metadata(&ListParams::default().limit(1)).await?;
        let more = page.metadata.remaining_item_count.unwrap_or(0);
        Ok(i64::try_from(page.items.len()).unwrap_or(i64::MAX).saturating_add(more))
    }
}

fn add_up<T>(used: &mut Amounts, spec: &ResourceQuotaSpec, plural: &str, objects: &[Arc<T>])
where
    T: client::Object + Serialize,
{
    let resource = Resource { group: "", plural };
    if !used.keys().any(|name| quota::concerns(&resource, name)) {
        return;
    }
    for object in objects {
        let Ok(value) = serde_json::to_value(&**object) else { continue };
        let amounts = quota::limited(spec, &resource, &value, &quota::usage(&resource, &value));
        for (name, amount) in amounts {
            if let Some(sum) = used.get_mut(&name) {
                *sum = *sum + amount;
            }
        }
    }
}
