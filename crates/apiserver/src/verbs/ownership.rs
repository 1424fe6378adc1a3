//! Who owns which field after a request: what every change records, and what a request of its sort cannot own.

use api::apply::{FieldSet, Writer, managed};
use api::meta;
use serde_json::Value;

use super::input;
use super::update::Writes;
use super::versions::Served;
use crate::{ApiServer, Context};

/// Whether a change takes over what it changes, or comes with its ownership settled (server-side apply).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    Take,
    Settled,
}

/// Fills in what `new` leaves to defaults, and tells who owns what when a request has been done that makes it of `old`.
pub fn owners(
    server: &ApiServer,
    context: &Context,
    old: Option<&Value>,
    new: &mut Value,
    writes: Writes,
) -> Value {
    let kind = &context.kind;
    *new = kind.behaviour.defaulted(std::mem::take(new));
    input::canonicalize(kind, new);
    // What is stored is canonical, but perhaps not what another version makes of it.
    let converted = old.filter(|_| kind.conversion.is_some()).map(|old| {
        let mut old = old.clone();
        input::canonicalize(kind, &mut old);
        old
    });
    own(server, context, converted.as_ref().or(old), new, writes);
    meta::take(new, "managedFields")
}

/// Records who owns the changed fields.
fn own(server: &ApiServer, context: &Context, old: Option<&Value>, new: &mut Value, writes: Writes) {
    let versions = Served::of(server, &context.kind);
    let schema = input::schema_of(&context.kind);
    let reset = reset_fields(&context.kind, writes);
    managed::update(
        old,
        new,
        &Writer {
            manager: &context.manager(),
            api_version: &context.kind.api_version(),
            subresource: writes.subresource(),
            // As the original does, who scaled is known but not when.
            time: &match writes {
                Writes::Scale => String::new(),
                _ => base::time::rfc3339_seconds(base::time::now()),
            },
            schema: schema.as_ref(),
            reset: reset.as_ref(),
            versions: versions.as_deref(),
        },
    );
}

/// What a request cannot set, and so cannot own: the status through the object, the rest through its status.
pub fn reset_fields(kind: &api::kinds::Kind, writes: Writes) -> Option<FieldSet> {
    let rules = &kind.rules;
    let paths: Vec<&str> = match writes {
        Writes::Main | Writes::Scale if kind.has_status => [&["status"], rules.disowns].concat(),
        Writes::Status => [&["spec"], rules.status_keeps, rules.status_disowns].concat(),
        Writes::Main | Writes::Scale | Writes::Finalize | Writes::Binding | Writes::Part(_) => return None,
    };
    Some(FieldSet::of(&paths))
}
