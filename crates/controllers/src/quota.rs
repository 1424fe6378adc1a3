//! Resource quotas: what is used now, counted from what is there. Admission adds to it as objects are made, in the
//! transaction that stores them; this takes back what has gone. Caches say whether there is anything to do. They may be behind
//! the quota, so what is written is counted anew: from what there is after the quota was read, and only if nothing
//! was charged to it since.

use std::sync::Arc;
use std::time::Duration;

use api::quota::{self, Amounts};
use api::status::Resource;
use client::{Cache, Change, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use kube::api::{DynamicObject, ListParams, PartialObjectMeta};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde::Serialize;

use crate::context::{self, Context};
use crate::{discovery, meta, pod};

/// What nobody told of is found at last.
const RESYNC: Duration = Duration::from_secs(300);
/// Counts at a stretch while more is charged all the time; then it waits, longer each time.
const TRIES: usize = 8;
/// Objects that are read at once.
const PAGE: u32 = 500;

pub fn start(context: &Context) -> Vec<Controller> {
    let quotas = context.caches.of::<ResourceQuota>();
    let (wake, woken) = client::waker();
    let all = Arc::clone(&quotas);
    context.deletions.listen(move |namespace| {
        all.in_namespace(namespace).iter().for_each(|quota| wake(Key::of(&**quota)));
    });
    let reconciler = Quotas {
        client: context.client(),
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
    client: Client,
    quotas: Arc<Cache<ResourceQuota>>,
    pods: Arc<Cache<Pod>>,
    services: Arc<Cache<Service>>,
    claims: Arc<Cache<PersistentVolumeClaim>>,
}

/// Where it is counted what there is.
#[derive(Clone, Copy)]
enum Count {
    InCaches,
    Anew,
}

impl Reconciler for Quotas {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(quota) = self.quotas.get(&key) else { return Ok(Next::OnChange) };
            if self.counted(&quota, Count::InCaches).await?.is_some() {
                self.recount(&key).await?;
            }
            Ok(Next::After(RESYNC))
        })
    }
}

