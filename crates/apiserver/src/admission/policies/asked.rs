//! An operation as policies see it, with all that has to be looked up for them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::meta;
use api::policy::{AdmissionVars, GroupVersionResource, Params, Subject, denies_without};
use api::status::ApiError;
use cel::{Authorizer, Question};
use k8s_openapi::api::admissionregistration::v1::ParamRef;
use serde_json::{Value, json};
use store::RangeRequest;

use super::rights::Rights;
use crate::Server;
use crate::admission::attributes::Attributes;
use crate::objects::store_error;

pub struct Asked {
    pub resource: GroupVersionResource,
    equivalents: Vec<GroupVersionResource>,
    kind: (String, String, String),
    subresource: String,
    operation: &'static str,
    name: String,
    /// Of the object; empty for what lies in none.
    namespace: String,
    is_namespace: bool,
    /// The namespace itself.
    held_namespace: Value,
    user: Value,
    options: Value,
    dry_run: bool,
    authorizer: Arc<dyn Authorizer>,
}

impl Asked {
    pub async fn new(server: &Server, attributes: &Attributes<'_>) -> Result<Self, ApiError> {
        let kinds = server.catalog.snapshot();
        let others = kinds.equivalents(&attributes.context.kind);
        let others = others.iter().map(|kind| GroupVersionResource::of(kind));
        let namespace = attributes.namespace().to_owned();
        let held_namespace = match (namespace.as_str(), kinds.find("", "v1", "namespaces")) {
            ("", _) | (_, None) => Value::Null,
            (name, Some(kind)) => {
                let found = server.objects.get(kind, "", name).await?;
                found.map_or(Value::Null, |(_, found)| found)
            }
        };
        let who = &attributes.context.who;
        let mut user = json!({"username": who.username});
        if !who.uid.is_empty() {
            user["uid"] = who.uid.as_str().into();
        }
        if !who.groups.is_empty() {
            user["groups"] = who.groups.clone().into();
        }
        if !who.extra.is_empty() {
            user["extra"] = json!(who.extra);
        }
        Ok(Self {
            resource: GroupVersionResource::of(&attributes.context.kind),
            equivalents: others.collect(),
            kind: attributes.kind.clone(),
            subresource: attributes.subresource.to_owned(),
            operation: attributes.operation.name(),
            name: attributes.name.to_owned(),
            is_namespace: attributes.is_namespace(),
            namespace,
            held_namespace,
            user,
            options: attributes.options.clone(),
            dry_run: attributes.dry_run,
            authorizer: Arc::new(Rights { rbac: server.rbac().await?, who: who.clone() }),
        })
    }

