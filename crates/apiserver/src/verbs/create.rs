//! `create`.

use std::sync::Arc;

use ::http::StatusCode;
use api::kinds::{Errors, Rejection, metadata};
use api::meta;
use api::status::ApiError;
use serde_json::Value;
use store::Expect;

use super::{Stored, input, one, taken_or_refused};
use crate::admission::{self, Charge, Operation};
use crate::allocate;
use crate::http::body::Body;
use crate::http::respond::Answer;
use crate::objects::Written;
use crate::{ApiServer, Context};

/// Tries at a name nobody has, for `generateName`.
const NAME_TRIES: usize = 8;
/// Tries at an address that no other server is giving out at the same time.
const CLAIM_TRIES: usize = 16;
/// A generated name keeps at most this much of its prefix, and gets five letters more.
const GENERATED_PREFIX_LIMIT: usize = 58;

/// What came of a creation.
pub enum Created {
    Stored(Stored),
    /// It would be so.
    Tried(Value),
}

impl Created {
    pub fn answer(self, context: &Context) -> Answer {
        match self {
            Self::Stored(stored) => stored.answer(context, StatusCode::CREATED),
            Self::Tried(object) => one(context, StatusCode::CREATED, &object),
        }
    }
}

pub async fn create(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let input = input::object(context, body).await?;
    Ok(create_object(server, context, input).await?.answer(context))
}

/// Creates an object that has been decoded; field ownership goes to the context's manager unless it is set already.
pub async fn create_object(
    server: &ApiServer,
    context: &Context,
    object: Value,
) -> Result<Created, ApiError> {
    server.0.objects.preparing(Box::pin(prepare(server, context, object))).await
}

/// Gives the object what the server gives each, and finds it a name if it has to.
async fn prepare(server: &ApiServer, context: &Context, object: Value) -> Result<Created, ApiError> {
    let kind = &context.kind;
    let mut object = object;
    place(context, &mut object)?;
    // A trial gets as far as the store, which is what would refuse.
    if !meta::resource_version(&object).is_empty() && !context.dry_run() {
        return Err(ApiError::unexplained("resourceVersion should not be set on objects to be created"));
    }
    let applied = meta::metadata(&object).get("managedFields").cloned();
    if !context.dry_run() {
        meta::unset(&mut object, "resourceVersion");
    }
    for field in
        ["uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields", "generation"]
    {
        meta::unset(&mut object, field);
    }
    meta::set(&mut object, "creationTimestamp", base::time::rfc3339_seconds(base::time::now()));
    meta::set(&mut object, "uid", base::id::uuid());
    if kind.has_generation && !kind.rules.born_without_generation {
        meta::set(&mut object, "generation", 1);
    }
    let generate = match (meta::name(&object), meta::text(&object, "generateName")) {
        ("", prefix) if !prefix.is_empty() => {
            Some(prefix.chars().take(GENERATED_PREFIX_LIMIT).collect::<String>())
        }
        _ => None,
    };
    if kind.rules.names_itself && generate.is_none() && meta::name(&object).is_empty() {
        meta::set(&mut object, "name", base::id::uuid());
    }
    for attempt in 0.. {
        let Some(prefix) = &generate else {
            let would_make_one = !meta::text(&object, "generateName").is_empty();
            return store_new(server, context, object, applied).await.map_err(|error| {
                match error.reason == "AlreadyExists" {
                    // As it is said also where the name was given.
                    true if would_make_one => {
                        ApiError::generated_name_conflict(&context.resource(), &name_in(error))
                    }
                    _ => error,
                }
            });
        };
        let mut candidate = object.clone();
        meta::set(&mut candidate, "name", format!("{prefix}{}", base::id::name_suffix(5)));
        match store_new(server, context, candidate, applied.clone()).await {
            Err(error) if error.reason == "AlreadyExists" => {
                if attempt + 1 == NAME_TRIES {
                    return Err(ApiError::generated_name_conflict(&context.resource(), &name_in(error)));
                }
            }
            done => return done,
        }
    }
    unreachable!("the last try returns")
}

