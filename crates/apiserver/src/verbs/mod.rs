//! The verbs, each once for all kinds. A kind supplies data and pure functions; what happens to an object, and in
//! which order, is here.

mod components;
mod connect;
mod create;
mod delete;
mod input;
mod list;
mod patch;
mod pods;
mod read;
mod reviews;
mod scale;
mod update;
mod watch;

use ::http::{Request, StatusCode};
use api::kinds::{Kind, Rejection};
use api::meta;
use api::status::ApiError;
use serde_json::Value;

use crate::http::body::Body;
use crate::http::respond::{self, Answer, Form};
use crate::{ApiServer, Context, table};

pub use create::create_object;
pub use update::Writes;

/// Sends a request to its verb. A kind that is going out of use says so with every answer.
pub async fn dispatch(
    server: &ApiServer,
    context: Context,
    request: Request<Body>,
) -> Result<Answer, ApiError> {
    let deprecated = context.kind.deprecated.filter(|_| context.target.subresource.is_empty());
    let answer = route(server, context, request).await;
    match deprecated {
        Some(warning) => {
            let answer = answer.unwrap_or_else(|error| respond::error(&error));
            Ok(respond::warn(answer, &[warning.to_owned()]))
        }
        None => answer,
    }
}

async fn route(server: &ApiServer, context: Context, request: Request<Body>) -> Result<Answer, ApiError> {
    let target = &context.target;
    // A right in a namespace is a right to what lies in it: nothing else may be reached by its path.
    let is_namespace = context.kind.group.is_empty() && context.kind.kind == "Namespace";
    let over_all = target.name.is_empty() && matches!(target.verb, "list" | "watch");
    match (context.kind.namespaced, target.namespace.is_empty()) {
        (false, false) if !is_namespace => return Err(ApiError::no_such_path()),
        (true, true) if !over_all => return Err(ApiError::no_such_path()),
        _ => {}
    }
    if target.subresource.is_empty() {
        if !context.kind.verbs.contains(&target.verb) {
            return Err(ApiError::method_not_allowed(&context.resource(), target.verb));
        }
        if context.kind.is_virtual() {
            return reviews::answer(server, context, request.into_body()).await;
        }
        return match target.verb {
            "get" => read::get(server, &context).await,
            "list" => list::list(server, &context).await,
            "watch" => watch::watch(server, &context).await,
            "create" => create::create(server, &context, request.into_body()).await,
            "update" => update::update(server, &context, request.into_body(), Writes::Main).await,
            "patch" => patch::patch(server, &context, request.into_body(), Writes::Main).await,
            "delete" => delete::delete(server, &context, request.into_body()).await,
            "deletecollection" => delete::delete_collection(server, &context, request.into_body()).await,
            _ => Err(ApiError::method_not_allowed(&context.resource(), target.verb)),
        };
    }
    subresource(server, context, request).await
}

async fn subresource(
    server: &ApiServer,
    context: Context,
    request: Request<Body>,
) -> Result<Answer, ApiError> {
    let target = &context.target;
    let known = context.kind.subresource(&target.subresource).ok_or_else(ApiError::no_such_path)?;
    let connects = matches!(known.name, "exec" | "attach" | "portforward" | "proxy");
    if !connects && !known.verbs.contains(&target.verb) {
        return Err(ApiError::method_not_allowed(&context.resource(), target.verb));
    }
    match (known.name, target.verb) {
        ("status", "get") => read::get(server, &context).await,
        ("status", "update") => update::update(server, &context, request.into_body(), Writes::Status).await,
        ("status", "patch") => patch::patch(server, &context, request.into_body(), Writes::Status).await,
        ("finalize", _) => update::update(server, &context, request.into_body(), Writes::Finalize).await,
        ("scale", "get") => scale::get(server, &context).await,
        ("scale", "update") => scale::update(server, &context, request.into_body()).await,
        ("scale", "patch") => scale::patch(server, &context, request.into_body()).await,
        (_, "get") if known.part.is_some() => read::get(server, &context).await,
        (_, "update" | "patch") if known.part.is_some() => {
            let Some(part) = known.part else { return Err(ApiError::no_such_path()) };
            match target.verb {
                "update" => update::update(server, &context, request.into_body(), Writes::Part(part)).await,
                _ => patch::patch(server, &context, request.into_body(), Writes::Part(part)).await,
            }
        }
        ("binding", _) => pods::bind(server, &context, request.into_body()).await,
        ("eviction", _) => pods::evict(server, &context, request.into_body()).await,
        ("token", _) => reviews::token_request(server, &context, request.into_body()).await,
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

/// One object in the form asked for.
fn one(context: &Context, code: StatusCode, object: &Value) -> Answer {
    match context.form {
        Form::Table => respond::json(
            code,
            &table::table(&context.kind, &context.query, &[object], meta::resource_version(object), None),
        ),
        Form::Metadata => respond::json(code, &table::partial(object)),
        form => respond::object(code, form, object),
    }
}
