//! `update`, and the one way by which any verb changes an object that exists.

use std::sync::Arc;

use ::http::StatusCode;
use api::kinds::metadata::{self, Passes};
use api::kinds::{Errors, FINALIZE, Part};
use api::meta;
use api::status::{ApiError, FieldError, Problem};
use serde_json::{Map, Value};
use store::{Entry, Expect};

use super::ownership::{Ownership, owners};
use super::read::set_version;
use super::{Stored, input, one, taken_or_refused};
use crate::admission::{self, Charge, Operation};
use crate::http::body::Body;
use crate::http::respond::Answer;
use crate::objects::Written;
use crate::{ApiServer, Context};

/// Tries at a change whose author did not say which version it was made from.
const TRIES: usize = 16;

/// Which part of an object a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// All but the status of kinds that have the subresource.
    Main,
    Status,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// `spec.nodeName` of a pod, through its `binding`.
    Binding,
    /// What a subresource of the table says it is over.
    Part(&'static Part),
    /// The replicas, through `scale`; otherwise as the object itself.
    Scale,
}

impl Writes {
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Main | Self::Binding => "",
            Self::Finalize => "finalize",
            Self::Status => "status",
            Self::Part(part) => part.name,
            Self::Scale => "scale",
        }
    }

    /// Whether what changes is the object as a whole, not its status or one field.
    fn is_whole(self) -> bool {
        matches!(self, Self::Main | Self::Scale)
    }
}

/// What a change came to.
pub enum Changed {
    Stored(Stored),
    /// It would be so.
    Tried(Value),
    /// Nothing was different.
    Same(Value),
    /// The last finalizer of an object that was being deleted is gone, and so is the object.
    Removed(Value),
}

impl Changed {
    pub fn object(self) -> Value {
        match self {
            Self::Stored(stored) => stored.object(),
            Self::Tried(object) | Self::Same(object) | Self::Removed(object) => object,
        }
    }

    pub fn answer(self, context: &Context) -> Answer {
        match self {
            Self::Stored(stored) => stored.answer(context, StatusCode::OK),
            Self::Tried(object) | Self::Same(object) | Self::Removed(object) => {
                one(context, StatusCode::OK, &object)
            }
        }
    }
}

pub async fn update(
    server: &ApiServer,
    context: &Context,
    body: Body,
    writes: Writes,
) -> Result<Answer, ApiError> {
    let value = input::object(context, body).await?;
    check_name(context, meta::name(&value))?;
    let rules = context.kind.rules;
    let creates_when_absent = writes == Writes::Main && rules.create_on_update;
    if rules.update_needs_version && meta::resource_version(&value).is_empty() {
        match super::read::find(server, context).await {
            Ok(_) => return Err(version_missing(context)),
            Err(error) if error.reason == "NotFound" && creates_when_absent => {}
            // That there is nothing to update is said first.
            Err(error) => return Err(error),
        }
    }
    let changed = match change(server, context, writes, Ownership::Take, |_| Ok(value.clone())).await {
        Err(error)
            if error.reason == "NotFound"
                && creates_when_absent
                && meta::resource_version(&value).is_empty() =>
        {
            server.0.authorize_create(context).await?;
            let created = super::create_object(server, context, value).await?;
            return Ok(created.answer(context));
        }
        changed => changed?,
    };
    Ok(changed.answer(context))
}

/// Objects of this kind are not overwritten blindly. The fault is laid to the resource, as clients know it.
fn version_missing(context: &Context) -> ApiError {
    let problem =
        Problem::Worded("FieldValueInvalid", "Invalid value: 0: must be specified for an update".into());
    let error = FieldError { field: "metadata.resourceVersion".into(), problem };
    let kind = &context.kind;
    ApiError::invalid(&kind.group, &kind.plural, &context.target.name, &[error])
}

/// What replaces an object has its name.
pub fn check_name(context: &Context, given: &str) -> Result<(), ApiError> {
    let wanted = &context.target.name;
    if given == wanted {
        return Ok(());
    }
    Err(ApiError::bad_request(match given {
        "" => format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ),
        given => format!("the name of the object ({given}) does not match the name on the URL ({wanted})"),
    }))
}

