//! Bringing objects about: a trial of all, then all. What will be there is noted in the inventory right before it is applied:
//! what is in no inventory is never pruned, and what could not even be tried was never there.

use std::collections::BTreeMap;

use base::constants::annotations::KUSTOMIZE_FORCE;
use base::constants::labels::{KUSTOMIZATION_NAME, KUSTOMIZATION_NAMESPACE};
use client::{Key, Level};
use futures::StreamExt;
use futures::future::BoxFuture;
use kube::api::{Patch, PatchParams};
use serde_json::Value;

use super::Kustomizations;
use super::outcome::Failure;
use crate::cluster::{Cluster, ClusterError};
use crate::inventory::{self, Id};
use crate::takeover;
use crate::types::{Inventory, Kustomization, KustomizationStatus};

/// Objects that are checked or applied at a time.
const AT_ONCE: usize = 8;

/// The file that each object is from.
pub(super) type Origins = BTreeMap<Id, String>;

impl Kustomizations {
    /// Namespaces and definitions first, since the rest may need them; then a trial of all the rest, then the rest.
    pub(super) async fn apply_all(
        &self,
        key: &Key,
        object: &Kustomization,
        wanted: &mut [Value],
        origins: &Origins,
        status: &mut KustomizationStatus,
    ) -> Result<(), Failure> {
        let is_first = |v: &&Value| v["kind"] == "Namespace" || v["kind"] == "CustomResourceDefinition";
        let first: Vec<&Value> = wanted.iter().filter(is_first).collect();
        self.try_and_apply(key, object, &first, origins, status).await?;
        // Kinds whose definition has just been applied are known only now.
        self.place(wanted).await;
        let rest: Vec<&Value> = wanted.iter().filter(|v| !is_first(v)).collect();
        self.try_and_apply(key, object, &rest, origins, status).await
    }

    async fn try_and_apply(
        &self,
        key: &Key,
        object: &Kustomization,
        objects: &[&Value],
        origins: &Origins,
        status: &mut KustomizationStatus,
    ) -> Result<(), Failure> {
        let forced = object.spec.force == Some(true);
        let (_, mut faults) = self.each(key, object, objects, origins, true, forced).await;
        if faults.is_empty() {
            // Written first, for the process may end on the way.
            self.note(key, objects, status).await?;
            let (changed, failed) = self.each(key, object, objects, origins, false, forced).await;
            self.announce(object, &changed);
            faults = failed;
        }
        if faults.is_empty() { Ok(()) } else { Err(Failure::Apply(faults.join("\n"))) }
    }

    /// Adds objects to the inventory of what was applied.
    async fn note(
        &self,
        key: &Key,
        objects: &[&Value],
        status: &mut KustomizationStatus,
    ) -> Result<(), Failure> {
        let before = status.inventory.clone().unwrap_or_default();
        let with = inventory::union(&before, &inventory::of(objects.iter().copied()));
        if with == before {
            return Ok(());
        }
        let patch = Patch::Merge(serde_json::json!({"status": {"inventory": with}}));
        let noted = self.api(key).patch_status(&key.name, &PatchParams::default(), &patch).await;
        noted.map_err(Failure::Inventory)?;
        status.inventory = Some(with);
        Ok(())
    }

    /// An object of a namespaced kind that names no namespace goes to `default`.
    pub(super) async fn place(&self, objects: &mut [Value]) {
        for object in objects {
            let id = Id::of(object);
            if id.namespace.is_empty() && self.cluster.is_namespaced(&id).await.unwrap_or(false) {
                object["metadata"]["namespace"] = "default".into();
            }
        }
    }

