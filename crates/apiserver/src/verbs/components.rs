//! `ComponentStatus`: the parts of the control plane. They live in this process, so whoever can ask has them all.

use ::http::StatusCode;
use api::status::ApiError;
use serde_json::{Value, json};

use super::list::Filter;
use super::one;
use crate::Context;
use crate::http::accept::Shape;
use crate::http::respond::{self, Answer};
use crate::table;

const COMPONENTS: &[&str] = &["controller-manager", "etcd-0", "scheduler"];

fn component(context: &Context, name: &str) -> Value {
    json!({"apiVersion": context.kind.api_version(), "kind": &*context.kind.kind, "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]})
}

pub fn get(context: &Context) -> Result<Answer, ApiError> {
    let name = &context.target.name;
    if !COMPONENTS.contains(&name.as_str()) {
        return Err(ApiError::not_found(&context.resource(), name));
    }
    Ok(one(context, StatusCode::OK, &component(context, name)))
}

pub fn list(context: &Context) -> Result<Answer, ApiError> {
    let filter = Filter::parse(context)?;
    let mut items: Vec<Value> = COMPONENTS.iter().map(|name| component(context, name)).collect();
    items.retain(|item| filter.matches(&context.kind, item));
    let list = match context.form.shape {
        Shape::Table => {
            let rows: Vec<&Value> = items.iter().collect();
            table::table(&context.kind, context, &rows, json!({}))
        }
        _ => json!({"apiVersion": context.kind.api_version(), "kind": &*context.kind.list_kind,
            "metadata": {}, "items": items}),
    };
    Ok(respond::object(StatusCode::OK, context.form, &list))
}