    pub fn subject<'a>(&'a self, object: &'a Value, old_object: &'a Value) -> Subject<'a> {
        let labels = |object: &Value| -> BTreeMap<String, String> {
            meta::pairs(object, "labels").map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        let (namespace, namespace_labels) = match (self.is_namespace, self.namespace.as_str()) {
            (true, _) if object.is_object() => (self.name.as_str(), Some(labels(object))),
            (true, _) => (self.name.as_str(), Some(labels(old_object))),
            (false, "") => ("", None),
            (false, namespace) => (namespace, Some(labels(&self.held_namespace))),
        };
        Subject {
            resource: self.resource.clone(),
            equivalents: self.equivalents.clone(),
            subresource: &self.subresource,
            operation: self.operation,
            name: &self.name,
            namespace,
            namespace_labels,
            object,
            old_object,
        }
    }

    /// An object in the version that a policy's rule names.
    pub async fn shown<'a>(
        &self,
        server: &Server,
        attributes: &Attributes<'_>,
        matched: &GroupVersionResource,
        object: &'a Value,
    ) -> Result<Cow<'a, Value>, ApiError> {
        let kinds = server.catalog.snapshot();
        let to = kinds.find(&matched.group, &matched.version, &matched.resource);
        match to.filter(|_| *matched != self.resource && attributes.is_of_kind() && object.is_object()) {
            Some(to) => {
                let converted = server.converted(&attributes.context.kind, to, object.clone()).await?;
                Ok(Cow::Owned(converted))
            }
            None => Ok(Cow::Borrowed(object)),
        }
    }

    /// The `AdmissionRequest`, in the version that a policy's rule names.
    pub fn request(&self, matched: &GroupVersionResource) -> Value {
        let (group, version, kind) = &self.kind;
        // A subresource's own kind has a version of its own.
        let own = *group == self.resource.group && *version == self.resource.version;
        let (matched_group, matched_version) =
            if own { (&matched.group, &matched.version) } else { (group, version) };
        let resource = |r: &GroupVersionResource| json!({"group": r.group, "version": r.version, "resource": r.resource});
        let mut request = json!({
            "kind": {"group": matched_group, "version": matched_version, "kind": kind},
            "resource": resource(matched),
            "requestKind": {"group": group, "version": version, "kind": kind},
            "requestResource": resource(&self.resource),
            "operation": self.operation,
            "userInfo": self.user,
            "dryRun": self.dry_run,
        });
        let namespace = if self.is_namespace { &self.name } else { &self.namespace };
        for (field, value) in [
            ("subResource", &self.subresource),
            ("requestSubResource", &self.subresource),
            ("name", &self.name),
            ("namespace", namespace),
        ] {
            if !value.is_empty() {
                request[field] = value.as_str().into();
            }
        }
        if !self.options.is_null() {
            request["options"] = self.options.clone();
        }
        request
    }

    pub fn vars<'a>(
        &'a self,
        object: &'a Value,
        old_object: &'a Value,
        request: &'a Value,
        params: &'a Value,
    ) -> AdmissionVars<'a> {
        AdmissionVars {
            object,
            old_object,
            request,
            params,
            namespace: &self.held_namespace,
            authorizer: Some(Arc::clone(&self.authorizer)),
            resource: Question {
                group: self.resource.group.clone(),
                resource: self.resource.resource.clone(),
                subresource: self.subresource.clone(),
                namespace: self.namespace.clone(),
                name: self.name.clone(),
                ..Default::default()
            },
        }
    }

    /// What a policy is to be asked with, once each. The inner error is of the binding's configuration.
    pub async fn params(
        &self,
        server: &Server,
        param_kind: Option<&(String, String)>,
        reference: Option<&ParamRef>,
    ) -> Result<Result<Vec<Value>, String>, ApiError> {
        let Some(param_kind) = param_kind else { return Ok(Ok(vec![Value::Null])) };
        let kinds = server.catalog.snapshot();
        let kind = find_kind(&kinds, param_kind);
        let namespaced = kind.is_some_and(|kind| kind.namespaced);
        let plan = match Params::plan(true, reference, namespaced, &self.namespace) {
            Ok(plan) => plan,
            Err(fault) => return Ok(Err(fault)),
        };
        let Some(kind) = kind else {
            return Ok(Err(format!(
                "paramKind kind `&ParamKind{{APIVersion:{},Kind:{},}}` not known",
                param_kind.0, param_kind.1
            )));
        };
        let found = match plan {
            Params::None => return Ok(Ok(vec![Value::Null])),
            Params::Named { namespace, name } => {
                let found = server.objects.get(kind, &namespace, &name).await?;
                found.map(|(_, object)| object).into_iter().collect()
            }
            Params::Selected { namespace, selector } => {
                let prefix = kind.key(&namespace, "");
                let request = RangeRequest { prefix, ..Default::default() };
                let range = server.objects.store.range(request).await.map_err(store_error)?;
                server.objects.unlock(&range.entries).await?;
                let mut found = Vec::new();
                for entry in &range.entries {
                    let object = server.objects.decode(entry)?;
                    let labels: BTreeMap<&str, &str> = meta::pairs(&object, "labels").collect();
                    if selector.matches_by(|key| labels.get(key).copied()) {
                        found.push(object);
                    }
                }
                found
            }
        };
        let found: Vec<Value> = found;
        Ok(match found.is_empty() {
            true => denies_without(reference).map(|()| found),
            false => Ok(found),
        })
    }
}

fn find_kind<'k>(
    kinds: &'k crate::catalog::Kinds,
    (api_version, name): &(String, String),
) -> Option<&'k Arc<api::kinds::Kind>> {
    kinds.all().iter().find(|kind| kind.api_version() == *api_version && kind.kind == *name)
}

/// A policy whose parameters are of a kind that nobody serves.
pub fn unknown_param_kind(server: &Server, param_kind: Option<&(String, String)>) -> Option<String> {
    let param_kind = param_kind?;
    let kinds = server.catalog.snapshot();
    match find_kind(&kinds, param_kind) {
        Some(_) => None,
        None => Some(format!(
            "failed to find resource referenced by paramKind: '{}, Kind={}'",
            param_kind.0, param_kind.1
        )),
    }
}
