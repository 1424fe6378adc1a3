//! Which operations a policy or a binding is about.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{MatchResources, NamedRuleWithOperations};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value as Json;

use crate::kinds::Kind;
use crate::meta;
use crate::selector::Selector;

/// A resource in one of its versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupVersionResource {
    pub group: String,
    pub version: String,
    pub resource: String,
}

impl GroupVersionResource {
    pub fn of(kind: &Kind) -> Self {
        Self {
            group: kind.group.to_string(),
            version: kind.version.to_string(),
            resource: kind.plural.to_string(),
        }
    }
}

/// An operation, as far as it matters to whom it is about.
#[derive(Debug)]
pub struct Subject<'a> {
    pub resource: GroupVersionResource,
    /// Other versions in which the same object is known.
    pub equivalents: Vec<GroupVersionResource>,
    pub subresource: &'a str,
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub operation: &'a str,
    pub name: &'a str,
    /// Empty for what lies in none. A namespace lies in itself.
    pub namespace: &'a str,
    /// Of the namespace; `None` where there is none.
    pub namespace_labels: Option<BTreeMap<String, String>>,
    pub object: &'a Json,
    pub old_object: &'a Json,
}

impl Subject<'_> {
    fn is_namespace(&self) -> bool {
        self.resource.group.is_empty() && self.resource.resource == "namespaces"
    }
}

/// `matchConstraints` of a policy, `matchResources` of a binding.
#[derive(Debug, Clone)]
pub struct Criteria {
    namespaces: Selector,
    objects: Selector,
    rules: Vec<NamedRuleWithOperations>,
    excluded: Vec<NamedRuleWithOperations>,
    /// Rules about another version of a resource count too.
    equivalent: bool,
}

impl Criteria {
    /// Without any, everything matches. The error is of a selector.
    pub fn compile(resources: Option<&MatchResources>) -> Result<Self, String> {
        let given = resources.cloned().unwrap_or_default();
        let selector = |selector: Option<&LabelSelector>| match selector {
            Some(selector) => Selector::from_object(selector).map_err(|error| error.to_string()),
            None => Ok(Selector::everything()),
        };
        Ok(Self {
            namespaces: selector(given.namespace_selector.as_ref())?,
            objects: selector(given.object_selector.as_ref())?,
            rules: given.resource_rules.unwrap_or_default(),
            excluded: given.exclude_resource_rules.unwrap_or_default(),
            equivalent: given.match_policy.as_deref() == Some("Equivalent"),
        })
    }

    /// The resource, in the version that was asked for, if the operation is one of these.
    pub fn matches(&self, subject: &Subject<'_>) -> Option<GroupVersionResource> {
        if !self.namespace_fits(subject) || !self.object_fits(subject) {
            return None;
        }
        if self.find(&self.excluded, subject).is_some() {
            return None;
        }
        if self.rules.is_empty() {
            return Some(subject.resource.clone());
        }
        self.find(&self.rules, subject)
    }

    fn namespace_fits(&self, subject: &Subject<'_>) -> bool {
        match &subject.namespace_labels {
            Some(labels) => self.namespaces.matches(labels),
            // What lies in no namespace is not chosen by namespaces.
            None => true,
        }
    }

    fn object_fits(&self, subject: &Subject<'_>) -> bool {
        if self.objects.is_everything() {
            return true;
        }
        [subject.object, subject.old_object].into_iter().filter(|object| object.is_object()).any(|object| {
            let labels: BTreeMap<&str, &str> = meta::pairs(object, "labels").collect();
            self.objects.matches_by(|key| labels.get(key).copied())
        })
    }

    fn find(&self, rules: &[NamedRuleWithOperations], subject: &Subject<'_>) -> Option<GroupVersionResource> {
        let others = subject.equivalents.iter().filter(|_| self.equivalent);
        let mut candidates = std::iter::once(&subject.resource).chain(others);
        candidates.find(|resource| rules.iter().any(|rule| rule_fits(rule, resource, subject))).cloned()
    }
}

fn lists(list: Option<&Vec<String>>, value: &str) -> bool {
    list.into_iter().flatten().any(|entry| entry == "*" || entry == value)
}

