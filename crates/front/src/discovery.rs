//! Which kinds the cluster has, and which of them a word on the command line means.

use anyhow::{Context, bail};
use base::nearest::nearest;
use kube::Client;
use serde_json::Value;

use crate::requests;

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
    pub namespaced: bool,
}

impl Resource {
    /// `deployment.apps`, as objects are named in answers.
    pub fn label(&self) -> String {
        let singular =
            if self.singular.is_empty() { self.kind.to_lowercase() } else { self.singular.clone() };
        if self.group.is_empty() { singular } else { format!("{singular}.{}", self.group) }
    }

    fn is_called(&self, word: &str) -> bool {
        self.plural == word
            || self.singular == word
            || self.kind.eq_ignore_ascii_case(word)
            || self.short_names.iter().any(|name| name == word)
    }
}

/// All kinds, the preferred version of each group first.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    resources: Vec<Resource>,
}

impl Discovery {
    pub async fn read(client: &Client) -> anyhow::Result<Self> {
        let (core, groups) = futures::future::try_join(
            requests::get_as(client, "/api", AGGREGATED),
            requests::get_as(client, "/apis", AGGREGATED),
        )
        .await
        .context("cannot learn which kinds the cluster has")?;
        Ok(Self { resources: [core, groups].iter().flat_map(resources).collect() })
    }

    /// What a word means: `deploy`, `deployments`, `Deployment`, `deployments.apps`, `deployments.v1.apps`.
    pub fn find(&self, word: &str) -> anyhow::Result<&Resource> {
        let lower = word.to_lowercase();
        let (name, rest) = lower.split_once('.').unwrap_or((&lower, ""));
        let in_group = |r: &&Resource| {
            rest.is_empty()
                || r.group == rest
                || rest.strip_prefix(&format!("{}.", r.version)).is_some_and(|group| group == r.group)
                || (r.group.is_empty() && r.version == rest)
        };
        let found = self.resources.iter().find(|r| r.is_called(name) && in_group(r));
        found.with_context(|| {
            let near = nearest(name, self.resources.iter().map(|r| r.plural.as_str()));
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            format!("the cluster has no kind {word:?}{near}")
        })
    }

    /// All that a word means: one kind, several separated by commas, or a category such as `all`.
    pub fn find_all(&self, words: &str) -> anyhow::Result<Vec<Resource>> {
        let mut found = Vec::new();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let of_category = |r: &&Resource| r.categories.iter().any(|c| c == word);
            let category: Vec<Resource> = self.resources.iter().filter(of_category).cloned().collect();
            match self.find(word) {
                Ok(resource) => found.push(resource.clone()),
                Err(_) if !category.is_empty() => found.extend(category),
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() {
            bail!("name a kind, such as `pods`");
        }
        Ok(found)
    }

    /// The kind of an object by its own words.
    pub fn of(&self, object: &Value) -> anyhow::Result<&Resource> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() || kind.is_empty() {
            bail!("an object has no apiVersion or no kind");
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let is_it = |r: &&Resource| r.group == group && r.version == version && r.kind == kind;
        self.resources.iter().find(is_it).with_context(|| {
            format!(
                "no matches for kind {kind:?} in version {api_version:?}; apply its CustomResourceDefinition first, or mend kind and apiVersion"
            )
        })
    }

    pub fn by_group(&self, group: &str, kind: &str) -> Option<&Resource> {
        self.resources.iter().find(|r| r.group == group && r.kind == kind)
    }
}

fn resources(list: &Value) -> Vec<Resource> {
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let words = |value: &Value| -> Vec<String> {
        array(value).iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let mut found = Vec::new();
    for group in array(&list["items"]) {
        let group_name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in array(&group["versions"]) {
            for resource in array(&version["resources"]) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                found.push(Resource {
                    group: group_name.to_owned(),
                    version: text(&version["version"]),
                    kind: text(&resource["responseKind"]["kind"]),
                    plural: text(&resource["resource"]),
                    singular: text(&resource["singularResource"]),
                    short_names: words(&resource["shortNames"]),
                    categories: words(&resource["categories"]),
                    verbs: words(&resource["verbs"]),
                    namespaced: resource["scope"] == "Namespaced",
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn discovery() -> Discovery {
        let resource = |plural: &str, kind: &str, short: &[&str], categories: &[&str], scope: &str| {
            json!({"resource": plural, "responseKind": {"kind": kind}, "scope": scope, "shortNames": short,
                "singularResource": kind.to_lowercase(), "categories": categories, "verbs": ["get", "list"]})
        };
        let core = json!({"items": [{"versions": [{"version": "v1", "resources": [
            resource("pods", "Pod", &["po"], &["all"], "Namespaced"),
            resource("events", "Event", &["ev"], &[], "Namespaced"),
            resource("nodes", "Node", &["no"], &[], "Cluster"),
        ]}]}]});
        let apps = json!({"items": [
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
                resource("deployments", "Deployment", &["deploy"], &["all"], "Namespaced")]}]},
            {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [
                resource("events", "Event", &["ev"], &[], "Namespaced")]}]},
        ]});
        Discovery { resources: [core, apps].iter().flat_map(resources).collect() }
    }

    #[test]
    fn words_mean_kinds() {
        let all = discovery();
        for word in ["deploy", "deployment", "Deployments", "deployments.apps", "deployments.v1.apps"] {
            assert_eq!(
                all.find(word).map(Resource::label).ok().as_deref(),
                Some("deployment.apps"),
                "{word}"
            );
        }
        assert_eq!(all.find("events").expect("found").group, "", "the core group comes first");
        assert_eq!(all.find("events.events.k8s.io").expect("found").group, "events.k8s.io");
        assert_eq!(all.find("pods.v1").expect("found").plural, "pods");
        assert_eq!(all.find_all("all").expect("found").len(), 2);
        assert_eq!(all.find_all("po,no").expect("found").len(), 2);
        let error = all.find("podz").expect_err("refused").to_string();
        assert_eq!(error, "the cluster has no kind \"podz\"; did you mean pods?");
        assert!(all.of(&json!({"apiVersion": "apps/v1", "kind": "Deployment"})).is_ok());
        assert!(all.of(&json!({"apiVersion": "v2", "kind": "Pod"})).is_err());
    }
}
