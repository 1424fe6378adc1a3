//! One question to one hook: the `AdmissionReview` that is sent, and what its answer means.

use api::kinds::Kind;
use api::status::ApiError;
use api::weight;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Seen;
use super::hook::{Hook, decode_patch};
use super::told::Call;
use crate::Server;
use crate::admission::attributes::Attributes;
use crate::audit::timed;

/// Longer warnings are cut: they end in headers.
const WARNING_LIMIT_CHARS: usize = 256;

/// What a hook says, in either version of the review.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    allowed: bool,
    status: Option<Status>,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Vec<String>,
    audit_annotations: std::collections::BTreeMap<String, String>,
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

/// Why there is no answer that counts.
struct Failure(String);

/// The object as the hook wants it, or nothing where it leaves it as it is.
pub async fn mutating(
    server: &Server,
    attributes: &Attributes<'_>,
    (hook, call): (&Hook, Call),
    kind: &Kind,
    seen: &Seen<'_>,
) -> Result<Option<Value>, ApiError> {
    let asked = ask(server, attributes, (hook, call), kind, seen).await?;
    let Some(response) = asked else { return Ok(None) };
    let (Some(patch), Some(object)) = (response.patch.filter(|p| !p.is_empty()), seen.object) else {
        return Ok(None);
    };
    let patched = match response.patch_type.as_deref() {
        Some("JSONPatch") => decode_patch(&patch).and_then(|patch| {
            let patched = api::patch::json(object, &patch).map_err(|e| e.to_string())?;
            if patch.as_array().is_some_and(|steps| !steps.is_empty()) {
                call.tell_patch(hook, &patch);
            }
            Ok(patched)
        }),
        other => Err(format!("unexpected patch type {:?}", other.unwrap_or_default())),
    };
    match patched {
        Ok(patched) => Ok(Some(patched)),
        Err(detail) => missed((hook, call), Failure(detail)).map(|()| None),
    }
}

pub async fn validating(
    server: &Server,
    attributes: &Attributes<'_>,
    (hook, call): (&Hook, Call),
    kind: &Kind,
    seen: &Seen<'_>,
) -> Result<(), ApiError> {
    ask(server, attributes, (hook, call), kind, seen).await.map(drop)
}

/// The hook's answer when it allows the operation; nothing when it failed and that is to be overlooked.
async fn ask(
    server: &Server,
    attributes: &Attributes<'_>,
    (hook, call): (&Hook, Call),
    kind: &Kind,
    seen: &Seen<'_>,
) -> Result<Option<Response>, ApiError> {
    if attributes.dry_run && !hook.bears_dry_run {
        return Err(ApiError::bad_request(format!(
            "admission webhook {:?} does not support dry run",
            hook.name
        )));
    }
    let response = match timed(call.layer(), send(server, attributes, hook, kind, seen)).await {
        Ok(response) => response,
        Err(failure) => return missed((hook, call), failure).map(|()| None),
    };
    let cut = |text: &String| text.chars().take(WARNING_LIMIT_CHARS).collect();
    attributes.context.warn(response.warnings.iter().map(cut));
    for (key, value) in &response.audit_annotations {
        crate::audit::annotate(format!("{}/{key}", hook.name), value.as_str());
    }
    match response.allowed {
        true => Ok(Some(response)),
        false => Err(denied(hook, response.status)),
    }
}

/// What a hook's failure means to the operation.
fn missed((hook, call): (&Hook, Call), Failure(detail): Failure) -> Result<(), ApiError> {
    if hook.ignore_failure {
        call.tell_failed_open(hook);
        tracing::warn!(webhook = hook.name, detail, "a webhook failed, which its failurePolicy overlooks");
        return Ok(());
    }
    Err(ApiError::internal(format!("failed calling webhook {:?}: {detail}", hook.name)))
}

