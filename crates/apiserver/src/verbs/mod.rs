//! The verbs, each once for all kinds. A kind supplies data and pure functions; what happens to an object, and in
//! which order, is here.

mod access;
mod apply;
mod components;
mod connect;
mod create;
mod delete;
mod evict;
mod hidden;
pub(crate) mod input;
pub(crate) mod list;
mod ownership;
mod patch;
mod pods;
mod proxy;
mod read;
mod reviews;
pub(crate) mod scale;
mod strictness;
mod update;
mod versions;
mod watch;

use std::borrow::Cow;
use std::sync::Arc;

use ::http::{Method, Request, StatusCode};
use api::kinds::{Errors, Kind, Rejection};
use api::meta;
use api::status::ApiError;
use bytes::Bytes;
use serde_json::Value;

use crate::http::accept::Shape;
use crate::http::body::Body;
use crate::http::respond::{self, Answer};
use crate::{ApiServer, Context, table};

pub use create::create_object;
pub(crate) use ownership::owners;
pub(crate) use read::set_version;
pub use update::Writes;

/// Sends a request to its verb. A kind that is going out of use says so with every answer.
pub async fn dispatch(
    server: &ApiServer,
    context: Context,
    request: Request<Body>,
) -> Result<Answer, ApiError> {
    let answer = match verb(server, &context, request).await {
        Err(error) => Err(hidden::hidden(server, &context, named(&context, error)).await),
        answer => answer,
    };
    let warnings = std::mem::take(&mut *context.warnings.lock()).told();
    match answer {
        Ok(answer) => Ok(respond::warn(answer, &warnings)),
        // A refusal says why, and what else there was to say goes with it.
        Err(error) if !warnings.is_empty() => {
            Ok(respond::warn(respond::error(context.form, &error), &warnings))
        }
        Err(error) => Err(error),
    }
}

/// What custom objects do not have is told with what they are.
fn named(context: &Context, error: ApiError) -> ApiError {
    let unnamed = error.details.as_deref().is_some_and(|details| details.kind.is_none());
    let (resource, target) = (context.resource(), &context.target);
    match error.code {
        404 | 405 if context.kind.custom.is_none() || !unnamed => error,
        404 => ApiError::not_found(&resource, &target.name),
        405 => ApiError::verb_not_supported(&resource, target.verb),
        _ => error,
    }
}

async fn verb(server: &ApiServer, context: &Context, request: Request<Body>) -> Result<Answer, ApiError> {
    let target = &context.target;
    // A right in a namespace is a right to what lies in it: nothing else may be reached by its path.
    let is_namespace = context.kind.group.is_empty() && context.kind.kind == "Namespace";
    let over_all = target.name.is_empty() && matches!(target.verb, "list" | "watch");
    match (context.kind.namespaced, target.namespace.is_empty()) {
        (false, false) if !is_namespace => return Err(ApiError::no_such_path()),
        (true, true) if !over_all && !target.name.is_empty() => return Err(ApiError::no_such_path()),
        (true, true) if !over_all && context.kind.verbs == ["create"] => return Err(ApiError::no_such_path()),
        (true, true) if !over_all => return Err(ApiError::method_not_allowed()),
        _ => {}
    }
    if target.subresource.is_empty() {
        // Objects are created in their collection, and changed each by its name.
        let misplaced = match target.verb {
            "create" => !target.name.is_empty(),
            "update" | "patch" => target.name.is_empty(),
            _ => *request.method() == Method::HEAD,
        };
        // What is never kept has no place of its own.
        if context.kind.verbs == ["create"] && !target.name.is_empty() {
            return Err(ApiError::no_such_path());
        }
        if misplaced || !context.kind.verbs.contains(&target.verb) {
            return Err(ApiError::method_not_allowed());
        }
        // Where nothing is served there is nobody to be told.
        if let Some(warning) = context.kind.deprecated {
            context.warn([warning.to_owned()]);
            crate::audit::annotate("k8s.io/deprecated", "true");
        }
        if context.kind.is_virtual() && target.verb == "create" && context.form.shape != Shape::Object {
            let why = "only the following media types are accepted: application/json, application/yaml, \
                       application/vnd.kubernetes.protobuf";
            return Err(ApiError::not_acceptable(why));
        }
        if context.kind.is_virtual() {
            return reviews::answer(server, context, request.into_body()).await;
        }
        return match target.verb {
            "get" => read::get(server, context).await,
            "list" => list::list(server, context).await,
            "watch" => watch::watch(server, context, request).await,
            "create" => create::create(server, context, request.into_body()).await,
            "update" => update::update(server, context, request.into_body(), Writes::Main).await,
            "patch" => patch::patch(server, context, request.into_body(), Writes::Main).await,
            "delete" => delete::delete(server, context, request.into_body()).await,
            "deletecollection" => delete::delete_collection(server, context, request.into_body()).await,
            _ => Err(ApiError::method_not_allowed()),
        };
    }
    subresource(server, context, request).await
}

