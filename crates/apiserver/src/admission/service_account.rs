//! A pod runs as a service account that exists, and finds that account's token where clients look for it.

use api::meta;
use api::status::ApiError;
use base::constants::paths::SERVICE_ACCOUNT_MOUNT;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Operation, is_pod};
use crate::{ApiServer, Context};

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
