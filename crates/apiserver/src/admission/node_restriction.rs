//! What a node may write of what it is allowed to write at all: its own object, and the pods that are bound to it. The
//! authorizer decides by names, this by contents.

use std::collections::BTreeSet;

use api::csr::{self, Request};
use api::meta;
use api::status::ApiError;
use base64::Engine;
use futures::future::BoxFuture;
use serde_json::Value;

use super::attributes::{Attributes, Operation};
use super::refused;
use super::service_account::MIRROR;
use crate::auth::{node, rbac};
use crate::{ApiServer, Context};

const LEASES: &str = "kube-node-lease";

/// Labels of Kubernetes' own that a node says of itself, beside those in the namespaces that are for it.
const LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const LABEL_NAMESPACES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Labels by which a cluster's administrator tells nodes apart: no node may say such of itself.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

pub fn judge<'a>(
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let who = &attributes.context.who;
        let Some(node) = node::name_of(who) else {
            return match node::is_nameless(who) {
                true => Err(refused(
                    attributes,
                    &format!("could not determine node from user {:?}", who.username),
                )),
                false => Ok(()),
            };
        };
        let request = Written { attributes, node, object, old };
        match (attributes.group(), attributes.resource(), attributes.subresource) {
            ("", "pods", "") if attributes.operation.is_create() => request.mirror_pod(server).await,
            ("", "serviceaccounts", "token") => request.token(server).await,
            ("", "pods", "eviction") => request.eviction(server).await,
            _ => request.check().map_err(|why| refused(attributes, &why)),
        }
    })
}

struct Written<'a> {
    attributes: &'a Attributes<'a>,
    node: &'a str,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn runs_on(pod: Option<&Value>, node: &str) -> bool {
    pod.is_some_and(|pod| pod["spec"]["nodeName"] == node)
}

