//! What pods alone have: being bound to a node. How they are evicted: `evict.rs`.

use std::sync::Arc;

use ::http::StatusCode;

use api::meta;
use api::status::{ApiError, Resource};
use k8s_openapi::api::core::v1::Binding;
use serde_json::{Value, json};

use super::input;
use super::ownership::Ownership;
use super::update::{Writes, change};
use crate::admission::{self, Operation};
use crate::http::body::Body;
use crate::http::respond::{self, Answer};
use crate::{ApiServer, Context};

pub(super) fn success(code: StatusCode) -> Answer {
    respond::json(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code.as_u16()}),
    )
}

/// The older door: the pod is the one that has the binding's name.
pub async fn bind_named(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let input = input::object(context, body).await?;
    let kinds = server.0.catalog.snapshot();
    let pods = kinds.find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let mut target = context.target.clone();
    target.plural = pods.plural.to_string();
    target.name = meta::name(&input).to_owned();
    let pod = Context {
        who: context.who.clone(),
        query: context.query.clone(),
        headers: context.headers.clone(),
        form: context.form,
        target,
        kind: Arc::clone(pods),
        warnings: Default::default(),
    };
    bind(server, &pod, crate::http::body::full(input.to_string())).await
}

/// What is wrong with where a pod is to be bound to, told as the original does: without a reason.
fn check_target(kind: &str, node: &str) -> Result<(), ApiError> {
    let mut faults = Vec::new();
    if !matches!(kind, "" | "Node") {
        faults.push(format!(
            "target.kind: Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\""
        ));
    }
    if node.is_empty() {
        faults.push("target.name: Required value".to_owned());
    }
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(ApiError::unexplained(one.as_str())),
        all => Err(ApiError::unexplained(format!("[{}]", all.join(", ")))),
    }
}

/// An object is not the one that it was to be: what, as it was wanted, and as it is.
pub(super) fn precondition_failed(context: &Context, (what, wanted, held): (&str, &str, &str)) -> ApiError {
    let key = context.kind.key(&context.target.namespace, &context.target.name);
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
         {what} in precondition: {wanted}, {what} in object meta: {held}"
    );
    ApiError::conflict(&context.resource(), &context.target.name, &why)
}

/// Sets `spec.nodeName` and the PodScheduled condition, once.
pub async fn bind(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let mut value = input::other(context, body).await?;
    input::check_other(("", "v1", "Binding"), &value)?;
    let binding: Binding = serde_json::from_value(value.clone())
        .map_err(|e| ApiError::bad_request(format!("invalid Binding: {e}")))?;
    let wanted = binding.metadata.uid.clone().unwrap_or_default();
    let node = binding.target.name.unwrap_or_default();
    if value["target"]["kind"] == "Node" {
        admission::topology_labels::label(server, &mut value, &node).await?;
    }
    admission::extend(server, context, &mut value, None, Operation::Create).await?;
    admission::validate(server, context, Some(&value), None, Operation::Create).await?;
    let said = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    if !matches!(said("name"), "") && said("name") != context.target.name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    check_target(value["target"]["kind"].as_str().unwrap_or_default(), &node)?;
    let version = said("resourceVersion").to_owned();
    change(server, context, Writes::Binding, Ownership::Take, |old| {
        for (what, wanted, held) in
            [("UID", &wanted, meta::uid(old)), ("ResourceVersion", &version, meta::resource_version(old))]
        {
            if !wanted.is_empty() && wanted != held {
                return Err(precondition_failed(context, (what, wanted, held)));
            }
        }
        let binding = Resource { group: "", plural: "pods/binding" };
        let refuse = |why: String| Err(ApiError::conflict(&binding, &context.target.name, &why));
        if meta::is_deleting(old) {
            return refuse(format!("pod {} is being deleted, cannot be assigned to a host", meta::name(old)));
        }
        if let Some(held) = old["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
            return refuse(format!("pod {} is already assigned to node {held:?}", meta::name(old)));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = node.as_str().into();
        let labels: Vec<(&str, &str)> = meta::pairs(&value, "labels").collect();
        if !labels.is_empty() {
            let held = meta::pairs(old, "labels").chain(labels).map(|(k, v)| (k.to_owned(), v.into()));
            meta::set(&mut new, "labels", Value::Object(held.collect()));
        }
        Ok(new)
    })
    .await?;
    change(server, context, Writes::Status, Ownership::Take, |old| {
        let mut new = old.clone();
        let now = base::time::rfc3339_seconds(base::time::now());
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
        let mut conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(scheduled);
        new["status"]["conditions"] = Value::Array(conditions);
        Ok(new)
    })
    .await?;
    Ok(success(StatusCode::CREATED))
}
