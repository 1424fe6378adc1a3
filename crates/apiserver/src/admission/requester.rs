//! Objects that say who made them: what a client writes there is replaced by who it is.

use api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::Operation;
use crate::{ApiServer, Context};

pub fn admit<'a>(
    _server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        if context.kind.rules.spec_names_requester && operation.is_create() && object["spec"].is_object() {
            name(&mut object["spec"], context);
        }
        Ok(())
    })
}

fn name(spec: &mut Value, context: &Context) {
    let who = &context.who;
    spec["username"] = who.username.as_str().into();
    for (field, value, given) in [
        ("uid", json!(who.uid), !who.uid.is_empty()),
        ("groups", json!(who.groups), !who.groups.is_empty()),
        ("extra", json!(who.extra), !who.extra.is_empty()),
    ] {
        match (given, spec.as_object_mut()) {
            (true, _) => spec[field] = value,
            (false, Some(map)) => drop(map.remove(field)),
            (false, None) => {}
        }
    }
}