impl Written<'_> {
    /// What can be told from the objects alone.
    fn check(&self) -> Result<(), String> {
        let (node, attributes) = (self.node, self.attributes);
        let (operation, name) = (attributes.operation, attributes.name);
        match (attributes.group(), attributes.resource(), attributes.subresource) {
            ("", "pods", "") => match operation {
                Operation::Delete => ensure(runs_on(self.old, node), || {
                    format!("node {node:?} can only delete pods with spec.nodeName set to itself")
                }),
                other => {
                    let operation = other.name();
                    Err(format!(
                        "unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"
                    ))
                }
            },
            ("", "pods", "status") => self.pod_status(),
            ("", "pods", other) => {
                Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
            }
            ("", "nodes", _) => self.own_node(),
            ("", "persistentvolumeclaims", "status") => self.claim_status(),
            ("", "persistentvolumeclaims", _) => Err("may only update PVC status".into()),
            ("coordination.k8s.io", "leases", _) => {
                ensure(attributes.namespace() == LEASES, || {
                    format!("can only access leases in the {LEASES:?} system namespace")
                })?;
                let why = "can only access node lease with the same name as the requesting node";
                ensure(name == node, || why.into())
            }
            ("storage.k8s.io", "csinodes", _) => ensure(name == node, || {
                "can only access CSINode with the same name as the requesting node".into()
            }),
            ("resource.k8s.io", "resourceslices", _) => {
                let slice = if operation == Operation::Delete { self.old } else { self.object };
                let decides = matches!(operation, Operation::Create | Operation::Delete);
                let verb = if operation == Operation::Delete { "delete" } else { "create" };
                ensure(!decides || runs_on(slice, node), || {
                    format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")
                })
            }
            (super::certificates::GROUP, "certificatesigningrequests", _) => self.certificate(),
            _ => Ok(()),
        }
    }

    fn pod_status(&self) -> Result<(), String> {
        let (node, none) = (self.node, Value::Null);
        let (new, old) = (self.object.unwrap_or(&none), self.old.unwrap_or(&none));
        ensure(runs_on(self.old, node), || {
            format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself")
        })?;
        let labels = |pod| meta::pairs(pod, "labels").collect::<BTreeSet<_>>();
        ensure(labels(new) == labels(old), || {
            format!("node {node:?} cannot update labels through pod status")
        })?;
        let part = |pod: &Value, field: &str| pod["status"][field].clone();
        let same = |field| part(new, field) == part(old, field);
        ensure(same("resourceClaimStatuses"), || {
            format!("node {node:?} cannot update resource claim statues")
        })?;
        ensure(same("extendedResourceClaimStatus"), || {
            format!("node {node:?} cannot update extended resource claim status")
        })
    }

    fn own_node(&self) -> Result<(), String> {
        let (node, name) = (self.node, self.attributes.name);
        ensure(name == node, || format!("node {node:?} is not allowed to modify node {name:?}"))?;
        let Some(new) = self.object else { return Ok(()) };
        let none = Value::Null;
        let old = self.old.unwrap_or(&none);
        // What a node once took its configuration from: one that is there may stay.
        let source = &new["spec"]["configSource"];
        if self.attributes.operation == Operation::Update {
            ensure(source.is_null() || *source == old["spec"]["configSource"], || {
                format!("node {node:?} is not allowed to update configSource to a new non-nil configSource")
            })?;
            let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
            ensure(list(&new["spec"]["taints"]) == list(&old["spec"]["taints"]), || {
                format!("node {node:?} is not allowed to modify taints")
            })?;
            let owners = |object: &Value| list(&object["metadata"]["ownerReferences"]);
            ensure(owners(new) == owners(old), || {
                format!("node {node:?} is not allowed to modify ownerReferences")
            })?;
        }
        ensure(source.is_null() || self.attributes.operation != Operation::Create, || {
            format!("node {node:?} is not allowed to create pods with a non-nil configSource")
        })?;
        let forbidden = forbidden_labels(new, old);
        let shown = || forbidden.iter().copied().collect::<Vec<_>>().join(", ");
        ensure(forbidden.is_empty(), || match self.attributes.operation {
            Operation::Create => {
                format!("node {node:?} is not allowed to set the following labels: {}", shown())
            }
            _ => format!("is not allowed to modify labels: {}", shown()),
        })
    }

    fn claim_status(&self) -> Result<(), String> {
        let node = self.node;
        let rest = |claim: Option<&Value>| {
            let mut claim = claim.cloned().unwrap_or_default();
            for field in ["resourceVersion", "managedFields"] {
                meta::unset(&mut claim, field);
            }
            let grows = ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"];
            if let Some(status) = claim["status"].as_object_mut() {
                grows.iter().for_each(|field| drop(status.remove(*field)));
            }
            claim
        };
        ensure(rest(self.object) == rest(self.old), || {
            format!(
                "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
            )
        })
    }

    fn certificate(&self) -> Result<(), String> {
        let Some(object) = self.object.filter(|_| self.attributes.operation.is_create()) else {
            return Ok(());
        };
        let signer = object["spec"]["signerName"].as_str().unwrap_or_default();
        if !matches!(signer, csr::NODE_SERVING | csr::NODE_CLIENT) {
            return Ok(());
        }
        let text = object["spec"]["request"].as_str().unwrap_or_default();
        let pem = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
        let request = Request::parse(&pem).map_err(|why| format!("unable to parse csr: {why}"))?;
        let own = format!("system:node:{}", self.node);
        ensure(request.common_name == own, || format!("can only create a node CSR with CN={own}"))
    }

    async fn mirror_pod(&self, server: &ApiServer) -> Result<(), ApiError> {
        let (node, none) = (self.node, Value::Null);
        let pod = self.object.unwrap_or(&none);
        let refuse = |why: String| refused(self.attributes, &why);
        let uid = check_mirror(pod, node).map_err(refuse)?;
        let held = find(server, "nodes", "", node).await?;
        let held = meta::uid(&held);
        if uid != held {
            return Err(refuse(format!("node {node} UID mismatch: expected {uid} got {held}")));
        }
        match reference(pod) {
            Some(what) => Err(refuse(format!("node {node:?} can not create pods that reference {what}"))),
            None => Ok(()),
        }
    }

    async fn eviction(&self, server: &ApiServer) -> Result<(), ApiError> {
        let target = &self.attributes.context.target;
        let pod = find(server, "pods", &target.namespace, &target.name).await?;
        let why = format!("node {} can only evict pods with spec.nodeName set to itself", self.node);
        if runs_on(Some(&pod), self.node) { Ok(()) } else { Err(refused(self.attributes, &why)) }
    }

    /// A token is for a pod that runs there, and for an audience that the pod asks for.
    async fn token(&self, server: &ApiServer) -> Result<(), ApiError> {
        let none = Value::Null;
        let spec = &self.object.unwrap_or(&none)["spec"];
        let bound = &spec["boundObjectRef"];
        let text = |field: &str| bound[field].as_str().unwrap_or_default();
        let refuse = |why: &str| Err(refused(self.attributes, why));
        if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
            return refuse("node requested token not bound to a pod");
        }
        let uid = text("uid");
        if uid.is_empty() {
            return refuse("node requested token with a pod binding without a uid");
        }
        let context = self.attributes.context;
        let pod = find(server, "pods", &context.target.namespace, text("name")).await?;
        if meta::uid(&pod) != uid {
            return refuse(&format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ));
        }
        if !runs_on(Some(&pod), self.node) {
            return refuse("node requested token bound to a pod scheduled on a different node");
        }
        let audiences = spec["audiences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let audience = match audiences {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return refuse("node may only request 0 or 1 audiences"),
        };
        if asks_for(&pod, audience)
            || drives(server, &pod, audience).await?
            || may(server, context, audience).await?
        {
            return Ok(());
        }
        refuse(&format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            context.who.username
        ))
    }
}

