//! `delete` and `deletecollection`: at once where nothing stands in the way, otherwise by marking the object and
//! leaving the rest to those who hold its finalizers.

use std::sync::Arc;

use ::http::StatusCode;
use api::kinds::definitions;
use api::meta;
use api::status::{ApiError, Resource};
use serde_json::{Value, json};
use store::{Entry, Expect};

use super::list::{Filter, check_shape, list_answer, list_metadata, page};
use super::read::set_version;
use super::update::is_finished;
use super::{input, one};
use crate::admission::{self, Operation};
use crate::bootstrap::namespaces;
use crate::http::body::Body;
use crate::http::options::{DeleteOptions, ListOptions};
use crate::http::respond::{self, Answer};
use crate::objects::Written;
use crate::{ApiServer, Context};

const TRIES: usize = 16;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// A body settles everything; without one the query does.
async fn options(context: &Context, body: Body) -> Result<DeleteOptions, ApiError> {
    let options = match input::delete_options(context, body).await? {
        Some(value) => {
            // A trial may be asked for in the query as well, and must never become the real thing.
            let query = DeleteOptions::of_query(&context.query)?;
            let mut options = DeleteOptions::of_body(&value)?;
            if options.dry_run.is_empty() {
                options.dry_run = query.dry_run;
            }
            options.grace_period_seconds = options.grace_period_seconds.or(query.grace_period_seconds);
            options.propagation_policy = options.propagation_policy.or(query.propagation_policy);
            options.orphan_dependents = options.orphan_dependents.or(query.orphan_dependents);
            options
        }
        None => DeleteOptions::of_query(&context.query)?,
    };
    options.check()?;
    let unsaid = options.propagation_policy.is_none() && options.orphan_dependents.is_none();
    if let Some(warning) = context.kind.rules.deletion_warning.filter(|_| unsaid) {
        context.warn([warning.to_owned()]);
    }
    Ok(options)
}

pub async fn delete(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let options = options(context, body).await?;
    let dry_run = options.is_dry_run();
    for _ in 0..TRIES {
        let (entry, object) = super::read::find(server, context).await?;
        match attempt(server, context, &options, &entry, object, dry_run).await? {
            Some(Outcome::Removed(object)) => return Ok(removed(context, &object)),
            Some(Outcome::Marked(object)) => return Ok(one(context, StatusCode::OK, &object)),
            None => {}
        }
    }
    Err(ApiError::modified(&context.resource(), &context.target.name))
}

enum Outcome {
    Removed(Value),
    /// It is on its way out.
    Marked(Value),
}