/// Reads the object, has `edit` make the new one from it, and stores that; again from the start when somebody else
/// was faster, unless the new object names the version it was made from.
pub async fn change(
    server: &ApiServer,
    context: &Context,
    writes: Writes,
    ownership: Ownership,
    edit: impl Fn(&Value) -> Result<Value, ApiError>,
) -> Result<Changed, ApiError> {
    let work = try_to_change(server, context, writes, ownership, edit);
    server.0.objects.preparing(Box::pin(work)).await
}

async fn try_to_change(
    server: &ApiServer,
    context: &Context,
    writes: Writes,
    ownership: Ownership,
    edit: impl Fn(&Value) -> Result<Value, ApiError>,
) -> Result<Changed, ApiError> {
    let target = &context.target;
    for _ in 0..TRIES {
        let (entry, old) = super::read::find(server, context).await?;
        let new = edit(&old)?;
        let version = demanded_version(context, &new)?;
        if !version.is_empty() && version != meta::resource_version(&old) {
            return Err(ApiError::modified(&context.resource(), &target.name));
        }
        if let Some(changed) = attempt(server, context, (writes, ownership), &entry, old, new).await? {
            return Ok(changed);
        }
    }
    Err(ApiError::modified(&context.resource(), &target.name))
}

/// The version that a change was made from; empty where it does not matter.
fn demanded_version(context: &Context, new: &Value) -> Result<String, ApiError> {
    let version = meta::resource_version(new);
    if !version.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ApiError::unexplained(format!("strconv.ParseUint: parsing {version:?}: invalid syntax")));
    }
    if !matches!(version, "" | "0") {
        return Ok(version.to_owned());
    }
    // Whoever replaces a custom resource must have read it.
    let replaces = context.target.verb == "update" && context.target.subresource != "scale";
    if context.kind.custom.is_some() && replaces {
        let fault = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
        let (resource, name) = (context.resource(), &context.target.name);
        return Err(ApiError::invalid(resource.group, resource.plural, name, &[fault]));
    }
    Ok(String::new())
}