impl Quotas {
    async fn recount(&self, key: &Key) -> Result<(), kube::Error> {
        let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &key.namespace);
        for attempt in 1.. {
            let Some(quota) = api.get_opt(&key.name).await? else { return Ok(()) };
            let Some(status) = self.counted(&quota, Count::Anew).await? else { return Ok(()) };
            let updated = ResourceQuota { status: Some(status), ..quota };
            match context::write_status(&api, &updated).await {
                Err(error) if client::is_conflict(&error) && attempt < TRIES => {}
                written => return context::ignore_missing(written).map(drop),
            }
        }
        Ok(())
    }

    /// What a quota's status should be, where it is not.
    async fn counted(
        &self,
        quota: &ResourceQuota,
        count: Count,
    ) -> Result<Option<ResourceQuotaStatus>, kube::Error> {
        let spec = quota.spec.clone().unwrap_or_default();
        let used = self.used(meta::namespace(&quota.metadata), &spec, count).await?;
        let before = quota.status.clone().unwrap_or_default();
        // Amounts are compared as numbers: the same one may be written otherwise.
        let same = quota::read(before.used.as_ref()) == used && before.hard == spec.hard;
        let status = ResourceQuotaStatus { hard: spec.hard, used: Some(quota::write(&used)) };
        Ok((!same || quota.status.is_none()).then_some(status))
    }

    /// How much of each limited resource is used in a namespace.
    async fn used(
        &self,
        namespace: &str,
        spec: &ResourceQuotaSpec,
        count: Count,
    ) -> Result<Amounts, kube::Error> {
        let hard = quota::read(spec.hard.as_ref());
        let zero = api::quantity::Quantity::ZERO;
        let mut used: Amounts = hard.keys().map(|name| (name.clone(), zero)).collect();
        self.add_up(&mut used, spec, "pods", (namespace, count), &self.pods).await?;
        self.add_up(&mut used, spec, "services", (namespace, count), &self.services).await?;
        self.add_up(&mut used, spec, "persistentvolumeclaims", (namespace, count), &self.claims).await?;
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
                none => none.insert(discovery::served(self.client.clone()).await?),
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

    /// Adds what all objects of a kind come to.
    async fn add_up<T>(
        &self,
        used: &mut Amounts,
        spec: &ResourceQuotaSpec,
        plural: &str,
        (namespace, count): (&str, Count),
        cache: &Cache<T>,
    ) -> Result<(), kube::Error>
    where
        T: client::Object + kube::Resource<Scope = NamespaceResourceScope> + Serialize,
    {
        let resource = Resource { group: "", plural };
        if !used.keys().any(|name| quota::concerns(&resource, name)) {
            return Ok(());
        }
        let mut add = |object: &T| {
            let Ok(value) = serde_json::to_value(object) else { return };
            let amounts = quota::limited(spec, &resource, &value, &quota::usage(&resource, &value));
            for (name, amount) in amounts {
                if let Some(sum) = used.get_mut(&name) {
                    *sum = *sum + amount;
                }
            }
        };
        if let Count::InCaches = count {
            cache.in_namespace(namespace).iter().for_each(|object| add(object));
            return Ok(());
        }
        let api: Api<T> = Api::namespaced(self.client.clone(), namespace);
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = api.list(&page).await?;
            listed.items.iter().for_each(&mut add);
            match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// How many objects of a resource there are.
    async fn count(&self, namespace: &str, resource: &ApiResource) -> Result<i64, kube::Error> {
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::namespaced_with(self.client.clone(), namespace, resource);
        let page = api.list_metadata(&ListParams::default().limit(1)).await?;
        let more = page.metadata.remaining_item_count.unwrap_or(0);
        Ok(i64::try_from(page.items.len()).unwrap_or(i64::MAX).saturating_add(more))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use client::Caches;
    use http::{Method, Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// What there is, while caches have seen no pod.
    struct Cluster {
        pods: Value,
        /// What becomes of writes: the codes of their answers; then they are done.
        answers: Mutex<VecDeque<u16>>,
        written: Mutex<Vec<Value>>,
    }

    fn quota(pods: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "q", "namespace": "n", "resourceVersion": "5"},
            "spec": {"hard": {"pods": "2"}}, "status": {"hard": {"pods": "2"}, "used": {"pods": pods}}})
    }

    impl Cluster {
        async fn answer(&self, request: Request<Body>) -> (u16, Value) {
            let path = request.uri().path().to_owned();
            if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                return std::future::pending().await;
            }
            let list = |items: Value| json!({"metadata": {"resourceVersion": "5"}, "items": items});
            match (request.method(), path.as_str()) {
                (&Method::PUT, "/api/v1/namespaces/n/resourcequotas/q/status") => {
                    let body = request.into_body().collect_bytes().await.expect("a body");
                    let written = serde_json::from_slice::<Value>(&body).expect("JSON");
                    self.written.lock().push(written.clone());
                    let code = self.answers.lock().pop_front().unwrap_or(200);
                    match code {
                        200 => (code, written),
                        _ => (code, json!({"kind": "Status", "status": "Failure", "code": code})),
                    }
                }
                (_, "/api/v1/namespaces/n/resourcequotas/q") => (200, quota("1")),
                (_, "/api/v1/resourcequotas") => (200, list(json!([quota("1")]))),
                (_, "/api/v1/namespaces/n/pods") => (200, list(self.pods.clone())),
                _ => (200, list(json!([]))),
            }
        }
    }

    /// What is written of a quota by which one pod is used, after writes that came to these codes.
    async fn written(pods: Value, answers: &[u16]) -> Vec<Value> {
        let cluster = Arc::new(Cluster {
            pods,
            answers: Mutex::new(answers.iter().copied().collect()),
            written: Mutex::default(),
        });
        let asked = Arc::clone(&cluster);
        let service = tower::service_fn(move |request: Request<Body>| {
            let asked = Arc::clone(&asked);
            async move {
                let (code, body) = asked.answer(request).await;
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).expect("an answer"))
            }
        });
        let client = Client::new(service, "default");
        let stop = CancellationToken::new();
        let caches = Caches::new(client.clone(), stop.clone());
        let quotas = Quotas {
            client,
            quotas: caches.of(),
            pods: caches.of(),
            services: caches.of(),
            claims: caches.of(),
        };
        quotas.quotas.ready().await;
        quotas.pods.ready().await;
        quotas.reconcile(Key::new("n", "q")).await.expect("it is counted");
        stop.cancel();
        cluster.written.lock().clone()
    }

    #[tokio::test]
    async fn what_caches_have_not_seen_is_not_given_away() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": []}});
        assert_eq!(written(json!([pod]), &[]).await, [] as [Value; 0]);
    }

    #[tokio::test]
    async fn what_has_gone_is_taken_back_unless_more_was_charged_meanwhile() {
        let written = written(json!([]), &[409]).await;
        assert_eq!(written.len(), 2, "once more");
        for write in written {
            assert_eq!(write["metadata"]["resourceVersion"], "5");
            assert_eq!(write["status"]["used"]["pods"], "0");
        }
    }
}
