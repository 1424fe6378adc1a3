//! Namespaces that are deleted: everything in them goes first, whatever its kind, and only then the namespace.

use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, PartialObjectMeta};

use crate::context::{self, Context, now};
use crate::discovery::{self, Served};
use crate::meta;

const FINALIZER: &str = "kubernetes";
/// Kinds that are emptied at the same time.
const AT_ONCE: usize = 8;
/// How soon to look whether the content has gone. Its kinds are unknown beforehand, so there is nothing to watch.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const LOOK_AGAIN_SLOWLY: Duration = Duration::from_secs(5);

pub fn start(context: &Context) -> Vec<Controller> {
    let namespaces = context.caches.of::<Namespace>();
    let reconciler = Namespaces { context: context.clone(), namespaces: Arc::clone(&namespaces) };
    vec![Controller::new("namespace", reconciler).owns_kind(&namespaces).workers(8)]
}

struct Namespaces {
    context: Context,
    namespaces: Arc<Cache<Namespace>>,
}

/// What was found in a namespace on one pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    /// Resource (`pods.`) and how many are left.
    remaining: Vec<(String, usize)>,
    /// Finalizer and how many objects it holds up.
    finalizers: Vec<(String, usize)>,
    failures: Vec<String>,
    discovery_failure: Option<String>,
}

impl Content {
    fn is_gone(&self) -> bool {
        self.remaining.is_empty() && self.failures.is_empty() && self.discovery_failure.is_none()
    }
}

impl Reconciler for Namespaces {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(namespace) = self.namespaces.get(&key) else { return Ok(Next::OnChange) };
            let finalized =
                !namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()).any(|f| f == FINALIZER);
            if !meta::is_deleting(&namespace.metadata) || finalized {
                return Ok(Next::OnChange);
            }
            self.empty(&namespace, &key.name).await
        })
    }
}

impl Namespaces {
    async fn empty(&self, namespace: &Namespace, name: &str) -> Outcome {
        let content = match discovery::served(self.context.client()).await {
            Ok(served) => self.delete_all(served, name).await,
            Err(error) => {
                Content { discovery_failure: Some(crate::message_of(&error)), ..Default::default() }
            }
        };
        let status = status(namespace.status.clone().unwrap_or_default(), &content, now());
        let api: Api<Namespace> = self.context.cluster_api();
        if !content.is_gone() {
            if namespace.status.as_ref() != Some(&status) {
                let updated = Namespace { status: Some(status), ..namespace.clone() };
                context::ignore_missing(context::write_status(&api, &updated).await)?;
            }
            let deleted = namespace.metadata.deletion_timestamp.as_ref().map_or(Timestamp::MAX, |t| t.0);
            let long = now().as_second().saturating_sub(deleted.as_second()) > 60;
            return Ok(Next::After(if long { LOOK_AGAIN_SLOWLY } else { LOOK_AGAIN }));
        }
        let mut done = namespace.clone();
        if let Some(finalizers) = done.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
            finalizers.retain(|f| f != FINALIZER);
        }
        let finalized: Result<Namespace, _> =
            api.replace_subresource("finalize", name, &context::params(), &done).await;
        context::ignore_missing(finalized)?;
        Ok(Next::OnChange)
    }

    async fn delete_all(&self, served: Vec<Served>, namespace: &str) -> Content {
        let kinds = served.into_iter().filter(|s| s.namespaced && s.listable && s.deletable);
        let (pods, kinds): (Vec<Served>, Vec<Served>) =
            kinds.partition(|s| s.resource.group.is_empty() && s.resource.plural == "pods");
        // Pods go first: what they are held by and live on must outlast them.
        for pods in pods {
            let (kind, result) = self.delete_kind(pods, namespace).await;
            if !matches!(&result, Ok(left) if left.is_empty()) {
                return summarize([(kind, result.map_err(|e| crate::message_of(&e)))].into_iter());
            }
        }
        let passes =
            stream::iter(kinds).map(|kind| self.delete_kind(kind, namespace)).buffer_unordered(AT_ONCE);
        let passes: Vec<(String, Result<Vec<ObjectMeta>, kube::Error>)> = passes.collect().await;
        summarize(passes.into_iter().map(|(kind, result)| (kind, result.map_err(|e| crate::message_of(&e)))))
    }

    /// Deletes all of one kind and returns what is left of it.
    async fn delete_kind(
        &self,
        kind: Served,
        namespace: &str,
    ) -> (String, Result<Vec<ObjectMeta>, kube::Error>) {
        let name = format!("{}.{}", kind.resource.plural, kind.resource.group);
        (name, self.delete_content(&kind, namespace).await)
    }

    async fn delete_content(&self, kind: &Served, namespace: &str) -> Result<Vec<ObjectMeta>, kube::Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.context.client(), namespace, &kind.resource);
        let found = list(&api).await?;
        if found.is_empty() || found.iter().all(meta::is_deleting) {
            return Ok(found);
        }
        if kind.delete_collection {
            api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        } else {
            for object in found.iter().filter(|object| !meta::is_deleting(object)) {
                context::delete_exactly(&api, object, DeleteParams::background()).await?;
            }
        }
        list(&api).await
    }
}