async fn subresource(
    server: &ApiServer,
    context: &Context,
    request: Request<Body>,
) -> Result<Answer, ApiError> {
    let target = &context.target;
    let known = context.kind.subresource(&target.subresource).ok_or_else(ApiError::no_such_path)?;
    // Whatever a proxy is asked by, it passes on.
    if known.name != "proxy" && (!known.verbs.contains(&target.verb) || *request.method() == Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    match (known.name, target.verb) {
        ("status", "get") => read::get(server, context).await,
        ("status", "update") => update::update(server, context, request.into_body(), Writes::Status).await,
        ("status", "patch") => patch::patch(server, context, request.into_body(), Writes::Status).await,
        ("finalize", _) => update::update(server, context, request.into_body(), Writes::Finalize).await,
        ("scale", "get") => scale::get(server, context).await,
        ("scale", "update") => scale::update(server, context, request.into_body()).await,
        ("scale", "patch") => scale::patch(server, context, request.into_body()).await,
        (_, "get") if known.part.is_some() => read::get(server, context).await,
        (_, "update" | "patch") if known.part.is_some() => {
            let Some(part) = known.part else { return Err(ApiError::no_such_path()) };
            match target.verb {
                "update" => update::update(server, context, request.into_body(), Writes::Part(part)).await,
                _ => patch::patch(server, context, request.into_body(), Writes::Part(part)).await,
            }
        }
        ("binding", _) => pods::bind(server, context, request.into_body()).await,
        ("eviction", _) => evict::evict(server, context, request.into_body()).await,
        ("token", _) => reviews::token_request(server, context, request.into_body()).await,
        ("log" | "exec" | "attach" | "portforward" | "proxy", _) => {
            connect::connect(server, context, request).await
        }
        _ => Err(ApiError::no_such_path()),
    }
}

/// What a kind's refusal means to the client.
fn rejected(kind: &Kind, name: &str, rejection: Rejection) -> ApiError {
    match rejection {
        Rejection::Decode(detail) => ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {detail}",
            kind.kind, kind.version, kind.kind
        )),
        // Told of the stored form, which is what was found wanting.
        Rejection::Fields(errors) => ApiError::invalid(kind.stored_as().0, &kind.kind, name, &errors),
    }
}

/// What a kind made of an object, unless it or the metadata has faults; all are told at once.
pub(crate) fn taken_or_refused(
    kind: &Kind,
    name: &str,
    mut errors: Errors,
    made: Result<Value, Rejection>,
) -> Result<Value, ApiError> {
    match made {
        Ok(object) if errors.0.is_empty() => Ok(object),
        Ok(_) => Err(rejected(kind, name, Rejection::Fields(errors.0))),
        Err(Rejection::Fields(more)) => {
            errors.0.extend(more);
            Err(rejected(kind, name, Rejection::Fields(errors.0)))
        }
        Err(undecodable) => Err(rejected(kind, name, undecodable)),
    }
}

/// An object that was just written.
pub struct Stored {
    object: Arc<Value>,
    revision: u64,
    /// What it is served as, but for the revision, where that is known.
    text: Option<Bytes>,
}

impl Stored {
    pub fn object(self) -> Value {
        let mut object = Arc::unwrap_or_clone(self.object);
        meta::set(&mut object, "resourceVersion", self.revision.to_string());
        object
    }

    /// In the form asked for; where that is what was written, nothing is made anew.
    fn answer(self, context: &Context, code: StatusCode) -> Answer {
        match &self.text {
            Some(text) if context.form.is_plain_json() => as_stored(context, code, text, self.revision),
            _ => one(context, code, &self.object()),
        }
    }
}

/// Stored bytes with their revision put in: nothing is parsed.
fn as_stored(context: &Context, code: StatusCode, plain: &[u8], revision: u64) -> Answer {
    let mut out = Vec::with_capacity(plain.len() + 64);
    meta::write_served(&mut out, plain, revision);
    out.push(b'\n');
    respond::bytes(code, context.form.encoding.media_type(), out)
}

/// One object in the form asked for.
fn one(context: &Context, code: StatusCode, object: &Value) -> Answer {
    let form = context.form;
    if form.shape == Shape::MetadataList {
        let why = "you requested PartialObjectMetadataList, but the requested object is not a list";
        let refusal = ApiError::not_acceptable(format!("{why} ({})", go_type(&context.kind, false)));
        return respond::error(form, &refusal);
    }
    respond::object(code, form, &shaped(context, object))
}

/// An object as a table, as bare metadata, or as it is.
fn shaped<'a>(context: &Context, object: &'a Value) -> Cow<'a, Value> {
    let version = context.form.meta_version;
    match context.form.shape {
        Shape::Object => Cow::Borrowed(object),
        Shape::Metadata | Shape::MetadataList => Cow::Owned(table::partial(&context.kind, object, version)),
        Shape::Table => {
            Cow::Owned(table::table(&context.kind, context, &[object], table::version_of(object)))
        }
    }
}

/// What the original calls the type that an answer is made of; its refusals name it.
fn go_type(kind: &Kind, list: bool) -> String {
    let group = kind.stored_as().0.split('.').next().unwrap_or_default();
    match (&kind.custom, group, list) {
        (Some(_), _, false) => "*unstructured.Unstructured".to_owned(),
        (Some(_), _, true) => "*unstructured.UnstructuredList".to_owned(),
        (None, "", false) => format!("*core.{}", kind.kind),
        (None, "", true) => format!("*core.{}", kind.list_kind),
        (None, group, false) => format!("*{group}.{}", kind.kind),
        (None, group, true) => format!("*{group}.{}", kind.list_kind),
    }
}
