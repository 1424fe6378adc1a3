//! Admission webhooks: other servers that change objects or refuse operations. The configurations are compiled once
//! after each change of theirs; a request that no hook is about costs a look at an empty list.

mod call;
mod hook;
mod told;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::kinds::Kind;
use api::meta;
use api::policy::GroupVersionResource;
use api::status::ApiError;
use serde_json::Value;

use super::attributes::{Attributes, Operation};
use super::policies::asked::Asked;
use crate::{ApiServer, Server};

pub use hook::{Hook, Role};
use told::Call;

/// Group of the configurations; what lies in it is never sent to a hook, so that a bad one can always be removed.
pub const GROUP: &str = "admissionregistration.k8s.io";

/// All hooks, in the order in which they are asked.
#[derive(Default)]
pub struct Hooks {
    mutating: Vec<Hook>,
    validating: Vec<Hook>,
}

impl Hooks {
    fn is_empty(&self) -> bool {
        self.mutating.is_empty() && self.validating.is_empty()
    }
}

impl Server {
    /// The hooks as they are configured now.
    async fn hooks(&self) -> Result<Arc<Hooks>, ApiError> {
        self.hooks.get(|| self.load_hooks()).await
    }

    async fn load_hooks(&self) -> Result<Hooks, ApiError> {
        Ok(Hooks {
            mutating: self.hooks_of("mutatingwebhookconfigurations", Role::Mutating).await?,
            validating: self.hooks_of("validatingwebhookconfigurations", Role::Validating).await?,
        })
    }

    async fn hooks_of(&self, plural: &str, role: Role) -> Result<Vec<Hook>, ApiError> {
        let kinds = self.catalog.snapshot();
        let Some(kind) = kinds.find(GROUP, "v1", plural) else { return Ok(Vec::new()) };
        // The store lists by name, which is the order in which hooks are asked.
        let configurations: Vec<Value> = self.objects.all(kind).await?;
        Ok(configurations.iter().flat_map(|c| hook::compile(c, role)).collect())
    }
}

/// What a hook is to look at.
pub struct Seen<'a> {
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
}

/// The same in the version that a hook has a rule for.
struct Shown {
    kind: Arc<Kind>,
    object: Option<Value>,
    old: Option<Value>,
}

impl Shown {
    fn seen(&self) -> Seen<'_> {
        Seen { object: self.object.as_ref(), old: self.old.as_ref() }
    }
}

/// Sends the object to each mutating hook that it is about; `reset` gives what comes back its defaults. Says whether
/// anything was changed.
pub async fn mutate(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
    reset: &(dyn Fn(Value) -> Value + Sync),
) -> Result<bool, ApiError> {
    let hooks = server.0.hooks().await?;
    if hooks.mutating.is_empty() || attributes.group() == GROUP {
        return Ok(false);
    }
    let mut changed_by: Option<usize> = None;
    for (at, hook) in hooks.mutating.iter().enumerate() {
        if one(server, attributes, (hook, 0, at), object, old, reset).await? {
            changed_by = Some(at);
        }
    }
    let Some(last) = changed_by else { return Ok(false) };
    // Those who asked for it see once more what others have changed after them.
    for (at, hook) in hooks.mutating[..last].iter().enumerate().filter(|(_, hook)| hook.reinvoke) {
        one(server, attributes, (hook, 1, at), object, old, reset).await?;
    }
    Ok(true)
}

async fn one(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    (hook, round, index): (&Hook, usize, usize),
    object: &mut Value,
    old: Option<&Value>,
    reset: &(dyn Fn(Value) -> Value + Sync),
) -> Result<bool, ApiError> {
    let seen = Seen { object: Some(object), old };
    let Some(shown) = shown(server, attributes, hook, &seen).await? else { return Ok(false) };
    let call = Call { role: Role::Mutating, round, index };
    let changed = async {
        let patched = call::mutating(&server.0, attributes, (hook, call), &shown.kind, &shown.seen()).await?;
        let Some(patched) = patched else { return Ok(false) };
        let patched = server.0.converted(&shown.kind, &attributes.context.kind, patched).await?;
        let new = reset(patched);
        let changed = new != *object;
        *object = new;
        Ok(changed)
    };
    let changed = changed.await;
    call.tell_mutation(hook, matches!(changed, Ok(true)));
    changed
}

