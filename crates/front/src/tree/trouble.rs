//! What keeps a pod from running, in its own words, and what to look at or to do next. Pure.

use serde_json::Value;

use super::string;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub message: String,
    /// It does not pass by itself.
    pub stuck: bool,
    /// A command, or a sentence.
    pub next: String,
}

/// Waiting reasons that do not pass by themselves.
const STUCK: [&str; 8] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
pub const OOM_KILLED: &str = "OOMKilled";
pub const UNSCHEDULED: &str = "not scheduled: ";

pub fn of(pod: &Value) -> Option<Trouble> {
    let list = |field: &str| {
        let list = pod.pointer(&format!("/status/{field}")).and_then(Value::as_array);
        list.into_iter().flatten()
    };
    let init = list("initContainerStatuses").map(|status| Container::new(pod, status, true));
    let main = list("containerStatuses").map(|status| Container::new(pod, status, false));
    let troubles: Vec<Trouble> = init.chain(main).filter_map(|container| container.trouble()).collect();
    let worst = troubles.iter().find(|trouble| trouble.stuck).or(troubles.first());
    if let Some(trouble) = worst {
        return Some(trouble.clone());
    }
    let describe = || describe(pod);
    let scheduled = list("conditions").find(|c| c["type"] == "PodScheduled" && c["status"] == "False");
    if let Some(scheduled) = scheduled {
        let message = format!("{UNSCHEDULED}{}", scheduled["message"].as_str().unwrap_or_default());
        return Some(Trouble { message, stuck: false, next: describe() });
    }
    // Evicted, or never taken in by its node.
    let failed = pod.pointer("/status/phase").is_some_and(|phase| phase == "Failed");
    let reason = string(pod, "/status/reason").filter(|_| failed)?;
    let message = match string(pod, "/status/message") {
        Some(message) => format!("{reason}: {message}"),
        None => reason,
    };
    Some(Trouble { message, stuck: true, next: describe() })
}

/// What a probe of a pod that runs and is not ready has found last: `web: Readiness probe failed: …`.
pub fn by_probe(pod: &Value, events: &[Value]) -> Option<String> {
    let uid = string(pod, "/metadata/uid")?;
    let of_it = events.iter().filter(|event| event["involvedObject"]["uid"] == uid.as_str());
    let time = |event: &&Value| string(event, "/lastTimestamp").or_else(|| string(event, "/eventTime"));
    let newest = of_it.max_by_key(time)?;
    let message = string(newest, "/message")?;
    let message = message.lines().next().unwrap_or_default();
    // `spec.containers{web}`
    let place = string(newest, "/involvedObject/fieldPath").unwrap_or_default();
    match place.split_once('{').and_then(|(_, name)| name.strip_suffix('}')) {
        Some(container) => Some(format!("{container}: {message}")),
        None => Some(message.to_owned()),
    }
}

/// `kedge describe -n shop pod web-1`
pub fn describe(pod: &Value) -> String {
    let text = |pointer: &str| string(pod, pointer).unwrap_or_default();
    format!("kedge describe -n {} pod {}", text("/metadata/namespace"), text("/metadata/name"))
}

struct Container<'a> {
    pod: &'a Value,
    status: &'a Value,
    spec: Option<&'a Value>,
    name: &'a str,
    is_init: bool,
}

impl<'a> Container<'a> {
    fn new(pod: &'a Value, status: &'a Value, is_init: bool) -> Self {
        let field = if is_init { "/spec/initContainers" } else { "/spec/containers" };
        let name = status["name"].as_str().unwrap_or_default();
        let specs = pod.pointer(field).and_then(Value::as_array).into_iter().flatten();
        let spec = specs.into_iter().find(|spec| spec["name"] == name);
        Self { pod, status, spec, name, is_init }
    }

    fn text(&self, pointer: &str) -> String {
        string(self.status, pointer).unwrap_or_default()
    }

    fn code(&self, state: &str) -> Option<i64> {
        self.status.pointer(&format!("/{state}/terminated/exitCode")).and_then(Value::as_i64)
    }

