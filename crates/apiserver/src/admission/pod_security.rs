//! Pod security: a namespace's labels say which standard its pods must meet, is warned of, or is written to the log.
//! Pods are refused; what makes pods is only warned of, since its pods will be refused.

use api::podsecurity::{self, Level, Policy, Standard};
use api::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec, PodTemplateSpec};
use serde_json::Value;

use super::attributes::{Attributes, Operation};
use super::refused;
use crate::ApiServer;

/// Where kinds that make pods keep what they make them from.
const TEMPLATES: &[(&str, &str, &str)] = &[
    ("", "podtemplates", "/template"),
    ("", "replicationcontrollers", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
    ("batch", "jobs", "/spec/template"),
];

pub fn judge<'a>(
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let (Some(object), Operation::Create | Operation::Update) = (object, attributes.operation) else {
            return Ok(());
        };
        if attributes.is_namespace() {
            return of_namespace(server, attributes, object, old).await;
        }
        if attributes.is("", "pods") {
            return of_pod(server, attributes, object, old).await;
        }
        let (group, resource) = (attributes.group(), attributes.resource());
        let Some((_, _, at)) = TEMPLATES.iter().find(|(g, r, _)| *g == group && *r == resource) else {
            return Ok(());
        };
        if !attributes.subresource.is_empty() {
            return Ok(());
        }
        let policy = policy_of(server, attributes.namespace()).await?;
        let template = object.pointer(at).cloned().unwrap_or_default();
        let template: PodTemplateSpec = serde_json::from_value(template).unwrap_or_default();
        let Some(spec) = &template.spec else { return Ok(()) };
        let look = |standard| {
            podsecurity::violations(standard, template.metadata.as_ref().unwrap_or(&Default::default()), spec)
        };
        tell(attributes, &policy, &look);
        Ok(())
    })
}

type Look<'a> = dyn Fn(Standard) -> Vec<podsecurity::Violation> + Send + Sync + 'a;

/// What is not enforced is told: to the client, and to the log.
fn tell(attributes: &Attributes<'_>, policy: &Policy, look: &Look<'_>) {
    let would = |standard: Standard| {
        let found = look(standard);
        let detail = podsecurity::in_detail(&found);
        (!found.is_empty()).then(|| format!("would violate PodSecurity \"{standard}\": {detail}"))
    };
    if let Some(violation) = would(policy.audit) {
        let (namespace, name, resource) = (attributes.namespace(), attributes.name, attributes.resource());
        tracing::info!(namespace, name, resource, violation, "pod-security.kubernetes.io/audit-violations");
        crate::audit::annotate("pod-security.kubernetes.io/audit-violations", violation);
    }
    attributes.context.warn(would(policy.warn));
}

async fn of_pod(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let looks_at_spec = matches!(attributes.subresource, "" | "ephemeralcontainers" | "resize");
    if !looks_at_spec {
        return Ok(());
    }
    let policy = policy_of(server, attributes.namespace()).await?;
    crate::audit::annotate("pod-security.kubernetes.io/enforce-policy", policy.enforce.to_string());
    if [policy.enforce, policy.audit, policy.warn].iter().all(|s| s.level == Level::Privileged) {
        return Ok(());
    }
    let pod: Pod = serde_json::from_value(object.clone()).map_err(ApiError::internal)?;
    let Some(spec) = &pod.spec else { return Ok(()) };
    if let Some(old) = old {
        let before: PodSpec = serde_json::from_value(old["spec"].clone()).unwrap_or_default();
        if !podsecurity::is_significant(spec, &before) {
            return Ok(());
        }
    }
    let look = |standard| podsecurity::violations(standard, &pod.metadata, spec);
    let found = look(policy.enforce);
    if !found.is_empty() {
        let detail = podsecurity::in_detail(&found);
        return Err(refused(attributes, &format!("violates PodSecurity \"{}\": {detail}", policy.enforce)));
    }
    tell(attributes, &policy, &look);
    Ok(())
}

async fn of_namespace(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    if !attributes.subresource.is_empty() {
        return Ok(());
    }
    let labels = |object: &Value| {
        let namespace: Namespace = serde_json::from_value(object.clone()).unwrap_or_default();
        podsecurity::policy(&namespace.metadata.labels.unwrap_or_default())
    };
    let (policy, errors) = labels(object);
    let before = old.map(labels);
    if !errors.is_empty() && before.as_ref().is_none_or(|(_, held)| *held != errors) {
        return Err(ApiError::invalid("", "Namespace", attributes.name, &errors));
    }
    let Some((before, _)) = before else { return Ok(()) };
    let (now, was) = (policy.enforce, before.enforce);
    let laxer = now.version == was.version && now.level <= was.level;
    if now == was || now.level == Level::Privileged || laxer {
        return Ok(());
    }
    let kinds = server.0.catalog.snapshot();
    let kind = kinds.find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let pods: Vec<Pod> = server.0.objects.in_namespace(kind, attributes.name).await?;
    attributes.context.warn(podsecurity::of_existing(attributes.name, now, &pods));
    Ok(())
}

async fn policy_of(server: &ApiServer, namespace: &str) -> Result<Policy, ApiError> {
    let kinds = server.0.catalog.snapshot();
    let kind = kinds.find("", "v1", "namespaces").ok_or_else(ApiError::no_such_path)?;
    let found = server.0.objects.find(kind, "", namespace).await?;
    let found = found.ok_or_else(|| ApiError::not_found(&kind.resource(), namespace))?;
    let labels = api::meta::pairs(&found, "labels").map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Ok(podsecurity::policy(&labels).0)
}
