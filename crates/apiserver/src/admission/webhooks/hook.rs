//! One webhook of a configuration, compiled: what it is about, where it is, and what its failure means.

use std::sync::Arc;
use std::time::Duration;

use api::kinds::Kind;
use api::meta;
use api::policy::{GroupVersionResource, MatchConditions, rule_fits};
use api::selector::Selector;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, NamedRuleWithOperations, RuleWithOperations, ValidatingWebhook,
    WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Seen;
use crate::admission::attributes::Attributes;
use crate::backend::{Backend, ServiceReference};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Mutating,
    Validating,
}

pub struct Hook {
    /// As it is called in what the client is told.
    pub name: String,
    /// The configuration that it stands in.
    pub configuration: String,
    rules: Vec<NamedRuleWithOperations>,
    /// Rules about another version of a resource count too.
    equivalent: bool,
    pub namespace_selector: Selector,
    object_selector: Selector,
    /// Whether operations go on when the hook fails.
    pub ignore_failure: bool,
    pub bears_dry_run: bool,
    pub timeout: Duration,
    /// The version of `AdmissionReview` it is sent.
    pub review_version: &'static str,
    /// Whether a mutating hook wants to see what later ones have changed.
    pub reinvoke: bool,
    /// What must hold beside the rules, or what is wrong with the expressions.
    pub conditions: Result<MatchConditions, String>,
    /// Where it is, or what is wrong with where it is said to be.
    pub backend: Result<Backend, String>,
}

/// What the two kinds of hooks have in common.
struct Given {
    name: String,
    client_config: WebhookClientConfig,
    rules: Option<Vec<RuleWithOperations>>,
    namespace_selector: Option<LabelSelector>,
    object_selector: Option<LabelSelector>,
    failure_policy: Option<String>,
    match_policy: Option<String>,
    side_effects: String,
    timeout_seconds: Option<i32>,
    versions: Vec<String>,
    reinvocation_policy: Option<String>,
    conditions: Option<Vec<MatchCondition>>,
}

impl From<MutatingWebhook> for Given {
    fn from(hook: MutatingWebhook) -> Self {
        Self {
            name: hook.name,
            client_config: hook.client_config,
            rules: hook.rules,
            namespace_selector: hook.namespace_selector,
            object_selector: hook.object_selector,
            failure_policy: hook.failure_policy,
            match_policy: hook.match_policy,
            side_effects: hook.side_effects,
            timeout_seconds: hook.timeout_seconds,
            versions: hook.admission_review_versions,
            reinvocation_policy: hook.reinvocation_policy,
            conditions: hook.match_conditions,
        }
    }
}

impl From<ValidatingWebhook> for Given {
    fn from(hook: ValidatingWebhook) -> Self {
        Self {
            name: hook.name,
            client_config: hook.client_config,
            rules: hook.rules,
            namespace_selector: hook.namespace_selector,
            object_selector: hook.object_selector,
            failure_policy: hook.failure_policy,
            match_policy: hook.match_policy,
            side_effects: hook.side_effects,
            timeout_seconds: hook.timeout_seconds,
            versions: hook.admission_review_versions,
            reinvocation_policy: None,
            conditions: hook.match_conditions,
        }
    }
}

#[derive(Deserialize)]
struct Configuration<T> {
    #[serde(default = "Vec::new")]
    webhooks: Vec<T>,
}

/// The hooks of one configuration, in their order.
pub fn compile(configuration: &Value, role: Role) -> Vec<Hook> {
    match role {
        Role::Mutating => all::<MutatingWebhook>(configuration),
        Role::Validating => all::<ValidatingWebhook>(configuration),
    }
}

fn all<T: DeserializeOwned + Into<Given>>(configuration: &Value) -> Vec<Hook> {
    match serde_json::from_value::<Configuration<T>>(configuration.clone()) {
        Ok(found) => {
            let hook = |hook: T| Hook::new(hook.into(), meta::name(configuration));
            found.webhooks.into_iter().map(hook).collect()
        }
        Err(error) => {
            tracing::error!(%error, name = meta::name(configuration), "a webhook configuration cannot be read");
            Vec::new()
        }
    }
}

const TIMEOUT_SECONDS: i32 = 10;

