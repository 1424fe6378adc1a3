//! Scripts of requests: a line each, `METHOD PATH [@patch type] [key=value…] [JSON]`. What is asked for by `~METHOD` is not
//! compared. `{uid}` and `{version}` are those of the last object, `{revision}` and `{continue}` of the last list.
//! `accept=` says the form, `events=` how many events of a watch, `until=` the code or the words of an answer that may take a
//! while, `as=` who asks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use serde_json::Value;
use testkit::differential::normal::Normal;
use testkit::differential::record::{Answer, Record};
use testkit::differential::{Door, Stream};

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Step {
    name: String,
    method: String,
    path: String,
    content_type: &'static str,
    said: BTreeMap<String, String>,
    body: String,
    recorded: bool,
}

/// The steps of a script. Comments and empty lines part them.
pub fn parse(text: &str) -> Vec<Step> {
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|(at, line)| step(at + 1, line)).collect()
}

fn step(at: usize, line: &str) -> Step {
    let (head, body) = match line.find(" {").or_else(|| line.find(" [")) {
        Some(start) => (&line[..start], line[start + 1..].trim()),
        None => (line, ""),
    };
    let mut words = head.split_whitespace();
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_else(|| panic!("line {at}: no path"));
    let mut content_type = "application/json";
    let mut said = BTreeMap::new();
    for word in words {
        match (word.strip_prefix('@'), word.split_once('=')) {
            (Some("merge"), _) => content_type = "application/merge-patch+json",
            (Some("json"), _) => content_type = "application/json-patch+json",
            (Some("strategic"), _) => content_type = "application/strategic-merge-patch+json",
            (Some("apply"), _) => content_type = "application/apply-patch+yaml",
            (None, Some((name, value))) => drop(said.insert(name.to_owned(), value.to_owned())),
            _ => panic!("line {at}: {word}"),
        }
    }
    Step {
        name: format!("{at:03} {}", line.trim_start_matches('~')),
        method: method.trim_start_matches('~').to_owned(),
        path: path.to_owned(),
        content_type,
        said,
        body: body.to_owned(),
        recorded: !method.starts_with('~'),
    }
}

/// The answers of all steps, in the order of the script.
pub async fn run(door: &dyn Door, steps: &[Step]) -> Record {
    let mut normal = Normal::new();
    let mut memory = Memory::default();
    let mut record = Record::new();
    for step in steps {
        let answer = settled(door, step, &memory).await;
        memory.learn(&answer.body);
        match step.recorded {
            true => {
                let mut answer = normal.answer(answer);
                settle(&mut answer.body);
                record.insert(step.name.clone(), answer);
            }
            false => normal.learn(&answer.body),
        }
    }
    record
}

/// Versions within messages are each server's own, and rules are listed in no order.
fn settle(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                settle(value);
                if let ("continue", Value::String(token)) = (name.as_str(), &mut *value) {
                    *token = "<token>".into();
                }
                if let ("nonResourceRules" | "resourceRules", Value::Array(rules)) = (name.as_str(), value) {
                    rules.sort_by_cached_key(Value::to_string);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::String(text) => {
            for before in ["in record (", "current: ", "object meta: "] {
                *text = without_number(text, before);
            }
        }
        _ => {}
    }
}

/// A text without the number that follows some words.
pub fn without_number(text: &str, before: &str) -> String {
    match text.split_once(before) {
        Some((start, rest)) => {
            let end = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            if end.len() == rest.len() { text.to_owned() } else { format!("{start}{before}<version>{end}") }
        }
        None => text.to_owned(),
    }
}

/// An answer, once it is what is waited for.
async fn settled(door: &dyn Door, step: &Step, memory: &Memory) -> Answer {
    let began = Instant::now();
    loop {
        let answer = ask(door, step, memory).await.unwrap_or_else(|e| panic!("{}: {e}", step.name));
        let Some(until) = step.said.get("until") else { return answer };
        let until = until.replace('_', " ");
        if answer.code.to_string() == until || answer.body.to_string().contains(&until) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{}: still {} {}", step.name, answer.code, answer.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[derive(Default)]
struct Memory {
    words: BTreeMap<&'static str, String>,
}

impl Memory {
    fn learn(&mut self, body: &Value) {
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = text("/kind").ends_with("List");
        let words: &[_] = match list {
            true => &[("{revision}", "/metadata/resourceVersion"), ("{continue}", "/metadata/continue")],
            false => &[("{uid}", "/metadata/uid"), ("{version}", "/metadata/resourceVersion")],
        };
        for (word, path) in words {
            if !text(path).is_empty() {
                self.words.insert(word, text(path));
            }
        }
    }

    fn fill(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }
}

async fn ask(door: &dyn Door, step: &Step, memory: &Memory) -> Result<Answer, String> {
    let accept = match step.said.get("accept").map_or("", String::as_str) {
        "" => "application/json",
        "Table" => "application/json;as=Table;v=v1;g=meta.k8s.io",
        "Partial" => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "PartialList" => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        other => other,
    };
    let mut request = Request::builder().method(step.method.as_str()).uri(memory.fill(&step.path));
    request = request.header("accept", accept).header("user-agent", "protocol");
    if !step.body.is_empty() {
        request = request.header("content-type", step.content_type);
    }
    for (name, header) in [("as", "impersonate-user"), ("group", "impersonate-group")] {
        if let Some(value) = step.said.get(name) {
            request = request.header(header, value);
        }
    }
    let request = request.body(Bytes::from(memory.fill(&step.body))).map_err(|e| e.to_string())?;
    let answer = door.ask(request).await?;
    let (head, stream) = answer.into_parts();
    let warnings = head.headers.get_all("warning").iter();
    let warnings = warnings.filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let events = step.said.get("events").map_or(0, |count| count.parse().unwrap_or(1));
    let body = body(stream, events).await;
    Ok(Answer { code: head.status.as_u16(), warnings, body })
}

/// The whole answer, or the first events of a watch, as far as they come.
pub async fn body(mut stream: Stream, events: usize) -> Value {
    let parsed = |bytes: &[u8]| {
        serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
    };
    let mut bytes = Vec::new();
    while let Some(Ok(piece)) = stream.next().await {
        bytes.extend_from_slice(&piece);
        if events > 0 && bytes.iter().filter(|b| **b == b'\n').count() >= events {
            break;
        }
    }
    match events {
        0 => parsed(&bytes),
        _ => bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).take(events).map(parsed).collect(),
    }
}
