//! Role-based access control: a snapshot of all roles and bindings, and the decision over it (pure).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::{Identity, MASTERS};

/// Rights that are told of one by one, at most.
const TOLD_MAX: usize = 200;

/// What a request wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub verb: String,
    /// Empty for a request that is not about a resource.
    pub resource: String,
    pub subresource: String,
    pub group: String,
    pub namespace: String,
    pub name: String,
    /// The path, for such a request.
    pub path: String,
    /// What a list or a watch is limited to: fields and the one value each must have.
    pub fields: Vec<(String, String)>,
}

impl Attributes {
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }

    fn resource_with_subresource(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }

    /// Why it was refused, in the words clients know.
    pub fn refusal(&self, who: &Identity) -> String {
        let user = &who.username;
        if !self.is_resource() {
            return format!("User {user:?} cannot {} path {:?}", self.verb, self.path);
        }
        let resource = self.resource_with_subresource();
        let group = &self.group;
        let place = match self.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!("User {user:?} cannot {} resource {resource:?} in API group {group:?} {place}", self.verb)
    }
}

/// All roles and bindings at some moment.
#[derive(Default)]
pub struct Snapshot {
    cluster_roles: HashMap<String, Vec<PolicyRule>>,
    roles: HashMap<(String, String), Vec<PolicyRule>>,
    cluster_bindings: Vec<Binding>,
    bindings: HashMap<String, Vec<Binding>>,
}

struct Binding {
    name: String,
    subjects: Vec<Subject>,
    role: RoleRef,
}

impl Snapshot {
    pub fn new(
        cluster_roles: Vec<ClusterRole>,
        roles: Vec<Role>,
        cluster_bindings: Vec<ClusterRoleBinding>,
        bindings: Vec<RoleBinding>,
    ) -> Self {
        let mut this = Self::default();
        for role in roles {
            let key = (role.metadata.namespace.unwrap_or_default(), role.metadata.name.unwrap_or_default());
            this.roles.insert(key, role.rules.unwrap_or_default());
        }
        for binding in cluster_bindings {
            this.cluster_bindings.push(Binding {
                name: binding.metadata.name.unwrap_or_default(),
                subjects: binding.subjects.unwrap_or_default(),
                role: binding.role_ref,
            });
        }
        for binding in bindings {
            let namespace = binding.metadata.namespace.unwrap_or_default();
            this.bindings.entry(namespace).or_default().push(Binding {
                name: binding.metadata.name.unwrap_or_default(),
                subjects: binding.subjects.unwrap_or_default(),
                role: binding.role_ref,
            });
        }
        for role in &cluster_roles {
            let mut seen = HashSet::new();
            let rules = gathered(role, &cluster_roles, &mut seen);
            this.cluster_roles.insert(role.metadata.name.clone().unwrap_or_default(), rules);
        }
        this
    }

    pub fn allows(&self, who: &Identity, what: &Attributes) -> bool {
        who.is_in(MASTERS) || self.rules_of(who, &what.namespace).any(|rule| rule_allows(rule, what))
    }

