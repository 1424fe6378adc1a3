//! What shims that run today have on disk and say on their sockets, as it was recorded: whoever upgrades has such shims, and they do
//! not change with the program. A test that fails here says that they would no longer be understood. Never change a recording;
//! add to them what is new.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::own::state::ContainerRecord;
use crate::protocol::{Reply, Request, SandboxRecord};
use crate::runtime::{ContainerStatus, RuntimeError};

/// What is read of it, after it was seen that nothing of it is lost, and that more than it is passed over.
fn check<T: Serialize + DeserializeOwned>(recorded: &str) -> T {
    let value: Value = serde_json::from_str(recorded).expect("a recording");
    let read: T = serde_json::from_str(recorded).unwrap_or_else(|e| panic!("{recorded}: {e}"));
    let written = serde_json::to_value(&read).expect("is written");
    assert_within("", &value, &written);
    let mut later = value;
    add_unheard_of(&mut later);
    let read_later: T = serde_json::from_value(later.clone()).unwrap_or_else(|e| panic!("{later}: {e}"));
    assert_eq!(serde_json::to_value(&read_later).expect("is written"), written);
    read
}

/// All that was recorded is written again as it was; there may be more.
fn assert_within(path: &str, recorded: &Value, written: &Value) {
    match (recorded, written) {
        (Value::Object(recorded), Value::Object(written)) => {
            for (key, value) in recorded {
                let written = written.get(key).unwrap_or_else(|| panic!("{path}.{key} is lost"));
                assert_within(&format!("{path}.{key}"), value, written);
            }
        }
        (Value::Array(recorded), Value::Array(written)) => {
            assert_eq!(recorded.len(), written.len(), "{path}");
            for (at, (recorded, written)) in recorded.iter().zip(written).enumerate() {
                assert_within(&format!("{path}[{at}]"), recorded, written);
            }
        }
        _ => assert_eq!(recorded, written, "{path}"),
    }
}

/// A field that some later program may add, in all that are no maps of users' words.
fn add_unheard_of(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_map = |key: &str| ["labels", "annotations", "sysctls"].contains(&key);
            fields.iter_mut().filter(|(key, _)| !is_map(key)).for_each(|(_, value)| add_unheard_of(value));
            // What names a variant has that name alone.
            let variant = |key: &str| ["tmpfs", "localhost", "id", "name", "group"].contains(&key);
            if !(fields.len() == 1 && fields.keys().all(|key| variant(key))) {
                fields.insert("unheard_of".into(), Value::from(1));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(add_unheard_of),
        _ => {}
    }
}

#[test]
fn what_lies_on_disk_is_understood() {
    let sandbox: SandboxRecord = check(include_str!("recorded/sandbox.json"));
    assert_eq!(sandbox.container_cgroup("c41d"), "kedge-123456/burstable/pod5d0c1b0e/c41d");
    check::<ContainerRecord>(include_str!("recorded/container.json"));
    check::<ContainerStatus>(include_str!("recorded/status.json"));
}

/// One more here needs a line in the recordings and its name in the test below: which is why this match names all.
fn name_of_request(request: &Request) -> &'static str {
    match request {
        Request::Subscribe => "subscribe",
        Request::Create { .. } => "create",
        Request::Start { .. } => "start",
        Request::Signal { .. } => "signal",
        Request::Forget { .. } => "forget",
        Request::Exec { .. } => "exec",
        Request::Kill => "kill",
        Request::Attach { .. } => "attach",
        Request::Resize { .. } => "resize",
        Request::ReopenLog { .. } => "reopen_log",
        Request::Shutdown => "shutdown",
    }
}

fn name_of_reply(reply: &Reply) -> &'static str {
    match reply {
        Reply::Done => "done",
        Reply::Statuses { .. } => "statuses",
        Reply::Status { .. } => "status",
        Reply::Removed { .. } => "removed",
        Reply::Streams { .. } => "streams",
        Reply::Exited { .. } => "exited",
        Reply::Failed { error } => match error {
            RuntimeError::NotFound { .. } => "not found",
            RuntimeError::AlreadyExists { .. } => "already exists",
            RuntimeError::InvalidConfig { .. } => "invalid config",
            RuntimeError::Create { .. } => "create",
            RuntimeError::Start { .. } => "start",
            RuntimeError::NotRunning { .. } => "not running",
            RuntimeError::Exec { .. } => "exec",
            RuntimeError::Timeout { .. } => "timeout",
            RuntimeError::Sandbox { .. } => "sandbox",
            RuntimeError::Unreachable { .. } => "unreachable",
            RuntimeError::Io { .. } => "io",
        },
    }
}

#[test]
fn what_is_said_to_a_shim_and_by_it_is_understood() {
    let lines = include_str!("recorded/requests.jsonl").lines();
    let requests: BTreeSet<_> = lines.map(|line| name_of_request(&check(line))).collect();
    let all = [
        "subscribe",
        "create",
        "start",
        "signal",
        "forget",
        "exec",
        "kill",
        "attach",
        "resize",
        "reopen_log",
        "shutdown",
    ];
    assert_eq!(requests, BTreeSet::from(all));
    let lines = include_str!("recorded/replies.jsonl").lines();
    let replies: BTreeSet<_> = lines.map(|line| name_of_reply(&check(line))).collect();
    let all = [
        "done",
        "statuses",
        "status",
        "removed",
        "streams",
        "exited",
        "not found",
        "already exists",
        "invalid config",
        "create",
        "start",
        "not running",
        "exec",
        "timeout",
        "sandbox",
        "unreachable",
        "io",
    ];
    assert_eq!(replies, BTreeSet::from(all));
}
