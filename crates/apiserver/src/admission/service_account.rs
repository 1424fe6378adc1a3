//! A pod runs as a service account that exists, and finds that account's token where clients look for it.

use api::meta;
use api::status::ApiError;
use base::constants::paths::SERVICE_ACCOUNT_MOUNT;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::attributes::Attributes;
use super::{Operation, is_pod, refused};
use crate::auth::node::references;
use crate::{ApiServer, Context};

/// The agent tells by such a pod what it runs of its own.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Seconds a mounted token lives; the agent renews it well before.
const TOKEN_SECONDS: i64 = 3607;

pub fn admit<'a>(
    server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        if !is_pod(context) || !operation.is_create() || !object["spec"].is_object() {
            return Ok(());
        }
        // The agent runs a mirror pod's original as it is: what were added to its image here would be a lie.
        if meta::annotation(object, MIRROR).is_some() {
            return Ok(());
        }
        let spec = &mut object["spec"];
        let named = spec["serviceAccountName"].as_str().or(spec["serviceAccount"].as_str());
        let account = named.filter(|n| !n.is_empty()).unwrap_or("default").to_owned();
        spec["serviceAccountName"] = account.as_str().into();
        spec["serviceAccount"] = account.as_str().into();
        let kinds = server.0.catalog.snapshot();
        let kind = kinds.find("", "v1", "serviceaccounts").ok_or_else(ApiError::no_such_path)?;
        let namespace = &context.target.namespace;
        let Some((_, found)) = server.0.objects.get(kind, namespace, &account).await? else {
            let why = format!(
                "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
            );
            let name = match meta::name(object) {
                "" => meta::text(object, "generateName"),
                name => name,
            };
            return Err(ApiError::forbidden(&context.resource(), name, &why));
        };
        let spec = &mut object["spec"];
        if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
            && let Some(secrets) = found.get("imagePullSecrets")
        {
            spec["imagePullSecrets"] = secrets.clone();
        }
        let wanted = spec["automountServiceAccountToken"]
            .as_bool()
            .or(found["automountServiceAccountToken"].as_bool());
        if wanted.unwrap_or(true) {
            mount_token(spec);
        }
        Ok(())
    })
}

/// What an agent runs of its own reaches nothing of the cluster.
pub fn judge<'a>(
    _server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    _old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let creates = attributes.operation.is_create() && attributes.subresource.is_empty();
        let Some(pod) = object.filter(|_| creates && attributes.is("", "pods")) else { return Ok(()) };
        if meta::annotation(pod, MIRROR).is_none() {
            return Ok(());
        }
        let spec = &pod["spec"];
        let volumes = spec["volumes"].as_array().into_iter().flatten();
        let mut sources = volumes.flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten());
        let typed = serde_json::from_value(pod.clone()).unwrap_or_default();
        let why = if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
            "a mirror pod may not reference service accounts"
        } else if references::of(&typed).iter().any(|r| r.kind == references::Kind::Secret) {
            "a mirror pod may not reference secrets"
        } else if sources.any(|s| s.get("serviceAccountToken").is_some()) {
            "a mirror pod may not use ServiceAccountToken volume projections"
        } else {
            return Ok(());
        };
        Err(refused(attributes, why))
    })
}

/// Adds the projected volume and a mount in each container that has none at that place.
fn mount_token(spec: &mut Value) {
    let name = format!("kube-api-access-{}", base::id::name_suffix(5));
    let mut used = false;
    for field in ["initContainers", "containers"] {
        for container in spec[field].as_array_mut().into_iter().flatten().filter(|c| c.is_object()) {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().any(|m| m["mountPath"] == SERVICE_ACCOUNT_MOUNT) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": SERVICE_ACCOUNT_MOUNT});
            container["volumeMounts"] = mounts.into_iter().chain([mount]).collect();
            used = true;
        }
    }
    if !used {
        return;
    }
    let volume = json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    spec["volumes"] = volumes.into_iter().chain([volume]).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_finds_the_token_once() {
        let own = json!([{"name": "own", "mountPath": SERVICE_ACCOUNT_MOUNT}]);
        let mut spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": own}], "initContainers": [{"name": "i"}]});
        mount_token(&mut spec);
        assert_eq!(spec["volumes"].as_array().map(Vec::len), Some(1));
        let name = &spec["volumes"][0]["name"];
        assert_eq!(&spec["containers"][0]["volumeMounts"][0]["name"], name);
        assert_eq!(spec["containers"][1]["volumeMounts"], own);
        assert_eq!(&spec["initContainers"][0]["volumeMounts"][0]["name"], name);
    }
}