/// Whether a rule is about an operation on a resource, in the version given.
pub fn rule_fits(
    rule: &NamedRuleWithOperations,
    resource: &GroupVersionResource,
    subject: &Subject<'_>,
) -> bool {
    let in_namespace = !subject.is_namespace() && !subject.namespace.is_empty();
    let scope = match rule.scope.as_deref() {
        Some("Namespaced") => in_namespace,
        Some("Cluster") => !in_namespace,
        _ => true,
    };
    let names = rule.resource_names.as_deref().unwrap_or_default();
    scope
        && lists(rule.operations.as_ref(), subject.operation)
        && lists(rule.api_groups.as_ref(), &resource.group)
        && lists(rule.api_versions.as_ref(), &resource.version)
        && rule.resources.iter().flatten().any(|entry| {
            let (name, subresource) = entry.split_once('/').unwrap_or((entry, ""));
            (name == "*" || name == resource.resource)
                && (subresource == "*" || subresource == subject.subresource)
        })
        && (names.is_empty() || names.iter().any(|name| name == subject.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(resources: Json, change: impl FnOnce(&mut Subject<'_>)) -> bool {
        let resources: MatchResources = serde_json::from_value(resources).expect("a match");
        let object = json!({"metadata": {"labels": {"app": "web"}}});
        let resource = |version: &str| GroupVersionResource {
            group: "apps".into(),
            version: version.into(),
            resource: "deployments".into(),
        };
        let mut subject = Subject {
            resource: resource("v1"),
            equivalents: vec![resource("v1beta1")],
            subresource: "",
            operation: "CREATE",
            name: "web",
            namespace: "shop",
            namespace_labels: Some([("env".to_owned(), "prod".to_owned())].into()),
            object: &object,
            old_object: &Json::Null,
        };
        change(&mut subject);
        Criteria::compile(Some(&resources)).expect("selectors").matches(&subject).is_some()
    }

    fn rule(change: Json) -> Json {
        let mut rule = json!({"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]});
        for (key, value) in change.as_object().into_iter().flatten() {
            rule[key] = value.clone();
        }
        rule
    }

    #[test]
    fn every_part_must_fit() {
        let rules = |change: Json| json!({"resourceRules": [rule(change)]});
        for (resources, expected) in [
            (json!({}), true),
            (rules(json!({})), true),
            (rules(json!({"operations": ["UPDATE"]})), false),
            (
                rules(
                    json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}),
                ),
                true,
            ),
            (rules(json!({"resources": ["*/*"]})), true),
            (rules(json!({"resources": ["deployments/status"]})), false),
            (rules(json!({"resources": ["pods", "deployments"]})), true),
            (rules(json!({"scope": "Cluster"})), false),
            (rules(json!({"scope": "Namespaced"})), true),
            (rules(json!({"resourceNames": ["web"]})), true),
            (rules(json!({"resourceNames": ["other"]})), false),
            (rules(json!({"apiVersions": ["v1beta1"]})), false),
            (
                json!({"matchPolicy": "Equivalent", "resourceRules": [rule(json!({"apiVersions": ["v1beta1"]}))]}),
                true,
            ),
            (
                json!({"resourceRules": [rule(json!({}))], "excludeResourceRules": [rule(json!({"resourceNames": ["web"]}))]}),
                false,
            ),
            (json!({"namespaceSelector": {"matchLabels": {"env": "prod"}}}), true),
            (json!({"namespaceSelector": {"matchLabels": {"env": "test"}}}), false),
            (json!({"objectSelector": {"matchLabels": {"app": "web"}}}), true),
            (json!({"objectSelector": {"matchLabels": {"app": "db"}}}), false),
        ] {
            assert_eq!(check(resources.clone(), |_| ()), expected, "{resources}");
        }
        let other = json!({"objectSelector": {"matchLabels": {"app": "db"}}, "namespaceSelector": {"matchLabels": {"env": "x"}}});
        let old = json!({"metadata": {"labels": {"app": "db"}}});
        assert!(check(other, |subject| {
            subject.old_object = Box::leak(Box::new(old));
            subject.namespace_labels = None;
        }));
        let status = json!({"resourceRules": [rule(json!({"resources": ["deployments/*"]}))]});
        assert!(check(status, |subject| subject.subresource = "status"));
    }
}