    /// Every rule that holds for somebody in a namespace (empty: only those that hold everywhere).
    pub fn rules_of<'a>(
        &'a self,
        who: &'a Identity,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a PolicyRule> {
        let everywhere = self.cluster_bindings.iter().filter(|b| subject(&b.subjects, who, "").is_some());
        let everywhere = everywhere.flat_map(|b| self.rules("", &b.role));
        let here = self.bindings.get(namespace).into_iter().flatten();
        let here = here.filter(move |b| subject(&b.subjects, who, namespace).is_some());
        everywhere.chain(here.flat_map(move |b| self.rules(namespace, &b.role)))
    }

    /// Which binding allows something, in the words that events of the audit have.
    pub fn why(&self, who: &Identity, what: &Attributes) -> Option<String> {
        let namespace = what.namespace.as_str();
        let everywhere = self.cluster_bindings.iter().map(|binding| (binding, ""));
        let here = self.bindings.get(namespace).into_iter().flatten().map(|binding| (binding, namespace));
        everywhere.chain(here).find_map(|(binding, namespace)| {
            let subject = subject(&binding.subjects, who, namespace)?;
            let role = &binding.role;
            self.rules(namespace, role).iter().find(|rule| rule_allows(rule, what))?;
            let (kind, name) = match namespace {
                "" => ("ClusterRoleBinding", binding.name.clone()),
                namespace => ("RoleBinding", format!("{}/{namespace}", binding.name)),
            };
            let to = match subject.namespace.as_deref().filter(|_| subject.kind == "ServiceAccount") {
                None if subject.kind == "ServiceAccount" => format!("{}/{namespace}", subject.name),
                Some(namespace) => format!("{}/{namespace}", subject.name),
                None => subject.name.clone(),
            };
            let (role_kind, role_name, subject_kind) = (&role.kind, &role.name, &subject.kind);
            Some(format!(
                "RBAC: allowed by {kind} {name:?} of {role_kind} {role_name:?} to {subject_kind} {to:?}"
            ))
        })
    }

    /// Roles that are bound to somebody and are not there, as the original tells of them.
    pub fn faults(&self, who: &Identity, namespace: &str) -> Option<String> {
        let everywhere = self.cluster_bindings.iter().map(|binding| (binding, ""));
        let here = self.bindings.get(namespace).into_iter().flatten().map(|binding| (binding, namespace));
        let lost = everywhere.chain(here).filter_map(|(binding, namespace)| {
            subject(&binding.subjects, who, namespace)?;
            let RoleRef { kind, name, .. } = &binding.role;
            let is_lost = self.role_rules(namespace, &binding.role).is_none();
            is_lost.then(|| format!("{}.rbac.authorization.k8s.io {name:?} not found", kind.to_lowercase()))
        });
        let lost: BTreeSet<String> = lost.collect();
        let lost: Vec<String> = lost.into_iter().collect();
        match lost.as_slice() {
            [] => None,
            [one] => Some(format!("RBAC: {one}")),
            many => Some(format!("RBAC: [{}]", many.join(", "))),
        }
    }

    fn rules<'a>(&'a self, namespace: &str, role: &RoleRef) -> &'a [PolicyRule] {
        self.role_rules(namespace, role).unwrap_or_default()
    }

    /// The rules of the role that a binding points to, if it exists.
    pub fn role_rules(&self, namespace: &str, role: &RoleRef) -> Option<&[PolicyRule]> {
        let found = match role.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&role.name),
            _ => self.roles.get(&(namespace.to_owned(), role.name.clone())),
        };
        found.map(Vec::as_slice)
    }

    /// What `rules` grant that somebody does not hold, as the original tells it: nobody may give more than they have.
    pub fn not_held(&self, who: &Identity, namespace: &str, rules: &[PolicyRule]) -> Vec<String> {
        if who.is_in(MASTERS) {
            return Vec::new();
        }
        let held: Vec<&PolicyRule> = self.rules_of(who, namespace).collect();
        let wanted = rules.iter().flat_map(|rule| single_requests(rule, namespace));
        let missing = wanted.filter(|what| !held.iter().any(|rule| rule_allows(rule, what)));
        // What differs by its verb alone is told together, but of paths.
        let mut verbs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for what in missing {
            let verb = format!("{:?}", what.verb);
            let told = match (what.is_resource(), what.name.as_str()) {
                (false, _) => format!("NonResourceURLs:[{:?}], Verbs:[{verb}]", what.path),
                (true, name) => {
                    let names =
                        if name.is_empty() { String::new() } else { format!(", ResourceNames:[{name:?}]") };
                    format!(
                        "APIGroups:[{:?}], Resources:[{:?}]{names}",
                        what.group,
                        what.resource_with_subresource()
                    )
                }
            };
            let all = verbs.entry(told).or_default();
            if what.is_resource() && !all.contains(&verb) {
                all.push(verb);
            }
        }
        let line = |(told, verbs): (String, Vec<String>)| match verbs.as_slice() {
            [] => format!("{{{told}}}"),
            verbs => format!("{{{told}, Verbs:[{}]}}", verbs.join(" ")),
        };
        let mut lines: Vec<String> = verbs.into_iter().map(line).collect();
        lines.sort();
        if let Some(more) = lines.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
            lines.truncate(TOLD_MAX);
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

/// A role's own rules and those of every role that it selects, and that those select in turn; each role once, also where
/// they select each other.
fn gathered<'a>(
    role: &'a ClusterRole,
    all: &'a [ClusterRole],
    seen: &mut HashSet<&'a str>,
) -> Vec<PolicyRule> {
    if !seen.insert(role.metadata.name.as_deref().unwrap_or_default()) {
        return Vec::new();
    }
    let mut rules = role.rules.clone().unwrap_or_default();
    let selectors = role.aggregation_rule.iter().flat_map(|a| a.cluster_role_selectors.iter().flatten());
    let selectors: Vec<_> = selectors.filter_map(|s| api::selector::Selector::from_object(s).ok()).collect();
    if selectors.is_empty() {
        return rules;
    }
    for other in all {
        let labels = other.metadata.labels.clone().unwrap_or_default();
        if selectors.iter().any(|s| s.matches(&labels)) {
            for rule in gathered(other, all, seen) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    rules
}

/// The subject that somebody is.
fn subject<'a>(subjects: &'a [Subject], who: &Identity, binding_namespace: &str) -> Option<&'a Subject> {
    subjects.iter().find(|subject| match subject.kind.as_str() {
        "User" => subject.name == who.username,
        "Group" => who.is_in(&subject.name),
        "ServiceAccount" => {
            let namespace =
                subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(binding_namespace);
            let rest = who.username.strip_prefix("system:serviceaccount:");
            rest.and_then(|r| r.split_once(':')) == Some((namespace, subject.name.as_str()))
        }
        _ => false,
    })
}