    fn trouble(&self) -> Option<Trouble> {
        let reason = self.text("/state/waiting/reason");
        if !reason.is_empty() {
            return (reason != "PodInitializing").then(|| self.waiting(&reason));
        }
        if let Some(code) = self.code("state").filter(|code| *code != 0) {
            let message = format!("{}: {}", self.name, self.ended("state", code));
            let stuck = self.pod["status"]["phase"] == "Failed";
            return Some(Trouble { message, stuck, next: self.after_end("state") });
        }
        // It runs again, until it takes too much again.
        let killed = self.text("/lastState/terminated/reason") == OOM_KILLED && self.status["ready"] != true;
        let code = self.code("lastState").filter(|_| killed)?;
        let message = format!("{}: started again after {}", self.name, self.ended("lastState", code));
        Some(Trouble { message, stuck: false, next: self.after_end("lastState") })
    }

    fn waiting(&self, reason: &str) -> Trouble {
        let mut message = format!("{}: {reason}", self.name);
        let detail = self.text("/state/waiting/message");
        if !detail.is_empty() {
            message += &format!(": {detail}");
        }
        let last = self.text("/lastState/terminated/message");
        let never_ran = self.text("/lastState/terminated/reason") == "StartError" && !last.is_empty();
        match self.code("lastState") {
            // Its log has nothing to say.
            Some(_) if never_ran => message = format!("{}: {reason}: {last}", self.name),
            Some(code) => message += &format!(" ({})", self.ended("lastState", code)),
            None => {}
        }
        let next = match (reason, self.code("lastState")) {
            ("InvalidImageName", _) => format!(
                "write the image of the container {} as REGISTRY/NAME:TAG, the name in small letters; it is {:?}",
                self.name,
                self.image()
            ),
            _ if reason.contains("Image") && self.image().starts_with("localhost/") => {
                format!("kedge build -t {} FOLDER    (or add it to `images:` in kedge.yaml)", self.image())
            }
            (_, Some(_)) if !never_ran => self.after_end("lastState"),
            _ => describe(self.pod),
        };
        Trouble { message, stuck: STUCK.contains(&reason), next }
    }

    fn image(&self) -> &str {
        self.spec.and_then(|spec| spec["image"].as_str()).unwrap_or("IMAGE")
    }

    fn memory(&self) -> Option<String> {
        self.spec.and_then(|spec| string(spec, "/resources/limits/memory"))
    }

    /// How it ended: `it ended with code 3`, or that it was killed and why.
    fn ended(&self, state: &str, code: i64) -> String {
        if self.text(&format!("/{state}/terminated/reason")) != OOM_KILLED {
            return format!("it ended with code {code}");
        }
        match self.memory() {
            Some(limit) => format!("{OOM_KILLED}: it took more memory than its limit of {limit}"),
            None => format!("{OOM_KILLED}: the machine had no memory left for it"),
        }
    }