impl Hook {
    fn new(given: Given, configuration: &str) -> Self {
        let selector = |s: Option<LabelSelector>| {
            // A selector that validation let through is readable; one that is not must not let anything pass by.
            s.map_or_else(Selector::everything, |s| Selector::from_object(&s).unwrap_or_default())
        };
        let v1 = given.versions.iter().find(|v| matches!(v.as_str(), "v1" | "v1beta1"));
        let seconds = given.timeout_seconds.unwrap_or(TIMEOUT_SECONDS).clamp(1, 30);
        Self {
            backend: backend(&given.client_config),
            conditions: conditions(given.conditions.as_deref().unwrap_or_default()),
            name: given.name,
            configuration: configuration.to_owned(),
            rules: given.rules.unwrap_or_default().into_iter().map(named).collect(),
            equivalent: given.match_policy.as_deref() != Some("Exact"),
            namespace_selector: selector(given.namespace_selector),
            object_selector: selector(given.object_selector),
            ignore_failure: given.failure_policy.as_deref() == Some("Ignore"),
            bears_dry_run: matches!(given.side_effects.as_str(), "None" | "NoneOnDryRun"),
            timeout: Duration::from_secs(u64::from(seconds.unsigned_abs())),
            review_version: match v1.map(String::as_str) {
                Some("v1beta1") => "admission.k8s.io/v1beta1",
                _ => "admission.k8s.io/v1",
            },
            reinvoke: given.reinvocation_policy.as_deref() == Some("IfNeeded"),
        }
    }

    /// The version that the hook has a rule for: that of the request, or else another one of the same resource.
    pub fn chosen(
        &self,
        attributes: &Attributes<'_>,
        own: &Arc<Kind>,
        equivalents: impl FnOnce() -> Vec<Arc<Kind>>,
    ) -> Option<Arc<Kind>> {
        let fits = |kind: &&Arc<Kind>| {
            let resource = GroupVersionResource::of(kind);
            let subject = attributes.subject(resource);
            self.rules.iter().any(|rule| rule_fits(rule, &subject.resource, &subject))
        };
        if fits(&own) {
            return Some(Arc::clone(own));
        }
        let others = if self.equivalent { equivalents() } else { Vec::new() };
        others.iter().find(fits).cloned()
    }

    /// An update is seen when either of its two states is selected.
    pub fn object_selector_matches(&self, seen: &Seen<'_>) -> bool {
        if self.object_selector.is_everything() {
            return true;
        }
        let labels = |object: &Value| {
            let pairs = meta::pairs(object, "labels").map(|(k, v)| (k.to_owned(), v.to_owned()));
            self.object_selector.matches(&pairs.collect())
        };
        seen.object.is_some_and(labels) || seen.old.is_some_and(labels)
    }
}

/// As policies' rules are, which may name objects too.
fn named(rule: RuleWithOperations) -> NamedRuleWithOperations {
    NamedRuleWithOperations {
        api_groups: rule.api_groups,
        api_versions: rule.api_versions,
        operations: rule.operations,
        resource_names: None,
        resources: rule.resources,
        scope: rule.scope,
    }
}

fn conditions(given: &[MatchCondition]) -> Result<MatchConditions, String> {
    let pairs: Vec<(&str, &str)> = given.iter().map(|c| (c.name.as_str(), c.expression.as_str())).collect();
    MatchConditions::compile(&pairs)
        .map_err(|faults| faults.into_iter().map(|f| f.detail).collect::<Vec<_>>().join(", "))
}

fn backend(config: &WebhookClientConfig) -> Result<Backend, String> {
    let service = config.service.as_ref().map(|s| ServiceReference {
        namespace: s.namespace.clone(),
        name: s.name.clone(),
        port: s.port,
        path: s.path.clone(),
    });
    let authority = config.ca_bundle.as_ref().map(|b| b.0.as_slice());
    Backend::new(config.url.as_deref(), service, authority, false, None).map_err(|e| e.to_string())
}

/// A JSON patch as a hook sends it.
pub fn decode_patch(text: &str) -> Result<Value, String> {
    let bytes = STANDARD.decode(text).map_err(|e| format!("the patch is not base64: {e}"))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("the patch is not JSON: {e}"))
}
