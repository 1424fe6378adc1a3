//! Custom resources in several versions: what is stored in one is served in all. A definition either says that its
//! versions differ in name only, or names a webhook that turns one into another. Whatever reads entries has them
//! converted first, and goes on as if they had been stored in the version that it serves.

use std::sync::Arc;
use std::time::Duration;

use api::kinds::Kind;
use api::meta;
use api::status::ApiError;
use api::weight;
use bytes::Bytes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinitionSpec, WebhookConversion,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Entry, Event, Expect};

use crate::Server;
use crate::backend::{Backend, ServiceReference};
use crate::objects::{Beside, Written};

const TIMEOUT: Duration = Duration::from_secs(30);
/// So many objects are sent in one review, so that neither it nor its answer grows without bounds.
const BATCH: usize = 250;
/// What an answer may come to in memory.
const ANSWER_WEIGHT_LIMIT_BYTES: usize = 4 * weight::LIMIT_BYTES;
const REVIEWS: &[&str] = &["v1", "v1beta1"];

/// The webhook of one definition.
pub struct Converter {
    group: String,
    kind: String,
    /// Where it is, or what is wrong with where it is said to be.
    backend: Result<Backend, String>,
    review_version: Option<&'static str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Response>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    result: Status,
    converted_objects: Vec<Value>,
}

impl Converter {
    pub fn of(spec: &CustomResourceDefinitionSpec) -> Option<Self> {
        let conversion = spec.conversion.as_ref().filter(|c| c.strategy == "Webhook")?;
        let webhook = conversion.webhook.clone().unwrap_or_default();
        let known = |version: &String| REVIEWS.iter().find(|known| *known == version).copied();
        Some(Self {
            group: spec.group.clone(),
            kind: spec.names.kind.clone(),
            review_version: webhook.conversion_review_versions.iter().find_map(known),
            backend: backend(webhook),
        })
    }

    /// As the original names what was to be converted.
    fn refused(&self, version: &str, why: impl std::fmt::Display) -> ApiError {
        let subject = format!("{}/{version}, Kind={}", self.group, self.kind);
        ApiError::unexplained(format!("conversion webhook for {subject} {why}"))
    }

    async fn ask(&self, server: &Server, desired: &str, objects: &[Value]) -> Result<Vec<Value>, String> {
        let backend = self.backend.as_ref().map_err(Clone::clone)?;
        let version = self.review_version.ok_or("no supported conversion review versions")?;
        let uid = base::id::uuid();
        let review = json!({"kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": desired, "objects": objects}});
        let query = format!("?timeout={}s", TIMEOUT.as_secs());
        let wrong = |detail: String| format!("Post {:?}: {detail}", backend.url(&query));
        let (code, bytes) =
            backend.post(server, &query, &review, TIMEOUT).await.map_err(|e| wrong(e.to_string()))?;
        if !code.is_success() {
            return Err(format!("the server responded with {code}"));
        }
        // Those of a whole list come to more than one object may.
        if weight::of_json(&bytes) > ANSWER_WEIGHT_LIMIT_BYTES {
            return Err(format!(
                "the answer is larger than {ANSWER_WEIGHT_LIMIT_BYTES} bytes once it is decoded"
            ));
        }
        let answer: Review = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        if answer.api_version != review["apiVersion"] || answer.kind != "ConversionReview" {
            let (group, given) = answer.api_version.split_once('/').unwrap_or(("", &answer.api_version));
            return Err(format!(
                "expected webhook response of apiextensions.k8s.io/{version}, Kind=ConversionReview, got {group}/{given}, Kind={}",
                answer.kind
            ));
        }
        let response = answer.response.ok_or("no response provided")?;
        // The older form of the review does not bind an answer to its question.
        if version == "v1" && response.uid != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
        }
        match response.result.status.as_deref().unwrap_or_default() {
            "Success" => Ok(response.converted_objects),
            status => Err(response
                .result
                .message
                .filter(|m| !m.is_empty())
                .unwrap_or_else(|| format!("response.result.status was '{status}', not 'Success'"))),
        }
    }

    /// The objects in another version, those that are in it already as they are.
    async fn convert(
        &self,
        server: &Server,
        desired: &str,
        mut objects: Vec<Value>,
    ) -> Result<Vec<Value>, ApiError> {
        let others: Vec<usize> =
            (0..objects.len()).filter(|i| objects[*i]["apiVersion"].as_str() != Some(desired)).collect();
        for batch in others.chunks(BATCH) {
            let given: Vec<Value> = batch.iter().map(|i| objects[*i].clone()).collect();
            let from = given[0]["apiVersion"].as_str().unwrap_or_default();
            let from = from.rsplit('/').next().unwrap_or_default().to_owned();
            let asked = self.ask(server, desired, &given).await;
            let converted = asked.map_err(|why| self.refused(&from, format!("failed: {why}")))?;
            if converted.len() != given.len() {
                let (got, wanted) = (converted.len(), given.len());
                return Err(self.refused(&from, format!("returned {got} objects, expected {wanted}")));
            }
            for (n, (at, object)) in batch.iter().zip(converted).enumerate() {
                objects[*at] = checked(desired, &given[n], object).map_err(|why| {
                    self.refused(&from, format!("returned invalid converted object at index {n}: {why}"))
                })?;
            }
        }
        Ok(objects)
    }
}