/// One try; `None` when somebody else was faster.
async fn attempt(
    server: &ApiServer,
    context: &Context,
    (writes, ownership): (Writes, Ownership),
    entry: &Entry,
    old: Value,
    new: Value,
) -> Result<Option<Changed>, ApiError> {
    let kind = &context.kind;
    let name = meta::name(&old).to_owned();
    let mut new = settle(context, writes, &old, new)?;
    // What admission and the kind itself change is nobody's: ownership is of what was asked for.
    let owned = match ownership {
        Ownership::Take => owners(server, context, Some(&old), &mut new, writes),
        Ownership::Settled => meta::metadata(&new).get("managedFields").cloned().unwrap_or_default(),
    };
    // Hooks are shown whose the fields are; where that was settled before, the object says so already.
    if ownership == Ownership::Take && !owned.is_null() {
        meta::set(&mut new, "managedFields", owned.clone());
    }
    match writes {
        Writes::Main | Writes::Scale => {
            admission::mutate(server, context, &mut new, Some(&old), Operation::Update).await?;
        }
        Writes::Status | Writes::Part(_) => {
            admission::extend(server, context, &mut new, Some(&old), Operation::Update).await?;
            new = settle(context, writes, &old, new)?;
        }
        // Admitted as what they are asked for, before they come here.
        Writes::Finalize | Writes::Binding => {}
    }
    meta::unset(&mut new, "managedFields");
    let mut errors = Errors::default();
    let passes = match writes {
        Writes::Main | Writes::Scale => kind.rules.metadata.update,
        Writes::Status => kind.rules.metadata.status,
        Writes::Part(_) | Writes::Finalize | Writes::Binding => Passes::default().update,
    };
    metadata::check_update(kind, passes, &new, &old, &mut errors);
    let mut warned = Vec::new();
    let made = match writes {
        Writes::Main | Writes::Scale => kind.behaviour.update(new, &old, &mut warned),
        Writes::Status => kind.behaviour.update_status(new, &old),
        Writes::Part(part) => kind.behaviour.update_part(part, new, &old),
        Writes::Finalize => kind.behaviour.update_part(FINALIZE, new, &old),
        Writes::Binding => Ok(new),
    };
    let mut new = taken_or_refused(kind, &name, errors, made)?;
    if writes == Writes::Status {
        context.warn(kind.behaviour.status_warnings(&new));
    }
    set_version(kind, &mut new);
    input::canonicalize(kind, &mut new);
    let taken = server.0.allocate(kind, &mut new, Some(&old))?;
    let whole = writes.is_whole() || matches!(writes, Writes::Part(_));
    let is_new = whole && is_new_generation(kind, &new, &old);
    // Pods are changed by programs, which nobody reads the warnings of; what counts no generations is warned of each time.
    if (is_new || whole && !kind.has_generation) && !kind.rules.graceful_deletion {
        context.warn(warned);
    }
    if kind.has_generation && !kind.rules.one_generation && is_new {
        meta::set(&mut new, "generation", meta::generation(&old) + 1);
    }
    match owned {
        Value::Null => meta::unset(&mut new, "managedFields"),
        owned => meta::set(&mut new, "managedFields", owned),
    }
    let mut charge = Charge::default();
    if !matches!(writes, Writes::Finalize | Writes::Binding) {
        admission::validate(server, context, Some(&new), Some(&old), Operation::Update).await?;
        charge = admission::charge(server, context, &new, Some(&old), Operation::Update).await?;
    }
    if same_but_for_times(&new, &old) {
        // One that is encrypted otherwise than it would be now is written all the same.
        if context.dry_run() || !server.0.objects.is_stale(kind, entry) {
            return Ok(Some(Changed::Same(old)));
        }
        new = old.clone();
    }
    if context.dry_run() {
        // Whoever does not say which version they change is shown the one that is.
        if meta::resource_version(&new).is_empty() {
            meta::set(&mut new, "resourceVersion", meta::resource_version(&old));
        }
        return Ok(Some(Changed::Tried(new)));
    }
    if is_finished(kind, &new) {
        return Ok(match server.0.objects.delete(&entry.key, entry.mod_revision).await? {
            Written::At(revision) => {
                meta::set(&mut new, "resourceVersion", revision.to_string());
                server.0.released(kind, &new);
                server.after_write(kind, &name).await;
                Some(Changed::Removed(new))
            }
            Written::Lost | Written::Taken(_) => None,
        });
    }
    let object = Arc::new(super::read::as_read(kind, new));
    let (written, text) = server.0.put(kind, &object, Expect::At(entry.mod_revision), &charge.beside).await?;
    Ok(match written {
        Written::At(revision) => {
            taken.keep();
            server.0.gave_up(kind, &object, &old);
            server.after_write(kind, &name).await;
            Some(Changed::Stored(Stored { object, revision, text }))
        }
        Written::Lost => None,
        Written::Taken(claim) => {
            drop(taken);
            server.0.taken_elsewhere(&claim);
            None
        }
    })
}

/// Puts together what is to be stored: the part the request may change from `new`, the rest from `old`.
fn settle(context: &Context, writes: Writes, old: &Value, new: Value) -> Result<Value, ApiError> {
    let kind = &context.kind;
    let (given, held) = (meta::uid(&new), meta::uid(old));
    if !given.is_empty() && given != held {
        let key = kind.key(meta::namespace(old), meta::name(old));
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {given}, UID in object meta: {held}"
        );
        return Err(ApiError::conflict(&context.resource(), &context.target.name, &why));
    }
    let mut out = match writes {
        Writes::Main | Writes::Binding | Writes::Scale => {
            let mut out = new;
            if kind.has_status
                && let Value::Object(map) = &mut out
            {
                match old.get("status") {
                    Some(status) => drop(map.insert("status".into(), status.clone())),
                    None => drop(map.remove("status")),
                }
            }
            out
        }
        Writes::Status => status_of(kind, old, new),
        Writes::Part(part) => {
            let mut out = old.clone();
            part.copy(&new, &mut out);
            copy_field(&new, &mut out, "managedFields");
            out
        }
        Writes::Finalize => {
            let mut out = old.clone();
            let finalizers = new.get("spec").and_then(|s| s.get("finalizers")).cloned().unwrap_or_default();
            if let Value::Object(map) = &mut out {
                let spec = map.entry("spec").or_insert_with(|| Value::Object(Map::new()));
                spec["finalizers"] = finalizers;
            }
            out
        }
    };
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        copy_field(old, &mut out, field);
    }
    meta::unset(&mut out, "selfLink");
    Ok(out)
}

