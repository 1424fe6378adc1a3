//! Which flow schema a request belongs to, and which flow of it (pure).

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

use crate::auth::Identity;
use crate::auth::rbac::Attributes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinguisher {
    /// All requests of the schema are one flow.
    None,
    User,
    Namespace,
}

/// A schema as requests are held against it.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub name: String,
    pub uid: String,
    pub level: String,
    pub precedence: i32,
    pub distinguisher: Distinguisher,
    rules: Vec<PolicyRulesWithSubjects>,
}

impl Matcher {
    pub fn new(schema: &FlowSchema) -> Self {
        let spec = schema.spec.clone().unwrap_or_default();
        let distinguisher = match spec.distinguisher_method.as_ref().map(|m| m.type_.as_str()) {
            Some("ByUser") => Distinguisher::User,
            Some("ByNamespace") => Distinguisher::Namespace,
            _ => Distinguisher::None,
        };
        Self {
            name: schema.metadata.name.clone().unwrap_or_default(),
            uid: schema.metadata.uid.clone().unwrap_or_default(),
            level: spec.priority_level_configuration.name,
            precedence: spec.matching_precedence.unwrap_or(0),
            distinguisher,
            rules: spec.rules.unwrap_or_default(),
        }
    }

    pub fn matches(&self, who: &Identity, what: &Attributes) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| is_subject(subject, who))
                && match what.is_resource() {
                    true => rule.resource_rules.iter().flatten().any(|rule| resource_matches(rule, what)),
                    false => rule.non_resource_rules.iter().flatten().any(|rule| path_matches(rule, what)),
                }
        })
    }

    /// Whose turn it is within the schema.
    pub fn flow<'a>(&self, who: &'a Identity, what: &'a Attributes) -> &'a str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &who.username,
            Distinguisher::Namespace => &what.namespace,
        }
    }
}

/// The number a flow is dealt its queues by.
pub fn flow_hash(schema: &str, flow: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, flow).hash(&mut hasher);
    hasher.finish()
}

/// In the order in which they are asked.
pub fn sort(matchers: &mut [Matcher]) {
    matchers.sort_by(|a, b| a.precedence.cmp(&b.precedence).then_with(|| a.name.cmp(&b.name)));
}

fn is_subject(subject: &Subject, who: &Identity) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|u| u.name == "*" || u.name == who.username),
        "Group" => subject.group.as_ref().is_some_and(|g| g.name == "*" || who.is_in(&g.name)),
        "ServiceAccount" => {
            let account = who.username.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':'));
            subject.service_account.as_ref().zip(account).is_some_and(|(wanted, (namespace, name))| {
                wanted.namespace == namespace && (wanted.name == "*" || wanted.name == name)
            })
        }
        _ => false,
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn resource_matches(rule: &ResourcePolicyRule, what: &Attributes) -> bool {
    let resource = |wanted: &String| match what.subresource.as_str() {
        _ if wanted == "*" => true,
        "" => *wanted == what.resource,
        subresource => wanted.split_once('/') == Some((&what.resource, subresource)),
    };
    has(&rule.verbs, &what.verb)
        && rule.resources.iter().any(resource)
        && has(&rule.api_groups, &what.group)
        && match what.namespace.as_str() {
            "" => rule.cluster_scope == Some(true),
            namespace => has(rule.namespaces.as_deref().unwrap_or_default(), namespace),
        }
}

fn path_matches(rule: &NonResourcePolicyRule, what: &Attributes) -> bool {
    // What lies below a path belongs to it, with a star and without.
    let below = |wanted: &String| {
        let prefix = wanted.strip_suffix('*').unwrap_or(wanted);
        let rest = what.path.strip_prefix(prefix);
        wanted == "*"
            || *wanted == what.path
            || rest.is_some_and(|r| prefix.ends_with('/') || r.starts_with('/'))
    };
    has(&rule.verbs, &what.verb) && rule.non_resource_urls.iter().any(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::flowcontrol;

    fn matchers() -> Vec<Matcher> {
        let mut all: Vec<Matcher> = flowcontrol::schemas()
            .into_iter()
            .map(|schema| Matcher::new(&serde_json::from_value(schema).expect("a FlowSchema")))
            .collect();
        sort(&mut all);
        all
    }

    fn what(text: &str) -> Attributes {
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            [verb, path] => Attributes { verb: (*verb).into(), path: (*path).into(), ..Default::default() },
            [verb, group, resource, namespace] => {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let none = |text: &str| text.replace('-', "");
                Attributes {
                    verb: (*verb).into(),
                    group: none(group),
                    resource: resource.into(),
                    subresource: subresource.into(),
                    namespace: none(namespace),
                    ..Default::default()
                }
            }
            _ => panic!("{text}"),
        }
    }

    fn check(user: &str, groups: &[&str], request: &str, schema: &str, flow: &str) {
        let (who, what) = (Identity::new(user, groups), what(request));
        let all = matchers();
        let found = all.iter().find(|m| m.matches(&who, &what)).expect("a schema for everybody");
        assert_eq!((found.name.as_str(), found.flow(&who, &what)), (schema, flow), "{user} {request}");
    }

    #[test]
    fn requests_find_the_schema_that_the_original_gives_them() {
        let account = |name: &str| format!("system:serviceaccount:{name}");
        let accounts = ["system:serviceaccounts"];
        check("root", &["system:masters"], "get - pods a", "exempt", "");
        check("jane", &[], "get /livez", "probes", "");
        check("jane", &[], "get /livez/etcd", "probes", "");
        check("jane", &[], "get /livezz", "global-default", "jane");
        check("jane", &[], "list - pods -", "global-default", "jane");
        check("jane", &[], "post /livez", "global-default", "jane");
        check(
            "system:node:n",
            &["system:nodes"],
            "update coordination.k8s.io leases a",
            "system-node-high",
            "system:node:n",
        );
        check(
            "system:node:n",
            &["system:nodes"],
            "patch - nodes/status -",
            "system-node-high",
            "system:node:n",
        );
        check("system:node:n", &["system:nodes"], "get - nodes/proxy -", "system-nodes", "system:node:n");
        check(
            "system:node:n",
            &["system:nodes"],
            "list coordination.k8s.io leases -",
            "system-nodes",
            "system:node:n",
        );
        check(
            "system:kube-scheduler",
            &[],
            "update coordination.k8s.io leases a",
            "system-leader-election",
            "system:kube-scheduler",
        );
        check("system:kube-scheduler", &[], "create - pods/binding a", "kube-scheduler", "a");
        check(
            "system:kube-controller-manager",
            &[],
            "list apps replicasets -",
            "kube-controller-manager",
            "",
        );
        check(
            &account("kube-system:x"),
            &accounts,
            "get coordination.k8s.io leases a",
            "system-leader-election",
            &account("kube-system:x"),
        );
        check(&account("kube-system:x"), &accounts, "get - pods b", "kube-system-service-accounts", "b");
        check(
            &account("kube-systems:x"),
            &accounts,
            "get - pods b",
            "service-accounts",
            &account("kube-systems:x"),
        );
        let nobody = Identity::anonymous();
        let all = matchers();
        let found = all.iter().find(|m| m.matches(&nobody, &what("get /version")));
        assert_eq!(found.map(|m| m.name.as_str()), Some("global-default"));
    }

    #[test]
    fn flows_of_the_same_name_in_two_schemas_are_two() {
        assert_ne!(flow_hash("a", "x"), flow_hash("b", "x"));
        assert_ne!(flow_hash("a", "x"), flow_hash("a", "y"));
        assert_eq!(flow_hash("a", "x"), flow_hash("a", "x"));
    }
}