fn backend(webhook: WebhookConversion) -> Result<Backend, String> {
    let config = webhook.client_config.unwrap_or_default();
    let service = config.service.map(|s| ServiceReference {
        namespace: s.namespace,
        name: s.name,
        port: s.port,
        path: s.path,
    });
    let authority = config.ca_bundle.as_ref().map(|b| b.0.as_slice());
    Backend::new(config.url.as_deref(), service, authority, false, None).map_err(|e| e.to_string())
}

/// Only what an object says of itself is the webhook's: of its metadata labels and annotations.
fn checked(desired: &str, given: &Value, converted: Value) -> Result<Value, String> {
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let version = text(&converted, "apiVersion");
    if version != desired {
        return Err(format!("invalid groupVersion (expected {desired}, received {version})"));
    }
    let (kind, wanted) = (text(&converted, "kind"), text(given, "kind"));
    if kind != wanted {
        return Err(format!("invalid kind (expected {wanted}, received {kind})"));
    }
    if !converted["metadata"].is_object() {
        return Err("missing metadata in converted object".into());
    }
    for (what, field) in [("name", "name"), ("namespace", "namespace"), ("UID", "uid")] {
        let (held, got) = (meta::text(given, field), meta::text(&converted, field));
        if held != got {
            return Err(format!("must have the same {what}: {held} != {got}"));
        }
    }
    let mut metadata = given["metadata"].clone();
    for field in ["labels", "annotations"] {
        let pairs = &converted["metadata"][field];
        let strings = pairs.as_object().is_none_or(|m| m.values().all(Value::is_string));
        if !(pairs.is_null() || pairs.is_object()) || !strings {
            return Err(format!("invalid metadata.{field} in converted object: must be a map of strings"));
        }
        match (pairs, &mut metadata) {
            (Value::Object(pairs), Value::Object(metadata)) => {
                metadata.insert(field.into(), pairs.clone().into());
            }
            (_, Value::Object(metadata)) => drop(metadata.remove(field)),
            _ => {}
        }
    }
    let mut converted = converted;
    converted["metadata"] = metadata;
    Ok(converted)
}

impl Server {
    fn converter(&self, kind: &Kind) -> Option<std::sync::Arc<Converter>> {
        kind.custom.as_ref()?;
        self.catalog.snapshot().converter(&kind.group, &kind.plural)
    }

    /// Objects of a kind as it serves them, from whichever version.
    pub async fn served(&self, kind: &Kind, object: Value) -> Result<Value, ApiError> {
        match self.converter(kind) {
            Some(converter) => {
                let converted = converter.convert(self, &kind.api_version(), vec![object]).await?;
                converted.into_iter().next().ok_or_else(|| ApiError::internal("nothing was converted"))
            }
            None => Ok(object),
        }
    }

    /// An object of one version in another one of the same resource.
    pub async fn converted(&self, from: &Kind, to: &Kind, object: Value) -> Result<Value, ApiError> {
        if (&from.group, &from.version) == (&to.group, &to.version) {
            return Ok(object);
        }
        if to.custom.is_none() {
            return Ok(to.to_served(from.to_stored(&object)));
        }
        let mut object = self.served(to, object).await?;
        object["apiVersion"] = to.api_version().into();
        Ok(object)
    }