/// The old object with the status of the new one, and what else of its metadata a write of the status may change.
fn status_of(kind: &api::kinds::Kind, old: &Value, new: Value) -> Value {
    let mut out = old.clone();
    let (Value::Object(map), Value::Object(mut new)) = (&mut out, new) else { return out };
    match new.remove("status") {
        Some(status) => drop(map.insert("status".into(), status)),
        None => drop(map.remove("status")),
    }
    if let Some(metadata) = new.remove("metadata") {
        map.insert("metadata".into(), metadata);
    }
    for path in kind.rules.status_keeps {
        match *path {
            "metadata" => {
                let fields = meta::metadata(&out).get("managedFields").cloned();
                if let (Value::Object(map), Some(metadata)) = (&mut out, old.get("metadata")) {
                    map.insert("metadata".into(), metadata.clone());
                }
                match fields {
                    Some(fields) => meta::set(&mut out, "managedFields", fields),
                    None => meta::unset(&mut out, "managedFields"),
                }
            }
            path => copy_field(old, &mut out, path.strip_prefix("metadata.").unwrap_or(path)),
        }
    }
    out
}

fn copy_field(from: &Value, to: &mut Value, field: &str) {
    match meta::metadata(from).get(field) {
        Some(value) => meta::set(to, field, value.clone()),
        None => meta::unset(to, field),
    }
}

/// Whether an object that is being deleted has nothing left to wait for.
pub fn is_finished(kind: &api::kinds::Kind, object: &Value) -> bool {
    let grace = meta::metadata(object).get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    let waits_for_agent = kind.rules.graceful_deletion && grace > 0;
    let own = object.get("spec").and_then(|s| s.get("finalizers")).and_then(Value::as_array);
    let own = kind.rules.spec_finalizers && own.is_some_and(|f| !f.is_empty());
    meta::is_deleting(object) && meta::finalizers(object).is_empty() && !waits_for_agent && !own
}

fn is_new_generation(kind: &api::kinds::Kind, new: &Value, old: &Value) -> bool {
    let changed = |field: &str| meta::metadata(new).get(field) != meta::metadata(old).get(field);
    differs_beyond_status(new, old)
        || kind.rules.annotations_count && changed("annotations")
        || kind.rules.labels_count && changed("labels")
}

fn differs_beyond_status(new: &Value, old: &Value) -> bool {
    let Some((new, old)) = new.as_object().zip(old.as_object()) else { return new != old };
    !same_members(new, old, &["metadata", "status", "apiVersion", "kind"])
}

/// Whether two maps have the same in all fields but these.
fn same_members(left: &Map<String, Value>, right: &Map<String, Value>, but_for: &[&str]) -> bool {
    let counts = |field: &str| !but_for.contains(&field);
    let number = |map: &Map<String, Value>| map.keys().filter(|field| counts(field)).count();
    number(left) == number(right)
        && left.iter().all(|(field, value)| !counts(field) || right.get(field) == Some(value))
}

/// Whether a write would change nothing but the time at which fields were last touched.
fn same_but_for_times(new: &Value, old: &Value) -> bool {
    let (new_meta, old_meta) = (meta::metadata(new), meta::metadata(old));
    let Some((new, old)) = new.as_object().zip(old.as_object()) else { return new == old };
    same_members(new, old, &["metadata"])
        && same_members(new_meta, old_meta, &["managedFields", "resourceVersion"])
        && same_entries(new_meta.get("managedFields"), old_meta.get("managedFields"))
}

fn same_entries(new: Option<&Value>, old: Option<&Value>) -> bool {
    let (Some(Value::Array(new)), Some(Value::Array(old))) = (new, old) else { return new == old };
    let same = |(new, old): (&Value, &Value)| match (new, old) {
        (Value::Object(new), Value::Object(old)) => same_members(new, old, &["time"]),
        (new, old) => new == old,
    };
    new.len() == old.len() && new.iter().zip(old).all(same)
}
