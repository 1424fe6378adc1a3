//! Resource quotas: nothing is made, or grows, beyond what its namespace may use. The last to be asked: what others
//! refuse is not counted. Amounts are added with compare-and-swap, so that requests at the same time do not share room.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use api::kinds::Kind;
use api::meta;
use api::quota::{self, Amounts};
use api::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::attributes::{Attributes, Operation};
use crate::auth::{Identity, MASTERS};
use crate::verbs::{Ownership, Writes, change};
use crate::{ApiServer, Context};

/// Of the core group, what can grow after it was made.
const GROWING: &[&str] = &["pods", "services", "persistentvolumeclaims"];

/// Held while the quotas of a namespace are asked and charged, which takes a write: who fills one holds up no other, but
/// for those few that share a turn.
pub struct Turns(Vec<Mutex<()>>);

const TURNS: usize = 256;

impl Default for Turns {
    fn default() -> Self {
        Self((0..TURNS).map(|_| Mutex::default()).collect())
    }
}

impl Turns {
    fn of(&self, namespace: &str) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        &self.0[(hasher.finish() % TURNS as u64) as usize]
    }
}

pub fn admit<'a>(
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let context = attributes.context;
        let counts = match attributes.operation {
            Operation::Create => attributes.subresource.is_empty(),
            Operation::Update => {
                let grows = attributes.group().is_empty() && GROWING.contains(&attributes.resource());
                grows && matches!(attributes.subresource, "" | "resize")
            }
            Operation::Delete | Operation::Connect => false,
        };
        let (Some(object), true) = (object, counts && !attributes.namespace().is_empty()) else {
            return Ok(());
        };
        let kinds = server.0.catalog.snapshot();
        let Some(kind) = kinds.find("", "v1", "resourcequotas") else { return Ok(()) };
        if server.0.objects.store.count(&kind.key(attributes.namespace(), "")).await.unwrap_or(1) == 0 {
            return Ok(());
        }
        // One at a time: who comes second must see what the first has taken.
        let _turn = server.0.quotas.of(attributes.namespace()).lock().await;
        let quotas: Vec<ResourceQuota> = server.0.objects.in_namespace(kind, attributes.namespace()).await?;
        let mut taken = Vec::new();
        for quota in &quotas {
            if let Some(more) = ask(context, attributes, quota, object, old)? {
                taken.push((quota.metadata.name.clone().unwrap_or_default(), more));
            }
        }
        if !attributes.dry_run {
            for (name, more) in taken {
                take(server, context, kind, &name, &more).await?;
            }
        }
        Ok(())
    })
}

/// What the object adds to a quota; an error if that is too much.
fn ask(
    context: &Context,
    attributes: &Attributes<'_>,
    quota: &ResourceQuota,
    object: &Value,
    old: Option<&Value>,
) -> Result<Option<Amounts>, ApiError> {
    let resource = context.resource();
    let spec = quota.spec.clone().unwrap_or_default();
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let refuse = |why: String| Err(ApiError::forbidden(&resource, attributes.name, &why));
    let hard: Amounts = quota::read(spec.hard.as_ref())
        .into_iter()
        .filter(|(name, _)| quota::concerns(&resource, name))
        .collect();
    if hard.is_empty() || !quota::scopes_choose(&spec, &resource, object) {
        return Ok(None);
    }
    if let Some(pod) =
        serde_json::from_value::<Pod>(object.clone()).ok().filter(|_| resource.plural == "pods")
        && let Some(missing) = quota::missing(&pod, &hard, &resource)
    {
        return refuse(format!("failed quota: {name}: {missing}"));
    }
    let now = quota::limited(&spec, &resource, object, &quota::usage(&resource, object));
    let before = old.map(|old| quota::limited(&spec, &resource, old, &quota::usage(&resource, old)));
    let more = quota::increase(&now, &before.unwrap_or_default());
    if more.is_empty() {
        return Ok(None);
    }
    let status = quota.status.clone().unwrap_or_default();
    let used = quota::read(status.used.as_ref());
    let unknown: Vec<&str> = more.keys().filter(|n| !used.contains_key(*n)).map(String::as_str).collect();
    if !unknown.is_empty() {
        return refuse(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
    }
    match quota::exceeded(name, &more, &used, &quota::read(status.hard.as_ref())) {
        Some(why) => refuse(why),
        None => Ok(Some(more)),
    }
}

/// Adds to what a quota says is used.
async fn take(
    server: &ApiServer,
    context: &Context,
    kind: &Arc<Kind>,
    name: &str,
    more: &Amounts,
) -> Result<(), ApiError> {
    let mut target = context.target.clone();
    (target.group, target.version, target.plural) =
        (kind.group.to_string(), kind.version.to_string(), kind.plural.to_string());
    (target.name, target.subresource) = (name.to_owned(), "status".into());
    let own = Context {
        who: Identity::new("system:apiserver", &[MASTERS]),
        query: Default::default(),
        headers: Default::default(),
        form: context.form,
        target,
        kind: Arc::clone(kind),
        warnings: Default::default(),
    };
    change(server, &own, Writes::Status, Ownership::Take, |old| {
        let mut new = old.clone();
        let status: k8s_openapi::api::core::v1::ResourceQuotaStatus =
            serde_json::from_value(old["status"].clone()).unwrap_or_default();
        let mut used = quota::read(status.used.as_ref());
        // Another server may have charged it since it was asked.
        if let Some(why) = quota::exceeded(name, more, &used, &quota::read(status.hard.as_ref())) {
            return Err(ApiError::forbidden(&context.resource(), &context.target.name, &why));
        }
        for (name, amount) in more {
            let entry = used.entry(name.clone()).or_insert(api::quantity::Quantity::ZERO);
            *entry = *entry + *amount;
        }
        new["status"]["used"] = json!(quota::write(&used));
        meta::unset(&mut new, "resourceVersion");
        Ok(new)
    })
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fills_a_namespace_holds_up_no_other() {
        let turns = Turns::default();
        let _held = turns.of("a").try_lock().expect("free");
        assert!(turns.of("a").try_lock().is_err());
        let free = (0..1000).filter(|n| turns.of(&format!("b-{n}")).try_lock().is_ok()).count();
        assert!(free > 980, "{free}");
    }
}
