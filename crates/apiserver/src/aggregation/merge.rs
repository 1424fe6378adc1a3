//! What remote servers serve, put into our own discovery and OpenAPI.

use ::http::StatusCode;
use ::http::header::{CACHE_CONTROL, CONTENT_LENGTH, ETAG};
use api::status::ApiError;
use serde_json::{Value, json};

use super::{Heard, Remote, Remotes};
use crate::Server;
use crate::http::body::{self, full};
use crate::http::respond::{self, Answer};

/// Our own lists are far smaller.
const OWN_LIMIT_BYTES: usize = 64 << 20;

/// A version's entry in aggregated discovery, from the server's own list of resources.
pub fn discovered(list: &Value, remote: &Remote) -> Value {
    let mut resources: Vec<Value> = Vec::new();
    for entry in list["resources"].as_array().into_iter().flatten() {
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        let or = |given: &str, own: &str| if given.is_empty() { own.to_owned() } else { given.to_owned() };
        let kind = json!({"group": or(text("group"), &remote.group), "version": or(text("version"), &remote.version), "kind": text("kind")});
        if let Some((parent, subresource)) = text("name").split_once('/') {
            let sub = json!({"subresource": subresource, "responseKind": kind, "verbs": entry["verbs"]});
            if let Some(parent) = resources.iter_mut().find(|r| r["resource"] == parent)
                && let Value::Object(parent) = parent
                && let Value::Array(subs) = parent.entry("subresources").or_insert_with(|| json!([]))
            {
                subs.push(sub);
            }
            continue;
        }
        let scope = if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut resource = json!({"resource": text("name"), "responseKind": kind, "scope": scope,
            "singularResource": or(text("singularName"), &text("kind").to_lowercase()), "verbs": entry["verbs"]});
        for field in ["shortNames", "categories"] {
            if let Some(value) = entry.get(field) {
                resource[field] = value.clone();
            }
        }
        resources.push(resource);
    }
    json!({"version": remote.version, "resources": resources})
}

impl Remotes {
    /// Groups with their versions in the order of their priority, as aggregated discovery lists them.
    fn groups(&self, heard: impl Fn(&Remote) -> Heard) -> Vec<Value> {
        let mut remotes: Vec<_> = self.0.values().collect();
        remotes.sort_by_key(|r| (-r.group_priority, r.group.clone(), -r.version_priority, r.version.clone()));
        let mut groups: Vec<Value> = Vec::new();
        for remote in remotes {
            let heard = heard(remote);
            let Some(mut version) = heard.discovery else { continue };
            version["freshness"] = if heard.available { "Current" } else { "Stale" }.into();
            match groups.last_mut().filter(|g| g["metadata"]["name"] == *remote.group) {
                Some(group) => {
                    if let Some(versions) = group["versions"].as_array_mut() {
                        versions.push(version);
                    }
                }
                None => groups.push(json!({
                    "metadata": {"name": remote.group, "creationTimestamp": null}, "versions": [version]})),
            }
        }
        groups
    }
}

impl Server {
    /// Our own answer to a path with what remote servers have to add.
    pub(crate) async fn merged(
        &self,
        remotes: &Remotes,
        path: &str,
        own: Result<Answer, ApiError>,
    ) -> Result<Answer, ApiError> {
        let path = path.trim_end_matches('/');
        if let Some(group) = path.strip_prefix("/apis/") {
            let ours = own.as_ref().is_ok_and(|answer| answer.status().is_success());
            return match self.remote_group(remotes, group) {
                Some(group) if !ours => Ok(respond::json(StatusCode::OK, &group)),
                _ => own,
            };
        }
        let answer = own?;
        if answer.status() != StatusCode::OK {
            return Ok(answer);
        }
        let (mut parts, body) = answer.into_parts();
        let read = body::read(body, OWN_LIMIT_BYTES).await;
        let bytes = read.map_err(|_| ApiError::internal("our own discovery cannot be read"))?;
        let value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
        // It is no longer what these were said of.
        for name in [ETAG, CACHE_CONTROL, CONTENT_LENGTH] {
            parts.headers.remove(name);
        }
        let merged = self.merge_discovery(remotes, path, value).to_string();
        Ok(Answer::from_parts(parts, full(merged)))
    }

    /// Adds the groups of remote servers to an answer of ours to `path`, in whichever form it is.
    fn merge_discovery(&self, remotes: &Remotes, path: &str, mut answer: Value) -> Value {
        let groups = remotes.groups(|remote| self.aggregation.heard(remote));
        match path {
            "/apis" => {
                let legacy = answer["kind"] == "APIGroupList";
                let field = if legacy { "groups" } else { "items" };
                if let Some(list) = answer[field].as_array_mut() {
                    for group in groups {
                        add(list, group, legacy);
                    }
                }
            }
            "/openapi/v3" => {
                for remote in remotes.0.values() {
                    if let Some(url) = self.aggregation.heard(remote).openapi {
                        let path = format!("apis/{}/{}", remote.group, remote.version);
                        answer["paths"][path] = json!({"serverRelativeURL": url});
                    }
                }
            }
            _ => {}
        }
        answer
    }

    /// The APIGroup that only remote servers have, as `/apis/<group>` answers it.
    fn remote_group(&self, remotes: &Remotes, group: &str) -> Option<Value> {
        let groups = remotes.groups(|remote| self.aggregation.heard(remote));
        let found = groups.iter().find(|g| g["metadata"]["name"] == group)?;
        let mut found = legacy_group(found);
        found["kind"] = "APIGroup".into();
        found["apiVersion"] = "v1".into();
        Some(found)
    }
}

fn add(list: &mut Vec<Value>, group: Value, legacy: bool) {
    let name = group["metadata"]["name"].clone();
    let group = if legacy { legacy_group(&group) } else { group };
    let own = |g: &&mut Value| if legacy { g["name"] == name } else { g["metadata"]["name"] == name };
    match list.iter_mut().find(own) {
        // A group of which we serve some versions ourselves.
        Some(existing) => {
            let more = group["versions"].as_array().cloned().unwrap_or_default();
            if let Some(versions) = existing["versions"].as_array_mut() {
                versions.extend(more);
            }
        }
        None => list.push(group),
    }
}

fn legacy_group(group: &Value) -> Value {
    let name = group["metadata"]["name"].as_str().unwrap_or_default();
    let versions = group["versions"].as_array().into_iter().flatten();
    let versions: Vec<Value> = versions
        .filter_map(|v| v["version"].as_str())
        .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{BackendError, ServiceReference};

    #[test]
    fn a_list_of_resources_becomes_aggregated_discovery() {
        let remote = Remote {
            name: "v1.wardle.example".into(),
            group: "wardle.example".into(),
            version: "v1".into(),
            group_priority: 2000,
            version_priority: 200,
            service: ServiceReference::default(),
            backend: Err(BackendError::NoPlace),
        };
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"]},
        ]});
        let kind = json!({"group": "wardle.example", "version": "v1", "kind": "Flunder"});
        assert_eq!(
            discovered(&list, &remote),
            json!({"version": "v1", "resources": [{"resource": "flunders", "responseKind": kind, "scope": "Namespaced",
                "singularResource": "flunder", "verbs": ["get"], "shortNames": ["fl"],
                "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["update"]}]}]})
        );
    }
}
