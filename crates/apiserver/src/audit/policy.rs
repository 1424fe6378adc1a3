//! The policy: which requests leave a trace, and how much of them is kept. Read and checked when the server starts; pure.

use api::yaml;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::Identity;
use crate::auth::rbac::Attributes;

/// How much is kept; each level has what those before it have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

pub const LEVELS: [(Level, &str); 4] = [
    (Level::None, "None"),
    (Level::Metadata, "Metadata"),
    (Level::Request, "Request"),
    (Level::RequestResponse, "RequestResponse"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

const STAGES: &[&str] = &["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];
const GROUP: &str = "audit.k8s.io/";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    #[error("it is not YAML: {0}")]
    Yaml(String),
    #[error("apiVersion: {0:?}: only audit.k8s.io/v1 is read")]
    Version(String),
    #[error("kind: {0:?}: a Policy is wanted")]
    Kind(String),
    #[error("rules: Required value: a policy without rules keeps nothing")]
    NoRules,
    #[error("{field}: {problem}")]
    Field { field: String, problem: String },
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> PolicyError {
    PolicyError::Field { field: field.into(), problem: problem.into() }
}

#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rule {
    level: Level,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What is to be done about one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// Without a file: who did what to which object and how it ended, never what was in it; and nothing of probes.
const DEFAULT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
    {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/metrics", "/openapi/*"]},
    {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
    {"level": "Metadata"}]}"#;

impl Policy {
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let value = yaml::parse_one(text).map_err(|e| PolicyError::Yaml(e.to_string()))?;
        Self::of(&value)
    }

    /// What holds when a place for events is named but no policy.
    pub fn unsaid() -> Self {
        Self::parse(DEFAULT).expect("our own policy can be read, as a test shows")
    }

    fn of(value: &Value) -> Result<Self, PolicyError> {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        if text("apiVersion") != format!("{GROUP}v1") {
            return Err(PolicyError::Version(text("apiVersion")));
        }
        if text("kind") != "Policy" {
            return Err(PolicyError::Kind(text("kind")));
        }
        for (name, field) in value.as_object().into_iter().flatten() {
            let known = match name.as_str() {
                "apiVersion" | "kind" => true,
                "metadata" => field.is_object() || field.is_null(),
                "rules" | "omitStages" => field.is_array() || field.is_null(),
                "omitManagedFields" => field.is_boolean() || field.is_null(),
                _ => return Err(wrong(name.as_str(), "unknown field")),
            };
            if !known {
                return Err(wrong(name.as_str(), format!("Invalid value: {field}: of another type")));
            }
        }
        let given = value["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        if given.is_empty() {
            return Err(PolicyError::NoRules);
        }
        let omit_stages = stages(&value["omitStages"], "omitStages")?;
        let mut rules = Vec::with_capacity(given.len());
        for (index, rule) in given.iter().enumerate() {
            rules.push(parse_rule(rule, &format!("rules[{index}]"))?);
        }
        let omit_managed_fields = value["omitManagedFields"].as_bool().unwrap_or_default();
        Ok(Self { rules, omit_stages, omit_managed_fields })
    }

    /// By the first rule that is about the request. Nobody is known yet where it is refused for that.
    pub fn decide(&self, who: Option<&Identity>, what: &Attributes) -> Decision {
        let rule = self.rules.iter().find(|rule| rule.matches(who, what));
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(rule.into_iter().flat_map(|rule| rule.omit_stages.iter().copied()));
        Decision {
            level: rule.map(|rule| rule.level).unwrap_or_default(),
            omit_stages,
            omit_managed_fields: rule
                .and_then(|rule| rule.omit_managed_fields)
                .unwrap_or(self.omit_managed_fields),
        }
    }
}

fn stages(value: &Value, field: &str) -> Result<Vec<Stage>, PolicyError> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |(index, stage): (usize, &Value)| {
        serde_json::from_value(stage.clone()).map_err(|_| {
            let problem = format!("Invalid value: {stage}: allowed stages are {}", STAGES.join(","));
            wrong(format!("{field}[{index}]"), problem)
        })
    };
    list.iter().enumerate().map(one).collect()
}

fn parse_rule(value: &Value, at: &str) -> Result<Rule, PolicyError> {
    let names: Vec<&str> = LEVELS.iter().map(|(_, name)| *name).collect();
    match &value["level"] {
        Value::String(level) if names.contains(&level.as_str()) => {}
        Value::Null => return Err(wrong(format!("{at}.level"), "Required value")),
        Value::String(level) if level.is_empty() => {
            return Err(wrong(format!("{at}.level"), "Required value"));
        }
        other => {
            let problem = format!(
                "Unsupported value: {other}: supported values: {}",
                names.iter().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ")
            );
            return Err(wrong(format!("{at}.level"), problem));
        }
    }
    stages(&value["omitStages"], &format!("{at}.omitStages"))?;
    let mut value = value.clone();
    if let Value::Object(map) = &mut value {
        map.retain(|_, field| !field.is_null());
    }
    let rule: Rule = serde_json::from_value(value).map_err(|e| wrong(at, e.to_string()))?;
    check_urls(&rule.non_resource_urls, at)?;
    for (index, group) in rule.resources.iter().enumerate() {
        check_group(group, &format!("{at}.resources[{index}]"))?;
    }
    let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if of_resources && !rule.non_resource_urls.is_empty() {
        let problem = "Invalid value: rules cannot apply to both regular resources and non-resource URLs";
        return Err(wrong(format!("{at}.nonResourceURLs"), problem));
    }
    Ok(rule)
}

fn check_urls(urls: &[String], at: &str) -> Result<(), PolicyError> {
    for (index, url) in urls.iter().enumerate().filter(|(_, url)| *url != "*") {
        let field = format!("{at}.nonResourceURLs[{index}]");
        if !url.starts_with('/') {
            let problem =
                format!("Invalid value: {url:?}: non-resource URL rules must begin with a '/' character");
            return Err(wrong(field, problem));
        }
        if url.strip_suffix('*').unwrap_or(url).contains('*') {
            let problem = format!(
                "Invalid value: {url:?}: non-resource URL wildcards '*' must be the final character of the rule"
            );
            return Err(wrong(field, problem));
        }
    }
    Ok(())
}

fn check_group(group: &GroupResources, at: &str) -> Result<(), PolicyError> {
    let name = &group.group;
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if !name.is_empty() && name != "*" && !name.chars().all(letter) {
        let problem =
            format!("Invalid value: {name:?}: a group is a lower case DNS subdomain, without a version");
        return Err(wrong(format!("{at}.group"), problem));
    }
    if !group.resource_names.is_empty() && group.resources.is_empty() {
        let problem = "Invalid value: using resourceNames requires at least one resource";
        return Err(wrong(format!("{at}.resourceNames"), problem));
    }
    Ok(())
}

impl Rule {
    fn matches(&self, who: Option<&Identity>, what: &Attributes) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|item| item == value);
        if !self.users.is_empty() && !who.is_some_and(|who| has(&self.users, &who.username)) {
            return false;
        }
        let in_group = |who: &Identity| who.groups.iter().any(|group| has(&self.user_groups, group));
        if !self.user_groups.is_empty() && !who.is_some_and(in_group) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, &what.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            let here = self.namespaces.is_empty() || has(&self.namespaces, &what.namespace);
            let is_it = self.resources.is_empty() || self.resources.iter().any(|group| group.matches(what));
            return what.is_resource() && here && is_it;
        }
        if !self.non_resource_urls.is_empty() {
            return !what.is_resource() && self.non_resource_urls.iter().any(|url| covers(url, &what.path));
        }
        true
    }
}

fn covers(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => url == path,
    }
}

impl GroupResources {
    fn matches(&self, what: &Attributes) -> bool {
        if self.group != "*" && self.group != what.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.contains(&what.name) {
            return false;
        }
        self.resources.iter().any(|resource| match resource.split_once('/') {
            None if resource == "*" => true,
            None => what.subresource.is_empty() && *resource == what.resource,
            // All subresources of a resource, and itself with them.
            Some((name, "*")) => name == what.resource || name == "*" && !what.subresource.is_empty(),
            Some((name, sub)) => {
                (name == "*" || name == what.resource) && !sub.is_empty() && sub == what.subresource
            }
        })
    }
}

#[cfg(test)]
mod tests;
