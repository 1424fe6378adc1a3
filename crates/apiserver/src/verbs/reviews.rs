//! Questions about identity and rights, and tokens on request: answered at once, never stored.

use ::http::StatusCode;
use api::meta;
use api::status::{ApiError, FieldError, Resource};
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReviewStatus, TokenRequest, TokenRequestStatus, TokenReview, TokenReviewStatus, UserInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use serde_json::{Value, json};

use super::access::{self, About};
use super::input;
use crate::admission::{self, Operation};
use crate::auth::authentication::Authenticated;
use crate::auth::tokens::{Bound, Claims, ISSUER, LIFETIME_MAX_SECONDS, Reference};
use crate::auth::{AUTHENTICATED, Identity};
use crate::http::body::Body;
use crate::http::respond::{self, Answer};
use crate::{ApiServer, Context, Server};

const TOKEN_MIN_SECONDS: i64 = 600;
/// What may be asked for; no token lasts so long.
const TOKEN_MAX_SECONDS: i64 = 1 << 32;
const TOKEN_DEFAULT_SECONDS: i64 = 3600;

pub async fn answer(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    match (&*context.kind.kind, context.target.verb) {
        ("Binding", _) => return super::pods::bind_named(server, context, body).await,
        (_, "get") => return super::components::get(context),
        (_, "list") => return super::components::list(context),
        _ => {}
    }
    let mut review = input::object(context, body).await?;
    let metadata = metadata(server, context, &mut review)?;
    let status = match &*context.kind.kind {
        "SelfSubjectReview" => {
            to_value(&SelfSubjectReviewStatus { user_info: Some(user_info(&context.who)) })
        }
        "TokenReview" => to_value(&token_review(server, &review).await),
        "SelfSubjectRulesReview" => {
            let namespace = review["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
            let rules = access::rules(server, &context.who, &namespace).await?;
            review["spec"] = json!({});
            to_value(&rules)
        }
        kind => {
            let about = match kind {
                "SelfSubjectAccessReview" => About::Oneself,
                "LocalSubjectAccessReview" => About::AnybodyHere,
                _ => About::Anybody,
            };
            to_value(&access::review(server, context, about, &review).await?)
        }
    };
    review["status"] = status;
    review["metadata"] = metadata;
    Ok(respond::object(StatusCode::CREATED, context.form, &review))
}

/// The metadata of the answer: what was given, where it is, and who asked for what, where the original says so.
fn metadata(server: &ApiServer, context: &Context, review: &mut Value) -> Result<Value, ApiError> {
    match &*context.kind.kind {
        // It is made anew, whatever was said.
        "SelfSubjectReview" => {
            let now = base::time::rfc3339_seconds(base::time::now());
            return Ok(json!({"creationTimestamp": now}));
        }
        "SelfSubjectRulesReview" => return Ok(json!({})),
        "TokenReview" if review["spec"]["token"].as_str().unwrap_or_default().is_empty() => {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        _ => {}
    }
    let owned = super::owners(server, context, None, review, super::Writes::Main);
    let mut metadata = Value::Object(meta::metadata(review).clone());
    if context.kind.namespaced {
        metadata["namespace"] = context.target.namespace.as_str().into();
    }
    if !owned.is_null() {
        metadata["managedFields"] = owned;
    }
    Ok(metadata)
}

fn to_value(status: &impl Serialize) -> Value {
    serde_json::to_value(status).unwrap_or_default()
}

fn user_info(who: &Identity) -> UserInfo {
    UserInfo {
        username: Some(who.username.clone()),
        uid: Some(who.uid.clone()).filter(|u| !u.is_empty()),
        groups: Some(who.groups.clone()),
        extra: Some(who.extra.clone()).filter(|e| !e.is_empty()),
    }
}

async fn token_review(server: &ApiServer, review: &Value) -> TokenReviewStatus {
    let review: TokenReview = serde_json::from_value(review.clone()).unwrap_or_default();
    let wanted =
        review.spec.audiences.clone().filter(|a| !a.is_empty()).unwrap_or_else(|| vec![ISSUER.to_owned()]);
    let audiences: Vec<&str> = wanted.iter().map(String::as_str).collect();
    match server.0.token_identity(&review.spec.token, &audiences).await {
        Some(found) => TokenReviewStatus {
            authenticated: Some(true),
            user: Some(user_info(&found.who)),
            audiences: Some(found.audiences),
            error: None,
        },
        None => TokenReviewStatus {
            error: Some("invalid bearer token".into()),
            user: Some(UserInfo::default()),
            ..Default::default()
        },
    }
}

const EXTRA: &str = "authentication.kubernetes.io";

impl Server {
    /// Whom a token of a service account stands for, if it holds and everything it is bound to is still there.
    pub(crate) async fn account_identity(&self, token: &str, audiences: &[&str]) -> Option<Authenticated> {
        let claims = match self.signer.verify(token, audiences, base::time::now().as_second()) {
            Ok(claims) => claims,
            Err(error) => {
                tracing::debug!(%error, "refused a token");
                return None;
            }
        };
        let Bound { namespace, serviceaccount: account, pod, secret, node } = &claims.kubernetes;
        self.still_there("serviceaccounts", namespace, account).await?;
        let mut who = Identity {
            username: format!("system:serviceaccount:{namespace}:{}", account.name),
            uid: account.uid.clone(),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                AUTHENTICATED.into(),
            ],
            ..Default::default()
        };
        let mut tell = |key: &str, value: String| who.extra.insert(format!("{EXTRA}/{key}"), vec![value]);
        tell("credential-id", format!("JTI={}", claims.jti));
        if let Some(pod) = pod {
            self.still_there("pods", namespace, pod).await?;
            tell("pod-name", pod.name.clone());
            tell("pod-uid", pod.uid.clone());
        }
        if let Some(secret) = secret {
            self.still_there("secrets", namespace, secret).await?;
        }
        if let Some(node) = node {
            // A pod's node is only told; a token for a node is bound to it.
            if pod.is_none() {
                self.still_there("nodes", "", node).await?;
            }
            tell("node-name", node.name.clone());
            tell("node-uid", node.uid.clone());
        }
        let audiences = claims.aud.into_iter().filter(|a| audiences.contains(&a.as_str())).collect();
        Some(Authenticated { who, audiences, warning: None })
    }

    /// Whether what a token is bound to is the object that has its name now, and is not going for too long.
    async fn still_there(&self, plural: &str, namespace: &str, wanted: &Reference) -> Option<()> {
        let kinds = self.catalog.snapshot();
        let kind = kinds.find("", "v1", plural)?;
        let (_, object) = self.objects.get(kind, namespace, &wanted.name).await.ok()??;
        let now = base::time::now();
        (meta::uid(&object) == wanted.uid && !has_gone(&object, now)).then_some(())
    }
}

/// What ends still needs its token for a little while, but not for as long as a finalizer holds it.
const GOING_SECONDS: i64 = 60;

fn has_gone(object: &Value, now: jiff::Timestamp) -> bool {
    let since = object["metadata"]["deletionTimestamp"]
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    since.is_some_and(|since| now.as_second() - since.as_second() > GOING_SECONDS)
}

/// `serviceaccounts/token`.
pub async fn token_request(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let value = input::other(context, body).await?;
    input::check_other(("authentication.k8s.io", "v1", "TokenRequest"), &value)?;
    admission::validate(server, context, Some(&value), None, Operation::Create).await?;
    let request: TokenRequest = serde_json::from_value(value.clone())
        .map_err(|e| ApiError::bad_request(format!("invalid TokenRequest: {e}")))?;
    let spec = request.spec.unwrap_or_default();
    let (_, account) = super::read::find(server, context).await?;
    is_for(&value, context)?;
    let seconds = lifetime_seconds(context, spec.expiration_seconds)?;
    let namespace = context.target.namespace.clone();
    let mut bound = Bound {
        namespace: namespace.clone(),
        serviceaccount: Reference { name: meta::name(&account).into(), uid: meta::uid(&account).into() },
        ..Default::default()
    };
    if let Some(object) = &spec.bound_object_ref {
        bind(server, &mut bound, object).await?;
    }
    let now = base::time::now().as_second();
    let audiences = spec.audiences.filter(|a| !a.is_empty()).unwrap_or_else(|| vec![ISSUER.to_owned()]);
    let claims = Claims {
        iss: ISSUER.into(),
        sub: format!("system:serviceaccount:{namespace}:{}", meta::name(&account)),
        aud: audiences.clone(),
        exp: now + seconds,
        iat: now,
        nbf: now,
        jti: base::id::uuid(),
        kubernetes: bound,
    };
    let token = server.0.signer.sign(&claims).map_err(ApiError::internal)?;
    crate::audit::annotate(
        "authentication.kubernetes.io/issued-credential-id",
        format!("JTI={}", claims.jti),
    );
    let expires = jiff::Timestamp::from_second(now + seconds).unwrap_or_default();
    let status = TokenRequestStatus { token: Some(token), expiration_timestamp: Some(Time(expires)) };
    let mut answer = value;
    answer["kind"] = "TokenRequest".into();
    answer["apiVersion"] = "authentication.k8s.io/v1".into();
    answer["metadata"] =
        json!({"name": context.target.name, "namespace": namespace, "creationTimestamp": null});
    answer["spec"]["audiences"] = json!(audiences);
    answer["spec"]["expirationSeconds"] = seconds.into();
    answer["status"] = to_value(&status);
    Ok(respond::json(StatusCode::CREATED, &answer))
}

/// Refuses a request that says itself that it is for another account.
fn is_for(request: &Value, context: &Context) -> Result<(), ApiError> {
    let said = |field: &str| request["metadata"][field].as_str().filter(|text| !text.is_empty());
    if said("namespace").is_some_and(|namespace| namespace != context.target.namespace) {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(why));
    }
    let account = context.target.name.as_str();
    match said("name").filter(|name| *name != account) {
        Some(name) => {
            let detail = "must match the service account name if specified";
            let errors = [FieldError::invalid("metadata.name", name, detail)];
            Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", account, &errors))
        }
        None => Ok(()),
    }
}

