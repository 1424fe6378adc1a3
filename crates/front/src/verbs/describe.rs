//! `kedge describe`: one object in words, with its events: what a person reads to learn why something does not work.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;

use super::get::{objects, select};
use crate::discovery::Discovery;
use crate::session::Session;
use crate::table::TextTable;
use crate::{output, requests};

/// Show an object in words, with its events
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge describe pod web-6d4b -n shop
  kedge describe deploy/web
  kedge describe nodes")]
pub struct Describe {
    #[arg(value_name = "KIND[/NAME]")]
    kinds: String,
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
}

impl Describe {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let cluster = session.cluster().await?;
        let discovery = Discovery::read(&cluster.client).await?;
        let mut found = Vec::new();
        for selection in select(&discovery, &self.kinds, &self.names)? {
            let path = |name| requests::path(&selection.resource, Some(&cluster.namespace), name);
            if selection.names.is_empty() {
                let query = self.selector.as_deref().map(|selector| ("labelSelector", selector));
                let path = requests::with_query(&path(None), query.as_slice());
                found.extend(objects(&cluster.client, &selection.resource, &path).await?);
            }
            for name in &selection.names {
                found.push(requests::get(&cluster.client, &path(Some(name))).await?);
            }
        }
        if found.is_empty() {
            bail!("nothing found in namespace {}; name another with -n", cluster.namespace);
        }
        let now = base::time::now();
        let mut texts = Vec::new();
        for object in &found {
            texts.push(describe(object, &events(&cluster.client, object).await?, now));
        }
        output::text(&texts.join("\n\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What was said about an object, oldest first.
async fn events(client: &Client, object: &Value) -> anyhow::Result<Vec<Value>> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let mut list = requests::get(client, &format!("/api/v1/namespaces/{namespace}/events")).await?;
    let mut events = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    events.retain(|event| is_about(event, object));
    events.sort_by_key(|event| last_seen(event).map(str::to_owned));
    Ok(events)
}

/// Agents tell of their node by its name, which is all they know of it when they begin.
fn is_about(event: &Value, object: &Value) -> bool {
    let (about, own) = (&event["involvedObject"], &object["metadata"]);
    about["uid"] == own["uid"] || object["kind"] == "Node" && about["kind"] == "Node" && about["uid"] == own["name"]
}

fn last_seen(event: &Value) -> Option<&str> {
    let fields = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    fields.iter().find_map(|field| event.pointer(field).and_then(Value::as_str))
}

fn describe(object: &Value, events: &[Value], now: Timestamp) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let mut out = String::new();
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            out += &format!("{:<14}{value}\n", format!("{name}:"));
        }
    };
    field("Name", text("/metadata/name"));
    field("Namespace", text("/metadata/namespace"));
    field("Kind", &format!("{} ({})", text("/kind"), text("/apiVersion")));
    field("Created", &age_of(text("/metadata/creationTimestamp"), now));
    field("Deleted", &age_of(text("/metadata/deletionTimestamp"), now));
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owner = |owner: &Value| {
        format!("{}/{}", owner["kind"].as_str().unwrap_or_default(), owner["name"].as_str().unwrap_or_default())
    };
    field("Owned by", &owners.into_iter().flatten().map(owner).collect::<Vec<_>>().join(", "));
    field("Labels", &pairs(object.pointer("/metadata/labels")));
    field("Annotations", &pairs(object.pointer("/metadata/annotations")));
    match text("/kind") {
        "Pod" => out += &pod(object, now),
        _ => out += &rest(object),
    }
    out += &conditions(object);
    out += &event_table(events, now);
    out
}

fn age_of(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => format!("{time} ({} ago)", base::time::human_age(now.as_second() - then.as_second())),
        Err(_) => String::new(),
    }
}

/// One a line, in line with the first.
fn pairs(map: Option<&Value>) -> String {
    let map = map.and_then(Value::as_object).into_iter().flatten();
    // What was applied is shown already, as the object itself.
    let map = map.filter(|(name, _)| *name != base::constants::annotations::LAST_APPLIED);
    let lines = map.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    lines.collect::<Vec<_>>().join(&format!("\n{:14}", ""))
}