/// Asks every validating hook that the operation is about, all at once.
pub async fn validate(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    seen: &Seen<'_>,
) -> Result<(), ApiError> {
    let hooks = server.0.hooks().await?;
    if hooks.is_empty() || attributes.group() == GROUP {
        return Ok(());
    }
    let mut asked = Vec::new();
    // Where there is nothing to change, those who may change are asked as those who may refuse are.
    let is_new = matches!(attributes.operation, Operation::Create | Operation::Update);
    for (index, hook) in hooks.mutating.iter().enumerate().filter(|_| !is_new) {
        if let Some(shown) = shown(server, attributes, hook, seen).await? {
            asked.push((hook, Call { role: Role::Mutating, round: 0, index }, shown));
        }
    }
    // Those who may refuse are counted among those who are asked.
    let mut index = 0;
    for hook in &hooks.validating {
        if let Some(shown) = shown(server, attributes, hook, seen).await? {
            asked.push((hook, Call { role: Role::Validating, round: 0, index }, shown));
            index += 1;
        }
    }
    let asking = asked.iter().map(|(hook, call, shown)| async move {
        let answer = call::validating(&server.0, attributes, (hook, *call), &shown.kind, &shown.seen()).await;
        if call.role == Role::Mutating {
            call.tell_mutation(hook, false);
        }
        answer
    });
    for answer in futures::future::join_all(asking).await {
        answer?;
    }
    Ok(())
}

/// What a hook is asked about, if it is: its rules and selectors first, its expressions only where those choose the
/// operation.
async fn shown(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hook: &Hook,
    seen: &Seen<'_>,
) -> Result<Option<Shown>, ApiError> {
    let own = &attributes.context.kind;
    let equivalents = || server.0.catalog.snapshot().equivalents(own);
    let Some(kind) = hook.chosen(attributes, own, equivalents) else { return Ok(None) };
    if !hook.object_selector_matches(seen) || !is_in_namespace(server, attributes, hook, seen).await? {
        return Ok(None);
    }
    let mut shown = Shown { kind, object: seen.object.cloned(), old: seen.old.cloned() };
    // What a subresource has a kind of its own for is the same in all versions.
    if attributes.is_of_kind() {
        for object in [&mut shown.object, &mut shown.old] {
            if let Some(value) = object.take() {
                *object = Some(server.0.converted(own, &shown.kind, value).await?);
            }
        }
    }
    let holds = holds(server, attributes, hook, &shown).await?;
    Ok(holds.then_some(shown))
}

/// Whether a hook's match conditions hold. What cannot be told is the failure policy's to judge.
async fn holds(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hook: &Hook,
    shown: &Shown,
) -> Result<bool, ApiError> {
    let seen = shown.seen();
    let judged = match &hook.conditions {
        Ok(conditions) if conditions.is_empty() => return Ok(true),
        Ok(conditions) => {
            let asked = Asked::new(&server.0, attributes).await?;
            let request = asked.request(&GroupVersionResource::of(&shown.kind));
            let (object, old) = (seen.object.unwrap_or(&Value::Null), seen.old.unwrap_or(&Value::Null));
            conditions.matches(&asked.vars(object, old, &request, &Value::Null))
        }
        Err(fault) => Err(fault.clone()),
    };
    match judged {
        Ok(holds) => Ok(holds),
        Err(_) if hook.ignore_failure => Ok(false),
        Err(fault) => {
            Err(ApiError::forbidden(&attributes.context.resource(), attributes.shown_name(), &fault))
        }
    }
}

async fn is_in_namespace(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hook: &Hook,
    seen: &Seen<'_>,
) -> Result<bool, ApiError> {
    if hook.namespace_selector.is_everything() {
        return Ok(true);
    }
    match namespace_labels(server, attributes, seen).await? {
        Some(labels) => Ok(hook.namespace_selector.matches(&labels)),
        // What lies in no namespace is beyond what namespaces are selected for.
        None => Ok(true),
    }
}

/// The labels of the namespace that the operation lies in, or that it is about.
async fn namespace_labels(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    seen: &Seen<'_>,
) -> Result<Option<BTreeMap<String, String>>, ApiError> {
    let labels = |object: &Value| -> BTreeMap<String, String> {
        meta::pairs(object, "labels").map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    if attributes.is_namespace() && attributes.subresource.is_empty() {
        return Ok(seen.object.or(seen.old).map(labels));
    }
    let namespace = match attributes.is_namespace() {
        true => attributes.name,
        false => attributes.namespace(),
    };
    if namespace.is_empty() {
        return Ok(None);
    }
    let kinds = server.0.catalog.snapshot();
    let kind = kinds.find("", "v1", "namespaces").ok_or_else(ApiError::no_such_path)?;
    let found = server.0.objects.find(kind, "", namespace).await?;
    let found = found.ok_or_else(|| ApiError::not_found(&kind.resource(), namespace))?;
    Ok(Some(labels(&found)))
}
