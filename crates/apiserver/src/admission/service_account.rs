//! A pod runs as a service account that exists, and finds that account's token where clients look for it.

use std::collections::HashSet;

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
/// On an account: only the secrets that it lists are for its pods.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
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
        let Some(found) = server.0.objects.find(kind, namespace, &account).await? else {
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

/// What an agent runs of its own reaches nothing of the cluster, and an account may say which secrets its pods use.
pub fn judge<'a>(
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    _old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let creates = attributes.operation.is_create() && attributes.subresource.is_empty();
        let Some(pod) = object.filter(|_| creates && attributes.is("", "pods")) else { return Ok(()) };
        if meta::annotation(pod, MIRROR).is_none() {
            let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            let kinds = server.0.catalog.snapshot();
            let kind = kinds.find("", "v1", "serviceaccounts").ok_or_else(ApiError::no_such_path)?;
            let found = server.0.objects.get(kind, attributes.namespace(), account).await?;
            let limited = found.filter(|(_, account)| meta::annotation(account, ENFORCE) == Some("true"));
            return match limited.and_then(|(_, account)| unlisted(&account, &pod["spec"])) {
                Some(why) => Err(refused(attributes, &why)),
                None => Ok(()),
            };
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

/// What is wrong with the secrets of a pod whose account lists those that may be used.
fn unlisted(account: &Value, spec: &Value) -> Option<String> {
    let names = |field: &str| -> HashSet<&str> {
        account[field].as_array().into_iter().flatten().filter_map(|r| r["name"].as_str()).collect()
    };
    let (secrets, pull_secrets) = (names("secrets"), names("imagePullSecrets"));
    let each = |of: &Value, field: &str| of[field].as_array().cloned().unwrap_or_default();
    let whose =
        format!("is not allowed because service account {} does not reference that", meta::name(account));
    for volume in each(spec, "volumes") {
        if let Some(name) = volume["secret"]["secretName"].as_str().filter(|name| !secrets.contains(name)) {
            return Some(format!("volume with secret.secretName={name:?} {whose} secret"));
        }
    }
    for (field, what) in [("initContainers", "init container"), ("containers", "container")] {
        for container in each(spec, field) {
            let of = container["name"].as_str().unwrap_or_default();
            for variable in each(&container, "env") {
                let name = variable["valueFrom"]["secretKeyRef"]["name"].as_str();
                if let Some(name) = name.filter(|name| !secrets.contains(name)) {
                    let variable = variable["name"].as_str().unwrap_or_default();
                    return Some(format!(
                        "{what} {of} with envVar {variable} referencing secret.secretName={name:?} {whose} secret"
                    ));
                }
            }
            for source in each(&container, "envFrom") {
                let name = source["secretRef"]["name"].as_str();
                if let Some(name) = name.filter(|name| !secrets.contains(name)) {
                    return Some(format!(
                        "{what} {of} with envFrom referencing secret.secretName={name:?} {whose} secret"
                    ));
                }
            }
        }
    }
    for (index, reference) in each(spec, "imagePullSecrets").iter().enumerate() {
        let name = reference["name"].as_str().unwrap_or_default();
        if !pull_secrets.contains(name) {
            return Some(format!("imagePullSecrets[{index}].name={name:?} {whose} imagePullSecret"));
        }
    }
    None
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