/// Pods are answered with themselves, everything else with a Status, as clients know it.
fn removed(context: &Context, object: &Value) -> Answer {
    let kind = &context.kind;
    if kind.rules.answers_deleted {
        return one(context, StatusCode::OK, object);
    }
    let mut details = json!({"name": meta::name(object), "kind": &*kind.plural, "uid": meta::uid(object)});
    if !kind.group.is_empty() {
        details["group"] = kind.group.as_ref().into();
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    respond::object(StatusCode::OK, context.form, &status)
}

async fn attempt(
    server: &ApiServer,
    context: &Context,
    options: &DeleteOptions,
    entry: &Entry,
    old: Value,
    dry_run: bool,
) -> Result<Option<Outcome>, ApiError> {
    let kind = &context.kind;
    check_preconditions(context, options, &old)?;
    if kind.rules.spec_finalizers && namespaces::KEPT.contains(&meta::name(&old)) {
        let why = "this namespace may not be deleted";
        return Err(ApiError::forbidden(&context.resource(), meta::name(&old), why));
    }
    admission::validate(server, context, None, Some(&old), Operation::Delete).await?;
    let mut object = old.clone();
    match kind.rules.goes_after_its_objects && !meta::is_deleting(&old) {
        true => object = going(object)?,
        false => mark(kind, options, &mut object),
    }
    let counts = kind.has_generation && !kind.rules.one_generation && !kind.rules.goes_after_its_objects;
    if counts && !meta::is_deleting(&old) {
        meta::set(&mut object, "generation", meta::generation(&old) + 1);
    }
    // What goes at once is answered as it was, unless an agent has to be told.
    let at_once = is_finished(kind, &object) && !meta::is_deleting(&old) && !kind.rules.graceful_deletion;
    let mut object = if at_once { old.clone() } else { object };
    if dry_run {
        return Ok(Some(if at_once || is_finished(kind, &object) {
            Outcome::Removed(object)
        } else {
            Outcome::Marked(object)
        }));
    }
    if at_once || is_finished(kind, &object) {
        return Ok(match server.0.objects.delete(&entry.key, entry.mod_revision).await? {
            Written::At(revision) => {
                meta::set(&mut object, "resourceVersion", revision.to_string());
                server.0.released(kind, &object);
                server.after_write(kind, meta::name(&object)).await;
                Some(Outcome::Removed(object))
            }
            Written::Lost | Written::Taken(_) => None,
        });
    }
    if object == old {
        return Ok(Some(Outcome::Marked(old)));
    }
    let stored = Arc::new(object);
    Ok(match server.0.put(kind, &stored, Expect::At(entry.mod_revision), &[]).await?.0 {
        Written::At(revision) => {
            let mut object = Arc::unwrap_or_clone(stored);
            meta::set(&mut object, "resourceVersion", revision.to_string());
            server.after_write(kind, meta::name(&object)).await;
            Some(Outcome::Marked(object))
        }
        Written::Lost | Written::Taken(_) => None,
    })
}

fn check_preconditions(context: &Context, options: &DeleteOptions, object: &Value) -> Result<(), ApiError> {
    let kind = &context.kind;
    if let Some(uid) =
        options.uid.as_ref().filter(|uid| kind.rules.plain_preconditions && *uid != meta::uid(object))
    {
        let held = meta::uid(object);
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {held}");
        return Err(ApiError::conflict(&kind.resource(), meta::name(object), &why));
    }
    let subject = Resource { group: kind.stored_as().0, plural: &kind.kind };
    let mismatch = |what: &str, wanted: &str, held: &str, since: &str| {
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({held}). The object might have been {since}"
        );
        Err(ApiError::conflict(&subject, meta::name(object), &why))
    };
    match (&options.uid, &options.resource_version) {
        (Some(uid), _) if uid != meta::uid(object) => {
            mismatch("UID", uid, meta::uid(object), "deleted and then recreated")
        }
        (_, Some(version)) if version != meta::resource_version(object) => {
            mismatch("ResourceVersion", version, meta::resource_version(object), "modified")
        }
        _ => Ok(()),
    }
}

/// A definition that is marked as being deleted.
fn going(object: Value) -> Result<Value, ApiError> {
    let mut definition = serde_json::from_value(object).map_err(ApiError::internal)?;
    definitions::begin_to_go(&mut definition, base::time::now());
    let mut object = serde_json::to_value(definition).map_err(ApiError::internal)?;
    meta::set(&mut object, "deletionTimestamp", base::time::rfc3339_seconds(base::time::now()));
    Ok(object)
}

/// Marks an object as being deleted: when, with how much grace, and who has to let go first.
fn mark(kind: &api::kinds::Kind, options: &DeleteOptions, object: &mut Value) {
    let grace = grace_seconds(kind, options, object);
    let held = meta::metadata(object).get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    let was_deleting = meta::is_deleting(object);
    // A later request may shorten the grace, never lengthen it.
    let unheld = kind.rules.goes_after_its_objects && held.is_none();
    if was_deleting && unheld {
        meta::set(object, "deletionGracePeriodSeconds", grace);
    }
    if !was_deleting || held.is_some_and(|held| grace < held) {
        let at = base::time::now()
            .checked_add(jiff::SignedDuration::from_secs(grace))
            .unwrap_or_else(|_| base::time::now());
        meta::set(object, "deletionTimestamp", base::time::rfc3339_seconds(at));
        if !kind.rules.spec_finalizers {
            meta::set(object, "deletionGracePeriodSeconds", grace);
        }
    }
    // Who asks again may think otherwise of its dependents; not of what an agent is ending already.
    if !(was_deleting && kind.rules.graceful_deletion) {
        set_finalizers(object, dependents(kind, options, &meta::finalizers(object)));
    }
    if kind.rules.spec_finalizers {
        object["status"]["phase"] = "Terminating".into();
    }
}