/// A right to tokens for an audience whatever pods say.
async fn may(server: &ApiServer, context: &Context, audience: &str) -> Result<bool, ApiError> {
    let what = rbac::Attributes {
        verb: "request-serviceaccounts-token-audience".into(),
        resource: audience.into(),
        namespace: context.target.namespace.clone(),
        name: context.target.name.clone(),
        ..Default::default()
    };
    Ok(!audience.is_empty() && server.0.may(&context.who, &what).await?)
}

fn asks_for(pod: &Value, audience: &str) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten());
    sources.any(|source| {
        let token = &source["serviceAccountToken"];
        token.is_object() && token["audience"].as_str().unwrap_or_default() == audience
    })
}

/// Whether a driver of one of the pod's volumes is to be given tokens for an audience.
async fn drives(server: &ApiServer, pod: &Value, audience: &str) -> Result<bool, ApiError> {
    let kinds = server.0.catalog.snapshot();
    let Some(drivers) = kinds.by_kind("storage.k8s.io", "CSIDriver") else { return Ok(false) };
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        let Some(driver) = volume["csi"]["driver"].as_str() else { continue };
        let found = server.0.objects.get(drivers, "", driver).await?;
        let requests = found.map(|(_, d)| d["spec"]["tokenRequests"].clone()).unwrap_or_default();
        if requests.as_array().into_iter().flatten().any(|r| r["audience"] == audience) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn find(server: &ApiServer, plural: &str, namespace: &str, name: &str) -> Result<Value, ApiError> {
    let kinds = server.0.catalog.snapshot();
    let kind = kinds.find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let found = server.0.objects.get(kind, namespace, name).await?;
    found.map(|(_, object)| object).ok_or_else(|| ApiError::not_found(&kind.resource(), name))
}

/// The uid of the node that a mirror pod says owns it.
fn check_mirror<'a>(pod: &'a Value, node: &str) -> Result<&'a str, String> {
    ensure(meta::annotation(pod, MIRROR).is_some(), || {
        format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods")
    })?;
    ensure(runs_on(Some(pod), node), || {
        format!("node {node:?} can only create pods with spec.nodeName set to itself")
    })?;
    let owners = pod["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let owner = match owners {
        [] => {
            return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        [one] => one,
        _ => {
            return Err(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    let itself = owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node;
    ensure(itself, || format!("node {node:?} can only create pods with an owner reference set to itself"))?;
    ensure(owner["controller"] == true, || {
        format!("node {node:?} can only create pods with a controller owner reference set to itself")
    })?;
    ensure(owner["blockOwnerDeletion"] != true, || {
        format!("node {node:?} must not set blockOwnerDeletion on an owner reference")
    })?;
    Ok(owner["uid"].as_str().unwrap_or_default())
}

/// What of the API a pod refers to: an agent's own pods have nothing to do with it.
fn reference(pod: &Value) -> Option<&'static str> {
    use node::references::Kind;
    let volumes = || pod["spec"]["volumes"].as_array().into_iter().flatten();
    let has = |source: &str| volumes().any(|v| v[source].is_object());
    let typed = serde_json::from_value(pod.clone()).unwrap_or_default();
    let first = node::references::of(&typed).into_iter().next();
    let named = first.map(|reference| match reference.kind {
        Kind::ServiceAccount => "serviceaccounts",
        Kind::Secret => "secrets",
        Kind::ConfigMap => "configmaps",
        Kind::Claim if has("persistentVolumeClaim") => "persistentvolumeclaims",
        Kind::Claim => "persistentvolumeclaims (via ephemeral volumes)",
        Kind::ResourceClaim => "resourceclaims",
    });
    let projected = |source: &str| {
        let mut sources = volumes().flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten());
        sources.any(|s| s[source].is_object())
    };
    // Claims that would be made of a template have no name yet.
    let claims = pod["spec"]["resourceClaims"].as_array().is_some_and(|claims| !claims.is_empty());
    let others = [
        (claims, "resourceclaims"),
        (projected("serviceAccountToken"), "serviceaccounts (via projected volumes)"),
        (projected("clusterTrustBundle"), "clustertrustbundles"),
        (projected("podCertificate"), "podcertificates"),
        (has("csi"), "csidrivers (via CSI volumes)"),
    ];
    named.or_else(|| others.into_iter().find(|(is_so, _)| *is_so).map(|(_, what)| what))
}

/// Labels that differ and are not a node's to change.
fn forbidden_labels<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let labels = |object: &'a Value| meta::pairs(object, "labels").collect::<BTreeSet<_>>();
    let (new, old) = (labels(new), labels(old));
    let changed = new.symmetric_difference(&old).map(|(key, _)| *key);
    changed.filter(|key| !is_own_label(key)).collect()
}

fn is_own_label(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let below =
        |domain: &str| namespace.strip_suffix(domain).is_some_and(|p| p.is_empty() || p.ends_with('.'));
    let reserved = below("kubernetes.io") || below("k8s.io");
    let of_nodes = LABELS.contains(&key) || LABEL_NAMESPACES.iter().any(|domain| below(domain));
    !below(RESTRICTED) && (!reserved || of_nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, expected: bool) {
        assert_eq!(is_own_label(key), expected, "{key}");
    }

    #[test]
    fn a_node_labels_itself_but_not_with_what_others_trust() {
        check("anything", true);
        check("example.com/anything", true);
        check("kubernetes.io/hostname", true);
        check("node.kubernetes.io/mine", true);
        check("x.kubelet.kubernetes.io/mine", true);
        check("node-role.kubernetes.io/control-plane", false);
        check("node-restriction.kubernetes.io/secure", false);
        check("x.node-restriction.kubernetes.io/secure", false);
        check("kubernetes.io/other", false);
        check("notkubernetes.io/other", true);
        check("x.k8s.io/other", false);
    }
}
