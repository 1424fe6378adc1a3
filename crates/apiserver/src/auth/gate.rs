//! The gate every request passes: whom it speaks for, and whether they may. The authorizer of nodes is asked before the
//! roles; what neither allows is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::http::HeaderMap;
use api::status::{ApiError, Resource};

use super::rbac::{Attributes, Snapshot};
use super::{AUTHENTICATED, Identity, MASTERS, node};
use crate::http::query::percent_decode;
use crate::{Context, Server};

const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Whether something is allowed, and why or why not, as far as there is something to tell.
pub(crate) struct Verdict {
    pub is_allowed: bool,
    pub reason: String,
}

/// What each authorizer says that does not allow it.
fn why_not(rbac: &Snapshot, who: &Identity, what: &Attributes) -> String {
    let of_node = node::name_of(who).and_then(|name| node::reason(name, what));
    let all: Vec<String> = of_node.into_iter().chain(rbac.faults(who, &what.namespace)).collect();
    all.join("\n")
}

impl Server {
    /// Whether somebody may do something.
    pub(crate) async fn may(&self, who: &Identity, what: &Attributes) -> Result<bool, ApiError> {
        Ok(self.may_without_roles(who, what).await || self.rbac().await?.allows(who, what))
    }

    async fn may_without_roles(&self, who: &Identity, what: &Attributes) -> bool {
        if who.is_in(MASTERS) {
            return true;
        }
        let Some(name) = node::name_of(who) else { return false };
        let revision = self.objects.store.revision();
        self.nodes_graph.ask(revision, |graph| node::decide(graph, name, what)).await
    }

    /// The same with why.
    pub(crate) async fn verdict(&self, who: &Identity, what: &Attributes) -> Result<Verdict, ApiError> {
        if self.may_without_roles(who, what).await {
            return Ok(Verdict { is_allowed: true, reason: String::new() });
        }
        let rbac = self.rbac().await?;
        Ok(match rbac.why(who, what) {
            Some(reason) => Verdict { is_allowed: true, reason },
            None => Verdict { is_allowed: false, reason: why_not(&rbac, who, what) },
        })
    }

    pub(crate) async fn authorize(&self, who: &Identity, what: &Attributes) -> Result<(), ApiError> {
        if self.may(who, what).await? {
            return Ok(());
        }
        if who.username == Identity::anonymous().username {
            return Err(ApiError::unauthorized());
        }
        let mut refusal = what.refusal(who);
        let reason = why_not(&*self.rbac().await?, who, what);
        if !reason.is_empty() {
            refusal = format!("{refusal}: {reason}");
        }
        Err(match what.is_resource() {
            true => {
                let resource = Resource { group: &what.group, plural: &what.resource };
                ApiError::forbidden(&resource, &what.name, &refusal)
            }
            false => ApiError::forbidden_path(format!("forbidden: {refusal}")),
        })
    }

    /// Applying to an object that does not exist creates it, which is a right of its own.
    pub(crate) async fn authorize_create(&self, context: &Context) -> Result<(), ApiError> {
        let target = &context.target;
        let what = Attributes {
            verb: "create".into(),
            resource: target.plural.clone(),
            group: target.group.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            ..Default::default()
        };
        self.authorize(&context.who, &what).await
    }

    /// The roles and bindings as they are now.
    pub(crate) async fn rbac(&self) -> Result<Arc<Snapshot>, ApiError> {
        self.rbac.get(|| self.load_rbac()).await
    }

    async fn load_rbac(&self) -> Result<Snapshot, ApiError> {
        let kinds = self.catalog.snapshot();
        let kind = |plural: &str| {
            let kind = kinds.find(api::kinds::RBAC_GROUP, "v1", plural);
            kind.cloned().ok_or_else(|| ApiError::internal(format!("the kinds table has no {plural}")))
        };
        Ok(Snapshot::new(
            self.objects.all(&*kind("clusterroles")?).await?,
            self.objects.all(&*kind("roles")?).await?,
            self.objects.all(&*kind("clusterrolebindings")?).await?,
            self.objects.all(&*kind("rolebindings")?).await?,
        ))
    }

    /// Whom a request speaks for: whoever sent it, or somebody they may stand in for, part by part.
    pub(crate) async fn impersonated(
        &self,
        who: Identity,
        headers: &HeaderMap,
    ) -> Result<Identity, ApiError> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let groups: Vec<String> = headers
            .get_all("impersonate-group")
            .iter()
            .filter_map(|v| v.to_str().ok())
            .map(str::to_owned)
            .collect();
        let Some(username) = text("impersonate-user") else {
            let more = headers.keys().find(|name| name.as_str().starts_with("impersonate-"));
            return match more {
                None => Ok(who),
                Some(name) => {
                    Err(ApiError::bad_request(format!("requested {name} without impersonating a user")))
                }
            };
        };
        let check = |resource: &str, name: &str| Attributes {
            verb: "impersonate".into(),
            resource: resource.into(),
            name: name.into(),
            ..Default::default()
        };
        match account(&username) {
            Some((namespace, name)) => {
                let what = Attributes { namespace: namespace.into(), ..check("serviceaccounts", name) };
                self.authorize(&who, &what).await?;
            }
            None => self.authorize(&who, &check("users", &username)).await?,
        }
        for group in &groups {
            self.authorize(&who, &check("groups", group)).await?;
        }
        let uid = text("impersonate-uid").unwrap_or_default();
        let extra = impersonated_extra(headers);
        let of_identity = |resource: &str, name: &str| Attributes {
            group: "authentication.k8s.io".into(),
            ..check(resource, name)
        };
        if !uid.is_empty() {
            self.authorize(&who, &of_identity("uids", &uid)).await?;
        }
        for (key, values) in &extra {
            for value in values {
                let what = Attributes { subresource: key.clone(), ..of_identity("userextras", value) };
                self.authorize(&who, &what).await?;
            }
        }
        let mut impersonated = Identity { username, uid, groups, extra };
        if let Some((namespace, _)) = account(&impersonated.username)
            && impersonated.groups.is_empty()
        {
            impersonated.groups =
                vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
        if !impersonated.is_in(AUTHENTICATED) {
            impersonated.groups.push(AUTHENTICATED.into());
        }
        crate::audit::impersonated(&impersonated);
        Ok(impersonated)
    }
}

/// Namespace and name of the service account that a user is.
fn account(username: &str) -> Option<(&str, &str)> {
    username.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')
}

/// The extra fields of the user who is to be spoken for: `Impersonate-Extra-<key>`, the key percent-encoded.
fn impersonated_extra(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix("impersonate-extra-"), value.to_str()) {
            extra.entry(percent_decode(key, false)).or_default().push(value.to_owned());
        }
    }
    extra
}