    /// Applies (or tries) objects, some at a time; what changed and what went wrong.
    async fn each(
        &self,
        key: &Key,
        object: &Kustomization,
        objects: &[&Value],
        origins: &Origins,
        dry_run: bool,
        forced: bool,
    ) -> (Vec<String>, Vec<String>) {
        let one = |wanted: &&Value| {
            let forced = forced || is_forced(wanted);
            try_one(self.cluster.clone(), (*wanted).clone(), dry_run, forced)
        };
        let work: Vec<BoxFuture<'static, _>> = objects.iter().map(one).collect();
        let results: Vec<_> = futures::stream::iter(work).buffered(AT_ONCE).collect().await;
        let (mut changed, mut faults) = (Vec::new(), Vec::new());
        for (id, before, applied) in results {
            if let Some(other) = before.as_ref().and_then(applier).filter(|other| other != key) {
                self.warn_of_other(object, &id, &other);
            }
            let version =
                |v: &Value| v["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
            match (applied, before) {
                (Err(error), _) => faults.push(format!("{error}{}", from(&id, origins))),
                (Ok(_), None) => changed.push(format!("{} created", id.label())),
                (Ok(after), Some(before)) if version(&after) != version(&before) => {
                    changed.push(format!("{} configured", id.label()))
                }
                (Ok(_), Some(_)) => {}
            }
        }
        (changed, faults)
    }
}

impl Kustomizations {
    /// Two that apply one object undo each other for ever. One that has just given it up is none of them.
    fn warn_of_other(&self, object: &Kustomization, id: &Id, other: &Key) {
        let status = self.cache.get(other).and_then(|other| other.status.clone());
        let entry = id.entry().id;
        let applies = |inventory: &Inventory| inventory.entries.iter().any(|known| known.id == entry);
        if status.and_then(|status| status.inventory).as_ref().is_some_and(applies) {
            let text = format!(
                "{} is applied by the Kustomization {other} as well: each undoes what the other does; take it out of one",
                id.label()
            );
            self.recorder.record(object, Level::Warning, "Conflict", text);
        }
    }
}

/// The Kustomization that has applied an object last.
fn applier(found: &Value) -> Option<Key> {
    let label = |name: &str| found["metadata"]["labels"][name].as_str();
    Some(Key::new(label(KUSTOMIZATION_NAMESPACE)?, label(KUSTOMIZATION_NAME)?))
}

/// ` (from app/web.yaml)`
fn from(id: &Id, origins: &Origins) -> String {
    // Its kind may not have been known when it was read, and so not that it needs a namespace.
    let unplaced = Id { namespace: String::new(), ..id.clone() };
    let origin = origins.get(id).or_else(|| origins.get(&unplaced)).filter(|origin| !origin.is_empty());
    origin.map(|origin| format!(" (from {origin})")).unwrap_or_default()
}

/// Whether an object itself says that it may be made anew.
fn is_forced(object: &Value) -> bool {
    let says = |field: &str| object["metadata"][field][KUSTOMIZE_FORCE].as_str();
    [says("annotations"), says("labels")]
        .into_iter()
        .flatten()
        .any(|word| word.eq_ignore_ascii_case("enabled"))
}

/// Applies one object; what it was before tells whether that changed anything.
fn try_one(
    cluster: Cluster,
    object: Value,
    dry_run: bool,
    forced: bool,
) -> BoxFuture<'static, (Id, Option<Value>, Result<Value, ClusterError>)> {
    Box::pin(async move {
        let id = Id::of(&object);
        let before = if dry_run { None } else { cluster.get(&id).await.ok().flatten() };
        if let Some((found, entries)) =
            before.as_ref().and_then(|found| Some((found, takeover::plan(found)?)))
            && let Err(error) = cluster.set_managed_fields(found, entries).await
        {
            return (id, before, Err(error));
        }
        match cluster.apply(&object, dry_run).await {
            Err(error) if forced && error.is_immutable() => match dry_run {
                true => (id, before, Ok(Value::Null)),
                false => (id, None, cluster.replace(&object).await),
            },
            applied => (id, before, applied),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_may_be_made_anew_says_so() {
        let object = |field: &str, word: &str| json!({"metadata": {field: {KUSTOMIZE_FORCE: word}}});
        assert!(is_forced(&object("annotations", "enabled")) && is_forced(&object("labels", "Enabled")));
        assert!(!is_forced(&object("annotations", "disabled")) && !is_forced(&json!({})));
    }

    #[test]
    fn files_are_named_also_of_what_was_placed_later() {
        let id = |namespace: &str| {
            Id::of(
                &json!({"apiVersion": "a/v1", "kind": "W", "metadata": {"name": "w", "namespace": namespace}}),
            )
        };
        let origins = Origins::from([(id(""), "app/w.yaml".to_owned())]);
        assert_eq!(from(&id("default"), &origins), " (from app/w.yaml)");
        let generated = Origins::from([(id("demo"), String::new())]);
        assert_eq!(from(&id("demo"), &generated), "");
    }
}