fn has(list: &Option<Vec<String>>, wanted: &str) -> bool {
    list.iter().flatten().any(|item| item == "*" || item == wanted)
}

pub fn rule_allows(rule: &PolicyRule, what: &Attributes) -> bool {
    if !rule.verbs.iter().any(|v| v == "*" || *v == what.verb) {
        return false;
    }
    if !what.is_resource() {
        return rule.non_resource_urls.iter().flatten().any(|url| match url.strip_suffix('*') {
            Some(prefix) => what.path.starts_with(prefix),
            None => *url == what.path,
        });
    }
    let resource = what.resource_with_subresource();
    let of_any = format!("*/{}", what.subresource);
    let resources = rule
        .resources
        .iter()
        .flatten()
        .any(|r| r == "*" || *r == resource || !what.subresource.is_empty() && *r == of_any);
    let names = rule.resource_names.as_deref().unwrap_or_default();
    has(&rule.api_groups, &what.group) && resources && (names.is_empty() || names.contains(&what.name))
}

/// How many single requests rules come to.
pub fn breadth(rules: &[PolicyRule]) -> usize {
    let count = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
    let of = |rule: &PolicyRule| {
        let resources = count(&rule.api_groups).saturating_mul(count(&rule.resources));
        let named = resources.saturating_mul(count(&rule.resource_names).max(1));
        rule.verbs.len().saturating_mul(named.saturating_add(count(&rule.non_resource_urls)))
    };
    rules.iter().map(of).fold(0, usize::saturating_add)
}