async fn list(api: &Api<DynamicObject>) -> Result<Vec<ObjectMeta>, kube::Error> {
    match api.list_metadata(&ListParams::default()).await {
        Ok(list) => Ok(list
            .items
            .into_iter()
            .map(|object: PartialObjectMeta<DynamicObject>| object.metadata)
            .collect()),
        // The kind went away meanwhile, and its objects with it.
        Err(error) if client::is_not_found(&error) => Ok(Vec::new()),
        Err(kube::Error::Api(status)) if status.code == 405 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn summarize(passes: impl Iterator<Item = (String, Result<Vec<ObjectMeta>, String>)>) -> Content {
    let mut content = Content::default();
    let mut finalizers = std::collections::BTreeMap::<String, usize>::new();
    for (kind, result) in passes {
        match result {
            Ok(left) if left.is_empty() => {}
            Ok(left) => {
                for finalizer in left.iter().flat_map(|m| m.finalizers.iter().flatten()) {
                    *finalizers.entry(finalizer.clone()).or_default() += 1;
                }
                content.remaining.push((kind, left.len()));
            }
            Err(message) => content.failures.push(message),
        }
    }
    content.remaining.sort();
    content.failures.sort();
    content.finalizers = finalizers.into_iter().collect();
    content
}

fn status(before: NamespaceStatus, content: &Content, now: Timestamp) -> NamespaceStatus {
    let failed = |message: &Option<String>| message.clone().map(|m| ("True", m));
    let failures = (!content.failures.is_empty()).then(|| {
        format!(
            "Failed to delete all resource types, {} remaining: {}",
            content.failures.len(),
            content.failures.join(", ")
        )
    });
    let remaining = (!content.remaining.is_empty()).then(|| {
        let list: Vec<_> =
            content.remaining.iter().map(|(kind, n)| format!("{kind} has {n} resource instances")).collect();
        format!("Some resources are remaining: {}", list.join(", "))
    });
    let finalizers = (!content.finalizers.is_empty()).then(|| {
        let list: Vec<_> =
            content.finalizers.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
        format!("Some content in the namespace has finalizers remaining: {}", list.join(", "))
    });
    let rows: [(&str, Option<String>, &str, &str, &str); 5] = [
        (
            "NamespaceDeletionDiscoveryFailure",
            content.discovery_failure.clone(),
            "DiscoveryFailed",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            failures,
            "ContentDeletionFailed",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            remaining,
            "SomeResourcesRemain",
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            finalizers,
            "SomeFinalizersRemain",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    let known = before.conditions.unwrap_or_default();
    let conditions = rows.into_iter().map(|(type_, bad, bad_reason, good_reason, good)| {
        let (status, message) = failed(&bad).unwrap_or(("False", good.to_owned()));
        let reason = if bad.is_some() { bad_reason } else { good_reason };
        let old = known.iter().find(|c| c.type_ == type_ && c.status == status);
        let since = old.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(now));
        NamespaceCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(since),
        }
    });
    NamespaceStatus { phase: Some("Terminating".into()), conditions: Some(conditions.collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn what_is_left_is_told_by_kind_and_finalizer() {
        let held = ObjectMeta { finalizers: Some(vec!["a/b".into()]), ..Default::default() };
        let content = summarize(
            [
                ("pods.".to_owned(), Ok(vec![held.clone(), held])),
                ("secrets.".to_owned(), Ok(vec![])),
                ("x.y".to_owned(), Err("no".to_owned())),
            ]
            .into_iter(),
        );
        assert!(!content.is_gone());
        let status = status(NamespaceStatus::default(), &content, at(0));
        let conditions = status.conditions.expect("set");
        let told: Vec<_> =
            conditions.iter().map(|c| (c.status.as_str(), c.message.as_deref().unwrap_or(""))).collect();
        assert_eq!(told[3], ("True", "Some resources are remaining: pods. has 2 resource instances"));
        assert_eq!(
            told[4].1,
            "Some content in the namespace has finalizers remaining: a/b in 2 resource instances"
        );
        assert!(summarize([("a".to_owned(), Ok(vec![]))].into_iter()).is_gone());
    }
}