/// Everything but metadata and conditions, as YAML with secrets hidden.
fn rest(object: &Value) -> String {
    let mut out = String::new();
    let secret = object["kind"] == "Secret";
    for (name, value) in object.as_object().into_iter().flatten() {
        if ["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
            continue;
        }
        let mut value = value.clone();
        if let Some(status) = value.as_object_mut() {
            status.remove("conditions");
        }
        if let Some(data) = value.as_object_mut().filter(|_| secret && (name == "data" || name == "stringData")) {
            for hidden in data.values_mut() {
                let length = hidden.as_str().map_or(0, |text| text.trim_end_matches('=').len() * 3 / 4);
                *hidden = format!("{length} bytes").into();
            }
        }
        if value.as_object().is_some_and(serde_json::Map::is_empty) {
            continue;
        }
        let mut title = name.clone();
        title[..1].make_ascii_uppercase();
        match value {
            Value::Object(_) | Value::Array(_) => {
                out += &format!("{title}:\n");
                api::yaml::to_string(&value).lines().for_each(|line| out += &format!("  {line}\n"));
            }
            other => out += &format!("{title}: {}", api::yaml::to_string(&other)),
        }
    }
    out
}

fn pod(object: &Value, now: Timestamp) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let mut out = String::new();
    for (name, pointer) in [
        ("Status", "/status/phase"),
        ("Reason", "/status/reason"),
        ("Message", "/status/message"),
        ("Node", "/spec/nodeName"),
        ("IP", "/status/podIP"),
        ("QoS", "/status/qosClass"),
        ("Account", "/spec/serviceAccountName"),
        ("Priority", "/spec/priorityClassName"),
    ] {
        if !text(pointer).is_empty() {
            out += &format!("{:<14}{}\n", format!("{name}:"), text(pointer));
        }
    }
    for (title, spec, status) in [
        ("Init containers", "/spec/initContainers", "/status/initContainerStatuses"),
        ("Containers", "/spec/containers", "/status/containerStatuses"),
    ] {
        let list = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        let statuses = list(status);
        let containers = list(spec);
        if !containers.is_empty() {
            out += &format!("{title}:\n");
        }
        for container in &containers {
            let status = statuses.iter().find(|status| status["name"] == container["name"]);
            out += &self::container(container, status, now);
        }
    }
    let volumes = object.pointer("/spec/volumes").cloned().unwrap_or_default();
    if volumes.as_array().is_some_and(|volumes| !volumes.is_empty()) {
        out += "Volumes:\n";
        api::yaml::to_string(&volumes).lines().for_each(|line| out += &format!("  {line}\n"));
    }
    out
}

fn container(spec: &Value, status: Option<&Value>, now: Timestamp) -> String {
    let mut out = format!("  {}:\n", spec["name"].as_str().unwrap_or_default());
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            out += &format!("    {:<12}{value}\n", format!("{name}:"));
        }
    };
    let words = |value: &Value| {
        let list = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        list.collect::<Vec<_>>().join(" ")
    };
    line("Image", spec["image"].as_str().unwrap_or_default().to_owned());
    line("Command", words(&spec["command"]));
    line("Args", words(&spec["args"]));
    let ports = spec["ports"].as_array().into_iter().flatten().map(|port| {
        format!("{}/{}", port["containerPort"], port["protocol"].as_str().unwrap_or("TCP"))
    });
    line("Ports", ports.collect::<Vec<_>>().join(", "));
    if let Some(status) = status {
        line("Ready", status["ready"].to_string());
        line("Restarts", status["restartCount"].to_string());
        line("State", state(&status["state"], now));
        line("Before", state(&status["lastState"], now));
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if spec[probe].is_object() {
            line(&probe.replace("Probe", "").replacen(char::is_lowercase, &probe[..1].to_uppercase(), 1), one_line(&spec[probe]));
        }
    }
    for kind in ["requests", "limits"] {
        let resources = spec["resources"][kind].as_object().into_iter().flatten();
        let resources = resources.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
        line(if kind == "requests" { "Requests" } else { "Limits" }, resources.collect::<Vec<_>>().join(", "));
    }
    for variable in spec["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().unwrap_or_default();
        let value = variable["value"].as_str().map_or_else(|| one_line(&variable["valueFrom"]), str::to_owned);
        line("Env", format!("{name}={value}"));
    }
    for mount in spec["volumeMounts"].as_array().into_iter().flatten() {
        let text = |field: &str| mount[field].as_str().unwrap_or_default();
        let how = if mount["readOnly"] == true { " (read-only)" } else { "" };
        line("Mount", format!("{} from {}{how}", text("mountPath"), text("name")));
    }
    out
}

fn one_line(value: &Value) -> String {
    value.to_string()
}

fn state(state: &Value, now: Timestamp) -> String {
    let Some((name, detail)) = state.as_object().and_then(|state| state.iter().next()) else {
        return String::new();
    };
    let mut out = name.clone();
    let text = |field: &str| detail[field].as_str().unwrap_or_default();
    if let Some(code) = detail["exitCode"].as_i64() {
        out += &format!(" with code {code}");
    }
    for part in [text("reason"), text("message")] {
        if !part.is_empty() {
            out += &format!(", {part}");
        }
    }
    let since = if text("finishedAt").is_empty() { text("startedAt") } else { text("finishedAt") };
    if !since.is_empty() {
        out += &format!(", since {}", age_of(since, now));
    }
    out
}