fn denied(hook: &Hook, status: Option<Status>) -> ApiError {
    let status = status.unwrap_or_default();
    let by = format!("admission webhook {:?} denied the request", hook.name);
    let said = status.message.clone().filter(|m| !m.is_empty());
    let said = said.or_else(|| status.reason.clone().filter(|r| !r.is_empty()));
    let message = match said {
        Some(said) => format!("{by}: {said}"),
        None => format!("{by} without explanation"),
    };
    let code = status.code.and_then(|c| u16::try_from(c).ok()).filter(|c| *c >= 400).unwrap_or(400);
    ApiError::worded(code, status.reason.unwrap_or_default(), message, status.details)
}

async fn send(
    server: &Server,
    attributes: &Attributes<'_>,
    hook: &Hook,
    kind: &Kind,
    seen: &Seen<'_>,
) -> Result<Response, Failure> {
    let backend = hook.backend.as_ref().map_err(|e| Failure(e.clone()))?;
    let uid = base::id::uuid();
    let query = format!("?timeout={}s", hook.timeout.as_secs());
    let wrong = |detail: String| {
        let url = backend.url(&query);
        Failure(format!("failed to call webhook: Post {url:?}: {detail}"))
    };
    let body = review(attributes, kind, hook.review_version, &uid, seen);
    let (code, bytes) =
        backend.post(server, &query, &body, hook.timeout).await.map_err(|e| wrong(e.to_string()))?;
    if !code.is_success() {
        let text = String::from_utf8_lossy(&bytes).chars().take(WARNING_LIMIT_CHARS).collect::<String>();
        return Err(Failure(format!(
            "failed to call webhook: the server responded with {code}: {}",
            text.trim()
        )));
    }
    // A few megabytes can come to gigabytes.
    weight::bounded(weight::of_json(&bytes))
        .map_err(|e| Failure(format!("failed to call webhook: the answer cannot be read: {e}")))?;
    let review: Review = serde_json::from_slice(&bytes)
        .map_err(|e| Failure(format!("failed to call webhook: the answer is not an AdmissionReview: {e}")))?;
    if review.api_version != hook.review_version || review.kind != "AdmissionReview" {
        return Err(Failure(format!(
            "received invalid webhook response: expected webhook response of {}, Kind=AdmissionReview, got {}, Kind={}",
            hook.review_version, review.api_version, review.kind
        )));
    }
    let response = review.response.ok_or_else(|| Failure("webhook response was absent".into()))?;
    if response.uid != uid {
        return Err(Failure(format!(
            "received invalid webhook response: expected response.uid={uid:?}, got {:?}",
            response.uid
        )));
    }
    Ok(response)
}

/// `kind` is the version that the object is shown in, which may be another than the request's.
fn review(attributes: &Attributes<'_>, kind: &Kind, version: &str, uid: &str, seen: &Seen<'_>) -> Value {
    let resource_of =
        |kind: &Kind| json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
    let (group, kind_version, name) = &attributes.kind;
    let asked_kind = json!({"group": group, "version": kind_version, "kind": name});
    let shown_kind = match attributes.is_of_kind() {
        true => json!({"group": kind.group, "version": kind.version, "kind": kind.kind}),
        false => asked_kind.clone(),
    };
    let who = &attributes.context.who;
    let mut user = json!({"username": who.username, "groups": who.groups});
    if !who.uid.is_empty() {
        user["uid"] = who.uid.as_str().into();
    }
    if !who.extra.is_empty() {
        user["extra"] = json!(who.extra);
    }
    let mut request = json!({
        "uid": uid,
        "kind": shown_kind,
        "resource": resource_of(kind),
        "requestKind": asked_kind,
        "requestResource": resource_of(&attributes.context.kind),
        "operation": attributes.operation.name(),
        "userInfo": user,
        "object": seen.object,
        "oldObject": seen.old,
        "dryRun": attributes.dry_run,
        "options": attributes.options,
    });
    for (field, value) in [
        ("name", attributes.name),
        ("namespace", attributes.namespace()),
        ("subResource", attributes.subresource),
        ("requestSubResource", attributes.subresource),
    ] {
        if !value.is_empty() {
            request[field] = value.into();
        }
    }
    json!({"kind": "AdmissionReview", "apiVersion": version, "request": request})
}
