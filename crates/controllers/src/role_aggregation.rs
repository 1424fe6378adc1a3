//! Roles that gather others: their rules are written out, for whoever reads the role. What is allowed does not wait for
//! this; the server gathers for itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::selector::Selector;
use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::context::{self, Context};
use crate::meta;

const MANAGER: &str = "clusterrole-aggregation-controller";

pub fn start(context: &Context) -> Vec<Controller> {
    let roles = context.caches.of::<ClusterRole>();
    let reconciler = Roles { context: context.clone(), roles: Arc::clone(&roles) };
    let all = Arc::clone(&roles);
    let controller = Controller::new("clusterroleaggregation", reconciler)
        // Any role may be gathered by any that gathers: there are few of those.
        .watches(&roles, move |_| {
            all.all()
                .iter()
                .filter(|role| role.aggregation_rule.is_some())
                .map(|role| Key::of(&**role))
                .collect()
        });
    vec![controller]
}

struct Roles {
    context: Context,
    roles: Arc<Cache<ClusterRole>>,
}

impl Reconciler for Roles {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(role) = self.roles.get(&key) else { return Ok(Next::OnChange) };
            let Some(rules) = gathered(&role, &self.roles.all()) else { return Ok(Next::OnChange) };
            if role.rules.as_ref() != Some(&rules) {
                let api: Api<ClusterRole> = self.context.cluster_api();
                let patch = json!({"metadata": {"uid": role.metadata.uid}, "rules": rules});
                let params = PatchParams { field_manager: Some(MANAGER.into()), ..Default::default() };
                let written = api.patch(meta::name(&role.metadata), &params, &Patch::Merge(patch)).await;
                context::ignore_missing(written)?;
            }
            Ok(Next::OnChange)
        })
    }
}

/// The rules of every role that one selects, by the names of those, each once. None where it selects none.
fn gathered(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.iter().flatten();
    let selectors: Vec<Selector> = selectors.filter_map(|s| Selector::from_object(s).ok()).collect();
    let chosen: BTreeMap<&str, &Arc<ClusterRole>> = all
        .iter()
        .filter(|other| {
            let labels = other.metadata.labels.clone().unwrap_or_default();
            other.metadata.name != role.metadata.name && selectors.iter().any(|s| s.matches(&labels))
        })
        .map(|other| (meta::name(&other.metadata), other))
        .collect();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in chosen.values().flat_map(|other| other.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, label: &str, verb: &str) -> Arc<ClusterRole> {
        let rules = json!([{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]);
        let role = json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": rules});
        Arc::new(serde_json::from_value(role).expect("a role"))
    }

    #[test]
    fn rules_are_gathered_by_label_in_the_order_of_names() {
        let gathering = json!({"metadata": {"name": "all", "labels": {"to": "x"}}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "x"}}]}});
        let gathering: ClusterRole = serde_json::from_value(gathering).expect("a role");
        let all = [
            role("b", "x", "list"),
            role("a", "x", "get"),
            role("c", "y", "delete"),
            role("d", "x", "get"),
            Arc::new(gathering.clone()),
        ];
        let rules = gathered(&gathering, &all).expect("it gathers");
        assert_eq!(rules.iter().map(|r| r.verbs[0].as_str()).collect::<Vec<_>>(), ["get", "list"]);
        assert_eq!(gathered(&all[0], &all), None);
    }
}