fn conditions(object: &Value) -> String {
    let list = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    if list.is_empty() {
        return String::new();
    }
    let mut table = TextTable::new(["  TYPE", "STATUS", "REASON", "MESSAGE"]);
    for condition in &list {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        table.row([format!("  {}", text("type")), text("status"), text("reason"), text("message")]);
    }
    format!("Conditions:\n{}", table.render())
}

fn event_table(events: &[Value], now: Timestamp) -> String {
    if events.is_empty() {
        return "Events: none\n".to_owned();
    }
    let mut table = TextTable::new(["  TYPE", "REASON", "AGE", "FROM", "MESSAGE"]);
    for event in events {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let then = last_seen(event).and_then(|time| time.parse::<Timestamp>().ok());
        let mut age = then.map(|then| base::time::human_age(now.as_second() - then.as_second())).unwrap_or_default();
        let count = event.pointer("/series/count").or(event.get("count")).and_then(Value::as_i64).unwrap_or(1);
        if count > 1 {
            age += &format!(" (x{count})");
        }
        let from = match text("/source/component") {
            component if component.is_empty() => text("/reportingComponent"),
            component => component,
        };
        table.row([format!("  {}", text("/type")), text("/reason"), age, from, text("/message")]);
    }
    format!("Events:\n{}", table.render())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().expect("a time")
    }

    #[test]
    fn events_are_an_objects_own() {
        let object = |kind: &str| json!({"kind": kind, "metadata": {"name": "node-1", "uid": "u"}});
        let event = |kind: &str, uid: &str| json!({"involvedObject": {"kind": kind, "uid": uid}});
        assert!(is_about(&event("Pod", "u"), &object("Pod")));
        assert!(!is_about(&event("Pod", "node-1"), &object("Pod")));
        assert!(is_about(&event("Node", "node-1"), &object("Node")) && is_about(&event("Node", "u"), &object("Node")));
        assert!(!is_about(&event("Node", "node-2"), &object("Node")));
    }

    #[test]
    fn a_pod_is_told_in_words() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": "shop", "creationTimestamp": "2026-11-20T11:00:00Z", "labels": {"app": "web", "tier": "front"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web"}]},
            "spec": {"nodeName": "node-1", "containers": [{"name": "web", "image": "localhost/shop:v1", "args": ["web"], "ports": [{"containerPort": 8080}],
                "env": [{"name": "A", "value": "b"}], "readinessProbe": {"httpGet": {"path": "/readyz"}}, "resources": {"limits": {"memory": "64Mi"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]},
            "status": {"phase": "Running", "podIP": "10.42.0.2", "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
                "containerStatuses": [{"name": "web", "ready": false, "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                    "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-20T11:59:00Z"}}}]}});
        let event = json!({"type": "Warning", "reason": "BackOff", "count": 4, "lastTimestamp": "2026-11-20T11:58:00Z",
            "source": {"component": "kubelet"}, "message": "Back-off restarting failed container"});
        expect![[r#"
            Name:         web-1
            Namespace:    shop
            Kind:         Pod (v1)
            Created:      2026-11-20T11:00:00Z (60m ago)
            Owned by:     ReplicaSet/web
            Labels:       app=web
                          tier=front
            Status:       Running
            Node:         node-1
            IP:           10.42.0.2
            Containers:
              web:
                Image:      localhost/shop:v1
                Args:       web
                Ports:      8080/TCP
                Ready:      false
                Restarts:   3
                State:      waiting, CrashLoopBackOff, back-off
                Before:     terminated with code 1, Error, since 2026-11-20T11:59:00Z (60s ago)
                Readiness:  {"httpGet":{"path":"/readyz"}}
                Limits:     memory=64Mi
                Env:        A=b
                Mount:      /data from data
            Conditions:
              TYPE    STATUS   REASON               MESSAGE
              Ready   False    ContainersNotReady
            Events:
              TYPE      REASON    AGE       FROM      MESSAGE
              Warning   BackOff   2m (x4)   kubelet   Back-off restarting failed container
        "#]].assert_eq(&describe(&pod, &[event], now()));
    }

    #[test]
    fn a_secret_stays_one() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "store"}, "data": {"password": "aHVudGVyMg=="}});
        let text = describe(&secret, &[], now());
        expect![[r#"
            Name:         store
            Kind:         Secret (v1)
            Data:
              password: 7 bytes
            Type: Opaque
            Events: none
        "#]].assert_eq(&text);
    }
}