/// A rule taken apart into the single requests it allows; wildcards stay what they are.
fn single_requests(rule: &PolicyRule, namespace: &str) -> Vec<Attributes> {
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for path in rule.non_resource_urls.iter().flatten() {
            out.push(Attributes { verb: verb.clone(), path: path.clone(), ..Default::default() });
        }
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let names = rule
                    .resource_names
                    .clone()
                    .filter(|n| !n.is_empty())
                    .unwrap_or_else(|| vec![String::new()]);
                out.extend(names.into_iter().map(|name| Attributes {
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.to_owned(),
                    subresource: subresource.to_owned(),
                    namespace: namespace.to_owned(),
                    name,
                    ..Default::default()
                }));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn snapshot() -> Snapshot {
        let role =
            |name: &str, rules| json!({"metadata": {"name": name, "labels": {"to": "edit"}}, "rules": rules});
        let cluster_roles = json!([
            role("reader", json!([{"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}])),
            role("one", json!([{"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"], "verbs": ["*"]}])),
            role("paths", json!([{"nonResourceURLs": ["/healthz", "/api/*"], "verbs": ["get"]}])),
            {"metadata": {"name": "edit"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "edit"}}]}},
        ]);
        let bindings = json!([{"metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "sa"}, {"kind": "User", "name": "jane"}]}]);
        let cluster_bindings = json!([
            {"metadata": {"name": "c"}, "roleRef": {"kind": "ClusterRole", "name": "one"}, "subjects": [{"kind": "Group", "name": "g"}]},
            {"metadata": {"name": "d"}, "roleRef": {"kind": "ClusterRole", "name": "paths"}, "subjects": [{"kind": "User", "name": "jane"}]},
            {"metadata": {"name": "e"}, "roleRef": {"kind": "ClusterRole", "name": "edit"}, "subjects": [{"kind": "User", "name": "ed"}]},
        ]);
        fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
            serde_json::from_value(value).expect("objects")
        }
        Snapshot::new(parse(cluster_roles), Vec::new(), parse(cluster_bindings), parse(bindings))
    }

    fn request(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Default::default()
        }
    }

    #[test]
    fn only_what_is_bound_is_allowed() {
        let rbac = snapshot();
        let jane = Identity::new("jane", &[]);
        let account = Identity::new("system:serviceaccount:a:sa", &[]);
        let member = Identity::new("x", &["g"]);
        assert!(rbac.allows(&jane, &request("get", "", "pods", "a", "p")));
        assert!(rbac.allows(&account, &request("get", "", "pods/log", "a", "p")));
        assert!(!rbac.allows(&account, &request("get", "", "pods/exec", "a", "p")));
        assert!(!rbac.allows(&jane, &request("get", "", "pods", "b", "p")), "another namespace");
        assert!(!rbac.allows(&jane, &request("delete", "", "pods", "a", "p")), "another verb");
        assert!(rbac.allows(&member, &request("patch", "apps", "deployments", "any", "web")));
        assert!(!rbac.allows(&member, &request("patch", "apps", "deployments", "any", "other")));
        assert!(!rbac.allows(&member, &request("list", "apps", "deployments", "any", "")));
        let path = |path: &str| Attributes { verb: "get".into(), path: path.into(), ..Default::default() };
        assert!(rbac.allows(&jane, &path("/api/v1")));
        assert!(!rbac.allows(&jane, &path("/metrics")));
        assert!(rbac.allows(&Identity::new("ed", &[]), &request("get", "", "pods", "z", "")), "aggregated");
        assert!(rbac.allows(&Identity::new("root", &[MASTERS]), &path("/metrics")));
    }

    #[test]
    fn nobody_can_give_more_than_they_have() {
        let rbac = snapshot();
        let rules: Vec<PolicyRule> =
            serde_json::from_value(json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]))
                .expect("rules");
        let wider: Vec<PolicyRule> =
            serde_json::from_value(json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]))
                .expect("rules");
        let jane = Identity::new("jane", &[]);
        assert!(rbac.not_held(&jane, "a", &rules).is_empty());
        assert!(!rbac.not_held(&jane, "a", &wider).is_empty());
        assert!(!rbac.not_held(&jane, "b", &rules).is_empty());
    }
}