    /// Entries as if they had been stored in the version that the kind serves.
    pub async fn served_entries(&self, kind: &Kind, entries: Vec<Entry>) -> Result<Vec<Entry>, ApiError> {
        let Some(converter) = self.converter(kind) else { return Ok(entries) };
        let objects: Vec<Value> =
            entries.iter().map(|entry| self.objects.decode(entry)).collect::<Result<_, _>>()?;
        let converted = converter.convert(self, &kind.api_version(), objects).await?;
        let with = |(entry, object): (Entry, Value)| Entry { value: meta::to_stored(&object), ..entry };
        Ok(entries.into_iter().zip(converted).map(with).collect())
    }

    /// Events likewise, the state before each included.
    pub async fn served_events(
        &self,
        kind: &Kind,
        events: Vec<std::sync::Arc<Event>>,
    ) -> Result<Vec<std::sync::Arc<Event>>, ApiError> {
        if self.converter(kind).is_none() {
            return Ok(events);
        }
        let entries = events.iter().flat_map(|e| [Some(&e.entry), e.previous.as_ref()]).flatten();
        let mut converted = self.served_entries(kind, entries.cloned().collect()).await?.into_iter();
        let mut next = || converted.next().ok_or_else(|| ApiError::internal("nothing was converted"));
        let mut out = Vec::with_capacity(events.len());
        for event in events {
            let entry = next()?;
            let previous = event.previous.as_ref().map(|_| next()).transpose()?;
            out.push(std::sync::Arc::new(Event { entry, previous, ..(*event).clone() }));
        }
        Ok(out)
    }

    /// Writes an object, in the version that its kind is stored in, and what goes beside it. Its text, without a `resourceVersion`, where it is served
    /// as it is stored.
    pub async fn put(
        &self,
        kind: &Kind,
        object: &Arc<Value>,
        expect: Expect,
        beside: &[Beside],
    ) -> Result<(Written, Option<Bytes>), ApiError> {
        let Some(custom) = kind.custom.as_ref().filter(|c| kind.version != *c.storage_version) else {
            let (written, text) = self.objects.put(kind, object, expect, beside).await?;
            return Ok((written, Some(text).filter(|_| kind.conversion.is_none())));
        };
        let stored = format!("{}/{}", kind.group, custom.storage_version);
        let mut object = Value::clone(object);
        object = match self.converter(kind) {
            Some(converter) => {
                let converted = converter.convert(self, &stored, vec![object]).await?;
                converted.into_iter().next().ok_or_else(|| ApiError::internal("nothing was converted"))?
            }
            None => {
                object["apiVersion"] = stored.into();
                object
            }
        };
        Ok((self.objects.put(kind, &Arc::new(object), expect, beside).await?.0, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(converted: Value, expected: &str) {
        let given = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "uid": "u", "finalizers": ["f"]}, "x": 1});
        let shown = match checked("g/v2", &given, converted) {
            Ok(object) => object.to_string(),
            Err(why) => why,
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_webhook_may_change_labels_and_annotations_alone_of_the_metadata() {
        check(
            json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "a", "uid": "u", "labels": {"a": "b"}}, "y": 1}),
            r#"{"apiVersion":"g/v2","kind":"K","metadata":{"finalizers":["f"],"labels":{"a":"b"},"name":"a","uid":"u"},"y":1}"#,
        );
        check(json!({"apiVersion": "g/v2", "kind": "K"}), "missing metadata in converted object");
        check(
            json!({"apiVersion": "g/v1", "kind": "K"}),
            "invalid groupVersion (expected g/v2, received g/v1)",
        );
        check(json!({"apiVersion": "g/v2", "kind": "L"}), "invalid kind (expected K, received L)");
        check(
            json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "b", "uid": "u"}}),
            "must have the same name: a != b",
        );
        check(
            json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "a", "uid": "u", "labels": {"a": 1}}}),
            "invalid metadata.labels in converted object: must be a map of strings",
        );
    }
}
