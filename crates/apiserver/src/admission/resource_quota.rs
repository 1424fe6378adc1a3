//! Resource quotas: nothing is made, or grows, beyond what its namespace may use. The last to be asked: what others
//! refuse is not counted. What is charged is written in the transaction that stores the object, by compare-and-swap: requests at
//! the same time do not share room, whatever server they come to, nothing is charged for an object that is not stored, and a
//! recount of what there is never takes away what was charged for one that is about to be.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use api::kinds::Kind;
use api::meta;
use api::quantity::Quantity;
use api::quota::{self, Amounts};
use api::status::ApiError;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ResourceQuotaStatus};
use serde_json::{Value, json};
use store::RangeRequest;
use tokio::sync::{Mutex, MutexGuard};

use super::attributes::{Attributes, Operation};
use super::refused;
use crate::auth::{Identity, MASTERS};
use crate::objects::{Beside, store_error};
use crate::verbs::{Writes, owners};
use crate::{ApiServer, Context};

/// Of the core group, what can grow after it was made.
const GROWING: &[&str] = &["pods", "services", "persistentvolumeclaims"];

/// Quotas that one object may be charged to: a transaction has its bounds (etcd's 128 by default).
const CHARGED_LIMIT: usize = 64;

/// Held from when the quotas of a namespace are asked until what was charged is stored: who fills one holds up no other, but
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

/// What an object takes of its namespace's quotas, to be written with it, and the turn to do so. Whoever counts what there is
/// never finds one without the other.
#[derive(Default)]
pub struct Charge<'a> {
    pub beside: Vec<Beside>,
    _turn: Option<MutexGuard<'a, ()>>,
}

/// Refuses what is too much.
pub async fn charge<'a>(
    server: &'a ApiServer,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<Charge<'a>, ApiError> {
    let (context, namespace) = (attributes.context, attributes.namespace());
    let counts = match attributes.operation {
        Operation::Create => attributes.subresource.is_empty(),
        Operation::Update => {
            let grows = attributes.group().is_empty() && GROWING.contains(&attributes.resource());
            grows && matches!(attributes.subresource, "" | "resize")
        }
        Operation::Delete | Operation::Connect => false,
    };
    let (kinds, objects) = (server.0.catalog.snapshot(), &server.0.objects);
    let kind = kinds.find("", "v1", "resourcequotas").filter(|_| counts && !namespace.is_empty());
    let Some(kind) = kind else { return Ok(Charge::default()) };
    let prefix = kind.key(namespace, "");
    if objects.store.count(&prefix).await.unwrap_or(1) == 0 {
        return Ok(Charge::default());
    }
    // One at a time: who comes second must see what the first has taken.
    let turn = server.0.quotas.of(namespace).lock().await;
    let range =
        objects.store.range(RangeRequest { prefix, ..Default::default() }).await.map_err(store_error)?;
    objects.unlock(&range.entries).await?;
    let mut beside = Vec::new();
    for entry in &range.entries {
        let held = objects.decode(entry)?;
        let quota: ResourceQuota = serde_json::from_value(held.clone())
            .map_err(|e| ApiError::internal(format!("cannot read {}: {e}", entry.key)))?;
        if let Some(more) = ask(context, attributes, &quota, object, old)? {
            let object = Arc::new(charged(server, context, kind, held, &more));
            beside.push(Beside { kind: Arc::clone(kind), object, revision: entry.mod_revision });
        }
    }
    if attributes.dry_run || beside.is_empty() {
        return Ok(Charge::default());
    }
    if beside.len() > CHARGED_LIMIT {
        let why = format!("more than {CHARGED_LIMIT} quotas count this; delete some of them");
        return Err(refused(attributes, &why));
    }
    Ok(Charge { beside, _turn: Some(turn) })
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

/// The quota with so much more used.
fn charged(server: &ApiServer, context: &Context, kind: &Arc<Kind>, old: Value, more: &Amounts) -> Value {
    let mut target = context.target.clone();
    (target.group, target.version, target.plural) =
        (kind.group.to_string(), kind.version.to_string(), kind.plural.to_string());
    (target.name, target.subresource) = (meta::name(&old).to_owned(), "status".into());
    let own = Context {
        who: Identity::new("system:apiserver", &[MASTERS]),
        query: Default::default(),
        headers: Default::default(),
        form: context.form,
        target,
        kind: Arc::clone(kind),
        warnings: Default::default(),
    };
    let status: ResourceQuotaStatus = serde_json::from_value(old["status"].clone()).unwrap_or_default();
    let mut used = quota::read(status.used.as_ref());
    for (name, amount) in more {
        let entry = used.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = *entry + *amount;
    }
    let mut new = old.clone();
    new["status"]["used"] = json!(quota::write(&used));
    match owners(server, &own, Some(&old), &mut new, Writes::Status) {
        Value::Null => meta::unset(&mut new, "managedFields"),
        owned => meta::set(&mut new, "managedFields", owned),
    }
    new
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
