//! Custom resource definitions: their names are accepted or refused, and their objects go before they do.

use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition as Definition, CustomResourceDefinitionCondition as Condition,
    CustomResourceDefinitionNames as Names, CustomResourceDefinitionStatus as Status,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::ApiResource;

use crate::context::{self, Context, now};
use crate::meta;

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub fn start(context: &Context) -> Vec<Controller> {
    let definitions = context.caches.of::<Definition>();
    let reconciler = Definitions { context: context.clone(), definitions: Arc::clone(&definitions) };
    let all = Arc::clone(&definitions);
    let controller = Controller::new("customresourcedefinition", reconciler)
        .owns_kind(&definitions)
        // A name that becomes free may settle another definition's conflict.
        .watches(&definitions, move |change| {
            let group = change.object().spec.group.clone();
            let gone = change.new.is_none();
            all.all().iter().filter(|d| gone && d.spec.group == group).map(|d| Key::of(&**d)).collect()
        });
    vec![controller]
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
            if meta::is_deleting(&definition.metadata) {
                return self.clean_up(&api, &definition).await;
            }
            let status = accept(&definition, &self.definitions.all(), now());
            if definition.status.as_ref() != Some(&status) {
                let updated = Definition { status: Some(status), ..(*definition).clone() };
                context::ignore_missing(context::write_status(&api, &updated).await)?;
                return Ok(Next::OnChange);
            }
            if !meta::has_finalizer(&definition.metadata, FINALIZER) {
                context::add_finalizer(&api, &*definition, FINALIZER).await?;
            }
            Ok(Next::OnChange)
        })
    }
}

impl Definitions {
    async fn clean_up(&self, api: &Api<Definition>, definition: &Definition) -> Outcome {
        if !meta::has_finalizer(&definition.metadata, FINALIZER) {
            return Ok(Next::OnChange);
        }
        let status = terminating(definition.status.clone().unwrap_or_default(), now());
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

/// The status of a definition beside all others: names are given to who came first.
fn accept(definition: &Definition, all: &[Arc<Definition>], now: Timestamp) -> Status {
    let before = definition.status.clone().unwrap_or_default();
    let wanted = complete(&definition.spec.names);
    let taken: Vec<Names> = all
        .iter()
        .filter(|d| d.metadata.uid != definition.metadata.uid && d.spec.group == definition.spec.group)
        .filter_map(|d| d.status.as_ref()?.accepted_names.clone())
        .filter(|names| !names.plural.is_empty())
        .collect();
    let conflict = conflict(&wanted, &taken);
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let mut accepted = before.accepted_names.clone();
    match &conflict {
        None => {
            set(&mut conditions, now, "NamesAccepted", "True", "NoConflicts", "no conflicts found");
            set(
                &mut conditions,
                now,
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted",
            );
            accepted = Some(wanted);
        }
        Some((reason, message)) => {
            set(&mut conditions, now, "NamesAccepted", "False", reason, message);
            if !has_condition(definition, "Established") {
                set(
                    &mut conditions,
                    now,
                    "Established",
                    "False",
                    "NotAccepted",
                    "not all names are accepted",
                );
            }
        }
    }
    let mut stored = before.stored_versions.clone().unwrap_or_default();
    let storage = definition.spec.versions.iter().filter(|v| v.storage).map(|v| v.name.clone());
    for version in storage {
        if !stored.contains(&version) {
            stored.push(version);
        }
    }
    Status { accepted_names: accepted, conditions: Some(conditions), stored_versions: Some(stored), ..before }
}

fn complete(names: &Names) -> Names {
    let mut names = names.clone();
    names.singular.get_or_insert_with(|| names.kind.to_lowercase());
    names.list_kind.get_or_insert_with(|| format!("{}List", names.kind));
    names
}

fn conflict(wanted: &Names, taken: &[Names]) -> Option<(&'static str, String)> {
    let short = |names: &Names| names.short_names.clone().unwrap_or_default();
    let resources: Vec<String> = taken
        .iter()
        .flat_map(|n| [vec![n.plural.clone()], n.singular.clone().into_iter().collect(), short(n)].concat())
        .collect();
    let kinds: Vec<String> =
        taken.iter().flat_map(|n| [Some(n.kind.clone()), n.list_kind.clone()]).flatten().collect();
    let used = |name: &String| format!("{name:?} is already in use");
    let singular = wanted.singular.clone().unwrap_or_default();
    let list_kind = wanted.list_kind.clone().unwrap_or_default();
    let checks = [
        ("PluralConflict", &wanted.plural, &resources),
        ("SingularConflict", &singular, &resources),
        ("KindConflict", &wanted.kind, &kinds),
        ("ListKindConflict", &list_kind, &kinds),
    ];
    let found = checks.into_iter().find(|(_, name, names)| names.contains(name));
    let found = found.map(|(reason, name, _)| (reason, used(name)));
    found.or_else(|| {
        let name = short(wanted).into_iter().find(|name| resources.contains(name))?;
        Some(("ShortNamesConflict", used(&name)))
    })
}

fn terminating(mut status: Status, now: Timestamp) -> Status {
    let conditions = status.conditions.get_or_insert_default();
    set(
        conditions,
        now,
        "Terminating",
        "True",
        "InstanceDeletionInProgress",
        "CustomResource deletion is in progress",
    );
    status
}

fn set(
    conditions: &mut Vec<Condition>,
    now: Timestamp,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
) {
    let known = conditions.iter().position(|c| c.type_ == type_);
    let old = known.map(|at| conditions[at].clone());
    let since = old.as_ref().filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    let condition = Condition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        observed_generation: old.and_then(|c| c.observed_generation),
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn definition(uid: &str, plural: &str, kind: &str) -> Definition {
        let mut definition = Definition::default();
        definition.metadata.uid = Some(uid.into());
        definition.spec.group = "example.com".into();
        definition.spec.names = Names { plural: plural.into(), kind: kind.into(), ..Default::default() };
        definition.spec.versions = vec![
            k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion {
                name: "v1".into(),
                storage: true,
                served: true,
                ..Default::default()
            },
        ];
        definition
    }

    fn told(status: &Status) -> Vec<(String, String, String)> {
        let conditions = status.conditions.clone().unwrap_or_default();
        conditions.into_iter().map(|c| (c.type_, c.status, c.reason.unwrap_or_default())).collect()
    }

    #[test]
    fn names_go_to_who_came_first() {
        let mut first = definition("1", "foos", "Foo");
        let status = accept(&first, &[], at(0));
        assert_eq!(told(&status)[1], ("Established".into(), "True".into(), "InitialNamesAccepted".into()));
        let accepted = status.accepted_names.clone().expect("accepted");
        assert_eq!(
            (accepted.singular.as_deref(), accepted.list_kind.as_deref()),
            (Some("foo"), Some("FooList"))
        );
        assert_eq!(status.stored_versions, Some(vec!["v1".into()]));
        first.status = Some(status);
        assert_eq!(accept(&first, &[], at(9)), first.status.clone().expect("set"), "it settles");
        let mut renamed = definition("2", "bars", "Foo");
        renamed.spec.names.singular = Some("bar".into());
        let second = accept(&renamed, &[Arc::new(first)], at(0));
        assert_eq!(told(&second)[0], ("NamesAccepted".into(), "False".into(), "KindConflict".into()));
        assert_eq!(told(&second)[1].1, "False");
    }
}
