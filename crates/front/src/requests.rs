//! Requests to the API as they go over the wire: a verb that handles any kind needs paths and JSON, not types.

use anyhow::anyhow;
use gitops::wording;
use http::{Method, Request};
use kube::Client;
use serde_json::Value;

use crate::discovery::Resource;

/// Who has written what this crate writes.
pub const MANAGER: &str = base::constants::FIELD_MANAGER;
pub const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// `/api/v1/namespaces/shop/pods/web-1`
pub fn path(resource: &Resource, namespace: Option<&str>, name: Option<&str>) -> String {
    let mut path = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    if let Some(namespace) = namespace.filter(|_| resource.namespaced) {
        path += &format!("/namespaces/{}", encode(namespace));
    }
    path += &format!("/{}", resource.plural);
    if let Some(name) = name {
        path += &format!("/{}", encode(name));
    }
    path
}

/// Adds to the query of a path.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut path = path.to_owned();
    for (name, value) in pairs {
        path.push(if path.contains('?') { '&' } else { '?' });
        path += &format!("{name}={}", encode(value));
    }
    path
}

fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> anyhow::Result<Request<Vec<u8>>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.body(body)?)
}

pub async fn get(client: &Client, path: &str) -> anyhow::Result<Value> {
    get_as(client, path, JSON).await
}

/// Objects as the server would print them.
pub async fn get_table(client: &Client, path: &str) -> anyhow::Result<Value> {
    get_as(client, path, TABLE).await
}

pub async fn get_as(client: &Client, path: &str, accept: &str) -> anyhow::Result<Value> {
    let request = request(Method::GET, path, &[("Accept", accept)], Vec::new())?;
    client.request(request).await.map_err(explain)
}

/// `None`: it is not there.
pub async fn get_optional(client: &Client, path: &str) -> anyhow::Result<Option<Value>> {
    let request = request(Method::GET, path, &[("Accept", JSON)], Vec::new())?;
    match client.request(request).await {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(explain(error)),
    }
}

/// Server-side apply.
pub async fn apply(client: &Client, path: &str, object: &Value, force: bool) -> anyhow::Result<Value> {
    let force = if force { "true" } else { "false" };
    // A field that is not known is a mistake of whoever wrote it, not something to leave out.
    let path =
        with_query(path, &[("fieldManager", MANAGER), ("force", force), ("fieldValidation", "Strict")]);
    let request = request(
        Method::PATCH,
        &path,
        &[("Content-Type", APPLY), ("Accept", JSON)],
        serde_json::to_vec(object)?,
    )?;
    client.request(request).await.map_err(|error| explain(worded(error, object)))
}

/// What the server said of an object, in words about the object as it was written.
fn worded(error: kube::Error, object: &Value) -> kube::Error {
    let kube::Error::Api(mut status) = error else { return error };
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    status.message = wording::refusal(&status, object);
    if wording::is_immutable(&status) {
        let place = match text("/metadata/namespace") {
            "" => String::new(),
            namespace => format!(" -n {namespace}"),
        };
        let (kind, name) = (text("/kind").to_lowercase(), text("/metadata/name"));
        status.message += &format!(
            "\nwhere nothing is lost with it, delete it and apply it anew: kedge delete {kind} {name}{place}"
        );
    }
    kube::Error::Api(status)
}

/// Merges some fields into an object, whoever else has set them.
pub async fn merge(client: &Client, path: &str, patch: &Value) -> anyhow::Result<Value> {
    let path = with_query(path, &[("fieldManager", MANAGER)]);
    let headers = [("Content-Type", "application/merge-patch+json"), ("Accept", JSON)];
    client
        .request(request(Method::PATCH, &path, &headers, serde_json::to_vec(patch)?)?)
        .await
        .map_err(explain)
}

pub async fn delete(client: &Client, path: &str, options: &Value) -> anyhow::Result<Value> {
    let headers = [("Content-Type", JSON), ("Accept", JSON)];
    client
        .request(request(Method::DELETE, path, &headers, serde_json::to_vec(options)?)?)
        .await
        .map_err(explain)
}

/// An answer that goes on: a log, or the events of a watch, one a line.
pub async fn stream(
    client: &Client,
    path: &str,
    table: bool,
) -> anyhow::Result<impl futures::AsyncBufRead + use<>> {
    let accept = if table { TABLE } else { "*/*" };
    client
        .request_stream(request(Method::GET, path, &[("Accept", accept)], Vec::new())?)
        .await
        .map_err(explain)
}

/// What an error means to the one who typed, and what to do next.
pub fn explain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => {
            let message = match status.message.is_empty() {
                true => format!("the API answered {} {}", status.code, status.reason),
                false => status.message.clone(),
            };
            let hint = match status.code {
                401 => {
                    "\nthe kubeconfig's credentials are not this cluster's; name the right one with --kubeconfig"
                }
                403 if message.contains("because it is being terminated") => {
                    "\nthe namespace is about to go; try again when it is gone, or with its Namespace object in what is applied"
                }
                403 => "\nthe user of the kubeconfig may not do this",
                409 if message.contains("conflict") => {
                    "\nanother manager owns these fields; take them over with --force-conflicts"
                }
                _ => "",
            };
            anyhow!("{message}{hint}")
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) => {
            let mut causes = Vec::new();
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                causes.push(error.to_string());
                cause = error.source();
            }
            let last = causes.pop().unwrap_or_default();
            anyhow!(
                "the API does not answer: {last}\nsee whether the cluster runs with `kedge status`; start it with `kedge up`"
            )
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_objects() {
        let pods =
            Resource { version: "v1".into(), plural: "pods".into(), namespaced: true, ..Resource::default() };
        assert_eq!(path(&pods, Some("shop"), Some("a")), "/api/v1/namespaces/shop/pods/a");
        assert_eq!(path(&pods, None, None), "/api/v1/pods");
        let roles = Resource {
            group: "rbac.authorization.k8s.io".into(),
            version: "v1".into(),
            plural: "clusterroles".into(),
            ..Resource::default()
        };
        let path = path(&roles, Some("ignored"), Some("system:node"));
        assert_eq!(path, "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode");
        assert_eq!(with_query("/a", &[("b", "c=d,e"), ("f", "g")]), "/a?b=c%3Dd%2Ce&f=g");
    }
}