/// The name that an error is about.
fn name_in(error: ApiError) -> String {
    error.details.and_then(|d| d.name).unwrap_or_default()
}

/// The namespace is the URL's, and so is the name where it has one.
fn place(context: &Context, object: &mut Value) -> Result<(), ApiError> {
    let target = &context.target;
    if context.kind.namespaced {
        let given = meta::namespace(object);
        if !given.is_empty() && given != target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta::set(object, "namespace", target.namespace.as_str());
    } else {
        meta::unset(object, "namespace");
    }
    if !target.name.is_empty() {
        meta::set(object, "name", target.name.as_str());
    }
    Ok(())
}

async fn store_new(
    server: &ApiServer,
    context: &Context,
    object: Value,
    applied: Option<Value>,
) -> Result<Created, ApiError> {
    let kind = &context.kind;
    let mut object = object;
    // What admission adds is nobody's: ownership is of what was asked for.
    let owned = match applied {
        Some(applied) => applied,
        None => super::ownership::owners(server, context, None, &mut object, super::Writes::Main),
    };
    admission::mutate(server, context, &mut object, None, Operation::Create).await?;
    let name = meta::name(&object).to_owned();
    let mut errors = Errors::default();
    metadata::check_new(kind, &object, &mut errors);
    if kind.has_status
        && !kind.rules.born_with_status
        && let Value::Object(map) = &mut object
    {
        map.remove("status");
    }
    let mut warned = Vec::new();
    let made = kind.behaviour.create(object, &mut warned);
    if matches!(made, Err(Rejection::Fields(_))) && !kind.rules.metadata.with_the_rest {
        errors = Errors::default();
    }
    let mut object = taken_or_refused(kind, &name, errors, made)?;
    context.warn(warned);
    input::canonicalize(kind, &mut object);
    match owned {
        Value::Null => meta::unset(&mut object, "managedFields"),
        owned => meta::set(&mut object, "managedFields", owned),
    }
    admission::validate(server, context, Some(&object), None, Operation::Create).await?;
    let charge = || admission::charge(server, context, &object, None, Operation::Create);
    let mut charged = Some(charge().await?);
    if !allocate::gives_to(kind) && charged.as_ref().is_none_or(|charge| charge.beside.is_empty()) {
        // Nothing is given that another server could give to somebody else.
        let stored = store_claiming(server, context, object, Charge::default()).await?;
        return stored.ok_or_else(|| ApiError::internal("an object without claims was refused one"));
    }
    for _ in 0..CLAIM_TRIES {
        let charge = match charged.take() {
            Some(charge) => charge,
            None => charge().await?,
        };
        if let Some(stored) = store_claiming(server, context, object.clone(), charge).await? {
            return Ok(stored);
        }
    }
    Err(ApiError::unavailable_for_now("other servers were always faster; please try again", 1))
}

/// Gives the object what is its alone and stores both, and what it was charged; `None` when another server gave that to
/// another object.
async fn store_claiming(
    server: &ApiServer,
    context: &Context,
    mut object: Value,
    charge: Charge<'_>,
) -> Result<Option<Created>, ApiError> {
    let kind = &context.kind;
    let name = meta::name(&object).to_owned();
    let taken = server.0.allocate(kind, &mut object, None)?;
    if context.dry_run() {
        let exists = server.0.objects.get(kind, meta::namespace(&object), &name).await?.is_some();
        return match exists {
            true => Err(ApiError::already_exists(&context.resource(), &name)),
            false => Ok(Some(Created::Tried(object))),
        };
    }
    // Stored as reading would show it.
    let object = Arc::new(super::read::as_read(kind, object));
    let (written, text) = server.0.put(kind, &object, Expect::Absent, &charge.beside).await?;
    match written {
        Written::At(revision) => {
            taken.keep();
            server.after_write(kind, &name).await;
            Ok(Some(Created::Stored(Stored { object, revision, text })))
        }
        Written::Lost => Err(ApiError::already_exists(&context.resource(), &name)),
        Written::Taken(claim) => {
            drop(taken);
            server.0.taken_elsewhere(&claim);
            Ok(None)
        }
    }
}