    /// What it has said tells why it ended; of the one before where another runs, or waits, by now.
    fn after_end(&self, state: &str) -> String {
        let of = |pointer: &str| string(self.pod, pointer).unwrap_or_default();
        let previous = if state == "lastState" { " -p" } else { "" };
        let several =
            self.pod.pointer("/spec/containers").and_then(Value::as_array).is_some_and(|l| l.len() > 1);
        let which = match self.is_init || several {
            true => format!(" -c {}", self.name),
            false => String::new(),
        };
        let log =
            format!("kedge logs -n {}{previous} {}{which}", of("/metadata/namespace"), of("/metadata/name"));
        match self.text(&format!("/{state}/terminated/reason")) == OOM_KILLED && self.memory().is_some() {
            true => format!("{log}    (then raise `resources.limits.memory` of the container {})", self.name),
            false => log,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(phase: &str, field: &str, status: Value) -> Value {
        let container =
            json!({"name": "c", "image": "localhost/shop:v1", "resources": {"limits": {"memory": "64Mi"}}});
        json!({"metadata": {"namespace": "shop", "name": "web-1"}, "spec": {"initContainers": [{"name": "i", "image": "Bad//Name"}], "containers": [container]},
            "status": {"phase": phase, field: [status]}})
    }

    fn check(pod: &Value, message: &str, stuck: bool, next: &str) {
        let wanted = Trouble { message: message.into(), stuck, next: next.into() };
        assert_eq!(of(pod), Some(wanted));
    }

    fn ended(code: i64, reason: &str) -> Value {
        json!({"terminated": {"exitCode": code, "reason": reason}})
    }

    #[test]
    fn what_a_probe_found_last_is_told() {
        let event = |uid: &str, time: &str, message: &str| json!({"involvedObject": {"uid": uid, "fieldPath": "spec.containers{c}"}, "lastTimestamp": time, "message": message});
        let events = [
            event(
                "a",
                "2026-01-01T00:00:02Z",
                "Readiness probe failed: HTTP probe failed with statuscode: 500\nmore",
            ),
            event("a", "2026-01-01T00:00:01Z", "Readiness probe failed: refused"),
            event("b", "2026-01-01T00:00:03Z", "another's"),
        ];
        let pod = |uid: &str| json!({"metadata": {"uid": uid}});
        let told = "c: Readiness probe failed: HTTP probe failed with statuscode: 500";
        assert_eq!(by_probe(&pod("a"), &events).as_deref(), Some(told));
        assert_eq!(by_probe(&pod("c"), &events), None);
    }

    #[test]
    fn the_reason_of_an_end_is_told_with_what_to_do() {
        let crash = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let status =
            |name: &str, state: &Value, last: Value| json!({"name": name, "state": state, "lastState": last});
        let main = "containerStatuses";
        check(
            &pod("Running", main, status("c", &crash, ended(1, "Error"))),
            "c: CrashLoopBackOff (it ended with code 1)",
            true,
            "kedge logs -n shop -p web-1",
        );
        check(
            &pod("Running", main, status("c", &crash, ended(137, OOM_KILLED))),
            "c: CrashLoopBackOff (OOMKilled: it took more memory than its limit of 64Mi)",
            true,
            "kedge logs -n shop -p web-1    (then raise `resources.limits.memory` of the container c)",
        );
        check(
            &pod("Running", main, status("c", &json!({"running": {}}), ended(137, OOM_KILLED))),
            "c: started again after OOMKilled: it took more memory than its limit of 64Mi",
            false,
            "kedge logs -n shop -p web-1    (then raise `resources.limits.memory` of the container c)",
        );
        check(
            &pod("Failed", main, status("c", &ended(3, "Error"), json!({}))),
            "c: it ended with code 3",
            true,
            "kedge logs -n shop web-1",
        );
        check(
            &pod("Pending", "initContainerStatuses", status("i", &crash, ended(2, "Error"))),
            "i: CrashLoopBackOff (it ended with code 2)",
            true,
            "kedge logs -n shop -p web-1 -c i",
        );
        check(
            &pod("Failed", "initContainerStatuses", status("i", &ended(2, "Error"), json!({}))),
            "i: it ended with code 2",
            true,
            "kedge logs -n shop web-1 -c i",
        );
        let waits = |reason: &str| json!({"waiting": {"reason": reason, "message": "why"}});
        check(
            &pod("Pending", "initContainerStatuses", status("i", &waits("InvalidImageName"), json!({}))),
            "i: InvalidImageName: why",
            true,
            "write the image of the container i as REGISTRY/NAME:TAG, the name in small letters; it is \"Bad//Name\"",
        );
        check(
            &pod("Pending", main, status("c", &waits("ErrImagePull"), json!({}))),
            "c: ErrImagePull: why",
            true,
            "kedge build -t localhost/shop:v1 FOLDER    (or add it to `images:` in kedge.yaml)",
        );
        check(
            &pod("Pending", main, status("c", &waits("CreateContainerConfigError"), json!({}))),
            "c: CreateContainerConfigError: why",
            true,
            "kedge describe -n shop pod web-1",
        );
        assert_eq!(of(&pod("Running", main, status("c", &json!({"running": {}}), ended(1, "Error")))), None);
        assert_eq!(of(&pod("Succeeded", main, status("c", &ended(0, "Completed"), json!({})))), None);
        let mut evicted = pod("Failed", main, json!({}));
        evicted["status"] = json!({"phase": "Failed", "reason": "Evicted", "message": "no room"});
        check(&evicted, "Evicted: no room", true, "kedge describe -n shop pod web-1");
    }
}
