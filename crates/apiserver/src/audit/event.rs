//! One event, as `audit.k8s.io/v1` spells it.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::policy::{Level, Stage};
use crate::auth::Identity;
use crate::auth::rbac::Attributes;

/// A longer name of a program is cut.
const USER_AGENT_MAX_BYTES: usize = 1024;
const CUT: &str = "...TRUNCATED";
/// Says of an event that its objects were left out.
const TRUNCATED: &str = "audit.k8s.io/truncated";

#[derive(Debug, Default, Serialize)]
pub struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl From<&Identity> for User {
    fn from(who: &Identity) -> Self {
        let Identity { username, uid, groups, extra } = who.clone();
        Self { username, uid, groups, extra }
    }
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// By which right somebody speaks for another.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationMetadata {
    pub impersonation_constraint: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    kind: &'static str,
    api_version: &'static str,
    pub level: Level,
    #[serde(rename = "auditID")]
    audit_id: String,
    pub stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    pub user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_metadata: Option<AuthenticationMetadata>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Box<RawValue>>,
    request_received_timestamp: String,
    pub stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is known of a request before anybody looks at it.
pub struct Received {
    pub audit_id: String,
    pub uri: String,
    pub user_agent: String,
    pub source_ips: Vec<String>,
    pub api_version: String,
    pub what: Attributes,
    pub at: Timestamp,
}

impl Event {
    pub fn new(received: &Received, level: Level) -> Self {
        let Received { audit_id, uri, source_ips, api_version, what, at, .. } = received;
        let object_ref = what.is_resource().then(|| ObjectReference {
            resource: what.resource.clone(),
            namespace: what.namespace.clone(),
            name: what.name.clone(),
            api_group: what.group.clone(),
            api_version: api_version.clone(),
            subresource: what.subresource.clone(),
            ..Default::default()
        });
        let time = base::time::rfc3339_micros(*at);
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level,
            audit_id: audit_id.clone(),
            stage: Stage::RequestReceived,
            request_uri: uri.clone(),
            verb: what.verb.clone(),
            user: User::default(),
            impersonated_user: None,
            authentication_metadata: None,
            source_ips: source_ips.clone(),
            user_agent: cut(&received.user_agent),
            object_ref,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: time.clone(),
            stage_timestamp: time,
            annotations: BTreeMap::new(),
        }
    }

    pub fn to_json(&self) -> serde_json::Result<Bytes> {
        serde_json::to_vec(self).map(Bytes::from)
    }
}

fn cut(user_agent: &str) -> String {
    if user_agent.len() <= USER_AGENT_MAX_BYTES {
        return user_agent.to_owned();
    }
    let mut end = USER_AGENT_MAX_BYTES;
    while !user_agent.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", &user_agent[..end])
}

/// An event that is too large, without its objects; `None` where that does not help.
pub fn truncated(line: &[u8], max_bytes: usize) -> Option<Bytes> {
    let mut event: serde_json::Map<String, Value> = serde_json::from_slice(line).ok()?;
    event.remove("requestObject");
    event.remove("responseObject");
    let annotations = event.entry("annotations").or_insert_with(|| Value::Object(Default::default()));
    annotations[TRUNCATED] = "true".into();
    let shorter = serde_json::to_vec(&event).ok()?;
    (shorter.len() <= max_bytes).then(|| Bytes::from(shorter))
}

/// What an answer was, as the event keeps it: a `Status` without what says that it is one.
pub fn response_status(code: u16, body: Option<&Value>) -> Value {
    let is_status = |v: &&Value| v["kind"] == "Status" && v["apiVersion"] == "v1";
    let mut status = body.filter(is_status).cloned().unwrap_or_else(|| serde_json::json!({"metadata": {}}));
    if let Value::Object(map) = &mut status {
        map.remove("kind");
        map.remove("apiVersion");
        map.entry("metadata").or_insert_with(|| Value::Object(Default::default()));
        map.insert("code".into(), code.into());
    }
    status
}

/// An object, a list or a table without who owns which of its fields.
pub fn without_managed_fields(object: &mut Value) {
    let drop_from = |object: &mut Value| {
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.remove("managedFields");
        }
    };
    drop_from(object);
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(drop_from);
    }
    if let Some(rows) = object.get_mut("rows").and_then(Value::as_array_mut) {
        rows.iter_mut().filter_map(|row| row.get_mut("object")).for_each(drop_from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_too_large_loses_its_objects_and_says_so() {
        let line =
            json!({"level": "Request", "requestObject": {"a": "x".repeat(500)}, "annotations": {"k": "v"}});
        let short = truncated(line.to_string().as_bytes(), 200).expect("small enough");
        let short: Value = serde_json::from_slice(&short).expect("JSON");
        assert_eq!(short, json!({"level": "Request", "annotations": {"k": "v", TRUNCATED: "true"}}));
        assert_eq!(truncated(json!({"requestURI": "x".repeat(300)}).to_string().as_bytes(), 200), None);
    }

    #[test]
    fn the_names_of_programs_are_bounded() {
        assert_eq!(cut("kubectl/v1.36"), "kubectl/v1.36");
        let long = cut(&"ä".repeat(1000));
        assert!(long.len() <= USER_AGENT_MAX_BYTES + CUT.len() && long.ends_with(CUT), "{long}");
    }

    #[test]
    fn managed_fields_go_wherever_they_are() {
        let object = || json!({"metadata": {"name": "a", "managedFields": []}});
        let mut list =
            json!({"items": [object()], "rows": [{"object": object()}], "metadata": {"managedFields": []}});
        without_managed_fields(&mut list);
        let bare = json!({"metadata": {"name": "a"}});
        assert_eq!(list, json!({"items": [bare], "rows": [{"object": bare}], "metadata": {}}));
    }
}