/// For how long a token is good. More than our keys can keep is told to be less.
fn lifetime_seconds(context: &Context, asked: Option<i64>) -> Result<i64, ApiError> {
    let seconds = asked.unwrap_or(TOKEN_DEFAULT_SECONDS);
    let detail = match seconds {
        ..TOKEN_MIN_SECONDS => "may not specify a duration less than 10 minutes",
        TOKEN_MIN_SECONDS..=TOKEN_MAX_SECONDS => {
            if seconds > LIFETIME_MAX_SECONDS {
                let told = format!(
                    "requested expiration of {seconds} seconds shortened to {LIFETIME_MAX_SECONDS} seconds"
                );
                context.warn([told]);
            }
            return Ok(seconds.min(LIFETIME_MAX_SECONDS));
        }
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let errors = [FieldError::invalid("spec.expirationSeconds", seconds, detail)];
    Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &errors))
}

/// What a token may be bound to, and where that is.
const BINDABLE: &[(&str, &str)] = &[("Pod", "pods"), ("Secret", "secrets"), ("Node", "nodes")];

async fn bind(
    server: &ApiServer,
    bound: &mut Bound,
    object: &k8s_openapi::api::authentication::v1::BoundObjectReference,
) -> Result<(), ApiError> {
    let name = object.name.clone().unwrap_or_default();
    let kind = object.kind.as_deref().unwrap_or_default();
    let version = object.api_version.as_deref().unwrap_or_default();
    let known = BINDABLE.iter().find(|(known, _)| *known == kind && matches!(version, "" | "v1"));
    let Some((_, plural)) = known else {
        let slash = if version.contains('/') { "" } else { "/" };
        let why = format!("cannot bind token to object of type {slash}{version}, Kind={kind}");
        return Err(ApiError::bad_request(why));
    };
    let kinds = server.0.catalog.snapshot();
    let found_kind = kinds.find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let namespace = if found_kind.namespaced { bound.namespace.clone() } else { String::new() };
    let found = server.0.objects.get(found_kind, &namespace, &name).await?;
    let (_, found) = found.ok_or_else(|| ApiError::not_found(&found_kind.resource(), &name))?;
    let wanted = object.uid.as_deref().unwrap_or_default();
    if !wanted.is_empty() && wanted != meta::uid(&found) {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        // The original names the kind here, not the resource.
        return Err(ApiError::conflict(&Resource { group: "", plural: kind }, &name, &why));
    }
    let reference = Some(Reference { name, uid: meta::uid(&found).to_owned() });
    match kind {
        "Secret" => bound.secret = reference,
        "Node" => bound.node = reference,
        _ => {
            let account = &bound.serviceaccount.name;
            if found["spec"]["serviceAccountName"].as_str().unwrap_or("default") != account {
                let why = format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                );
                return Err(ApiError::bad_request(why));
            }
            bound.pod = reference;
            bound.node = pods_node(server, &found).await?;
        }
    }
    Ok(())
}

/// The node of a pod, where it is known.
async fn pods_node(server: &ApiServer, pod: &Value) -> Result<Option<Reference>, ApiError> {
    let Some(name) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) else { return Ok(None) };
    let kinds = server.0.catalog.snapshot();
    let nodes = kinds.find("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
    let found = server.0.objects.get(nodes, "", name).await?;
    Ok(found.map(|(_, node)| Reference { name: name.to_owned(), uid: meta::uid(&node).to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_from_going_has_gone_after_a_while() {
        let now: jiff::Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let check = |since: Value, wanted: bool| {
            assert_eq!(has_gone(&json!({"metadata": {"deletionTimestamp": since}}), now), wanted, "{since}");
        };
        check(Value::Null, false);
        check(json!("2026-01-01T00:02:00Z"), false);
        check(json!("2026-01-01T00:00:00Z"), false);
        check(json!("2025-12-31T23:59:59Z"), true);
    }
}