/// Who has to let go of the object for its dependents' sake: those that leave them, or those that wait for them.
fn dependents(kind: &api::kinds::Kind, options: &DeleteOptions, held: &[&str]) -> Option<&'static str> {
    match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        (Some(orphan), _) => orphan.then_some(ORPHAN),
        (None, Some("Orphan")) => Some(ORPHAN),
        (None, Some("Foreground")) => Some(FOREGROUND),
        (None, Some(_)) => None,
        // It is as it was decided before, and else as the kind has it.
        (None, None) if held.contains(&ORPHAN) => Some(ORPHAN),
        (None, None) if held.contains(&FOREGROUND) => Some(FOREGROUND),
        (None, None) => kind.rules.orphans_dependents.then_some(ORPHAN),
    }
}

fn set_finalizers(object: &mut Value, wanted: Option<&'static str>) {
    let held: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
    let of_dependents: Vec<&String> = held.iter().filter(|f| *f == ORPHAN || *f == FOREGROUND).collect();
    if of_dependents.iter().map(|f| f.as_str()).eq(wanted) {
        return;
    }
    let mut finalizers: Vec<String> =
        held.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    finalizers.extend(wanted.map(str::to_owned));
    match finalizers.is_empty() {
        true => meta::unset(object, "finalizers"),
        false => meta::set(object, "finalizers", finalizers),
    }
}

/// Only what an agent runs needs time.
fn grace_seconds(kind: &api::kinds::Kind, options: &DeleteOptions, object: &Value) -> i64 {
    if !kind.rules.graceful_deletion {
        return 0;
    }
    let text = |part: &str, field: &str| {
        object.get(part).and_then(|p| p.get(field)).and_then(Value::as_str).unwrap_or_default()
    };
    let ended = matches!(text("status", "phase"), "Succeeded" | "Failed");
    if text("spec", "nodeName").is_empty() || ended {
        return 0;
    }
    let own = object.get("spec").and_then(|s| s.get("terminationGracePeriodSeconds")).and_then(Value::as_i64);
    match options.grace_period_seconds.or(own).unwrap_or(30) {
        // A negative time has long been taken for the shortest.
        ..0 => 1,
        seconds => seconds,
    }
}

pub async fn delete_collection(
    server: &ApiServer,
    context: &Context,
    body: Body,
) -> Result<Answer, ApiError> {
    let options = options(context, body).await?;
    let list = ListOptions::parse(&context.query, false)?;
    let filter = Filter::parse(context)?;
    check_shape(context)?;
    let page = page(server, context, &list, &filter).await?;
    let metadata = list_metadata(&context.kind, &page, context.form.shape);
    let dry_run = options.is_dry_run();
    let mut items = Vec::new();
    for listed in page.entries {
        let mut entry = Some(listed);
        // Each object on its own: one that changes meanwhile is read again.
        for _ in 0..TRIES {
            let Some(current) = entry else { break };
            let mut object = server.0.objects.decode(&current)?;
            set_version(&context.kind, &mut object);
            let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
            let listed = object.clone();
            match attempt(server, context, &options, &current, object, dry_run).await {
                // They are told as they were found.
                Ok(Some(Outcome::Removed(_) | Outcome::Marked(_))) => {
                    items.push(listed);
                    break;
                }
                Ok(None) => {
                    let found = server.0.objects.get(&context.kind, &namespace, &name).await?;
                    let found = found.map(|(entry, _)| entry).into_iter().collect();
                    entry = server.0.served_entries(&context.kind, found).await?.pop();
                }
                // As with the original: what was done before the first refusal stays done.
                Err(error) => return Err(error),
            }
        }
    }
    Ok(list_answer(context, metadata, items))
}
