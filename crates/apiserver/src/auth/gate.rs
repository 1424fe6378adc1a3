//! The gate every request passes: whom it speaks for, and whether they may. The authorizer of nodes is asked before the
//! roles; what neither allows is refused.

use std::sync::Arc;

use ::http::HeaderMap;
use api::status::{ApiError, Resource};

use super::impersonation::{self, Check};
use super::rbac::{Attributes, Snapshot};
use super::{Identity, MASTERS, node};
use crate::{Context, Server};

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
        let why = why_not(&*self.rbac().await?, who, what);
        Err(refused(who, what, &why))
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
        this: &Attributes,
    ) -> Result<Identity, ApiError> {
        let Some(wanted) = impersonation::wanted(headers)? else { return Ok(who) };
        let mut refused = None;
        for mode in impersonation::modes(&who, &wanted) {
            match self.may_speak(&who, mode.checks(&wanted, this)).await {
                Ok(()) => {
                    let impersonated = mode.becomes(wanted);
                    crate::audit::impersonated(&impersonated, mode.constraint());
                    return Ok(impersonated);
                }
                // Of several refusals the first is told: that of the narrowest way.
                Err(error) => _ = refused.get_or_insert(error),
            }
        }
        Err(refused.unwrap_or_else(|| ApiError::internal("there is no way to speak for anybody")))
    }

    async fn may_speak(&self, who: &Identity, checks: Vec<Check>) -> Result<(), ApiError> {
        for Check { all, each, never } in checks {
            if let Some((what, why)) = never {
                return Err(refused(who, &what, &why));
            }
            if let Some(all) = all
                && self.may(who, &all).await?
            {
                continue;
            }
            for what in &each {
                self.authorize(who, what).await?;
            }
        }
        Ok(())
    }
}

fn refused(who: &Identity, what: &Attributes, why: &str) -> ApiError {
    let mut refusal = what.refusal(who);
    if !why.is_empty() {
        refusal = format!("{refusal}: {why}");
    }
    match what.is_resource() {
        true => {
            let resource = Resource { group: &what.group, plural: &what.resource };
            ApiError::forbidden(&resource, &what.name, &refusal)
        }
        false => ApiError::forbidden_path(format!("forbidden: {refusal}")),
    }
}
