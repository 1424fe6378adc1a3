//! Definitions and custom objects beside the original: `definitions/*.yaml` has the requests, a file a family, and beside each
//! file lie the original's answers. A case that ours answer otherwise says why, where it stands.
//!
//! With an original at hand its answers are recorded anew, as those of the other suites are; `KEDGE_DEFINITIONS_ONLY=names`
//! narrows that, and the comparison, to one file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use testkit::differential::Door;
use testkit::differential::normal::Normal;
use testkit::differential::record::{self, Answer, Record};

use super::world::World;
use super::{folder, original, prepare};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const LIMIT: Duration = Duration::from_secs(30);

/// One file.
#[derive(Deserialize)]
struct Suite {
    /// What is defined before the requests, without what all definitions have.
    #[serde(default)]
    define: Vec<Value>,
    /// Requests that make what the cases are about; their answers are not compared.
    #[serde(default)]
    before: Vec<Case>,
    /// Versions that definitions then get.
    #[serde(default)]
    redefine: Vec<Value>,
    #[serde(flatten)]
    like: Case,
    /// Values that a field below `each` has, one in each of as many cases.
    #[serde(default)]
    fields: Map<String, Value>,
    #[serde(default)]
    each: String,
    /// Why ours are other answers to some of those cases, which have no place of their own.
    #[serde(default)]
    differ: BTreeMap<String, String>,
    /// Whether those cases have objects of their own names.
    #[serde(default)]
    named: bool,
    cases: Vec<Case>,
}

/// A request; what it does not say the file says for all.
#[derive(Deserialize, Default, Clone)]
struct Case {
    #[serde(default)]
    name: String,
    path: Option<String>,
    method: Option<String>,
    #[serde(rename = "type")]
    content_type: Option<String>,
    accept: Option<String>,
    body: Option<Value>,
    /// The body as it is sent.
    text: Option<String>,
    /// What stands at places of the body; null is nothing.
    #[serde(default)]
    set: Map<String, Value>,
    /// What stands at the place that `at` names.
    value: Option<Value>,
    at: Option<String>,
    /// Whether the original tells several faults in an order of chance.
    #[serde(default)]
    unordered: bool,
    /// Why ours is another answer.
    known: Option<String>,
}

impl Case {
    fn text(&self, like: &Self) -> String {
        if let Some(text) = self.text.as_ref().or(like.text.as_ref()) {
            return text.clone();
        }
        let mut body = self.body.as_ref().or(like.body.as_ref()).cloned().unwrap_or_default();
        if let (Some(value), Some(at)) = (&self.value, self.at.as_ref().or(like.at.as_ref())) {
            put(&mut body, at, value);
        }
        for (at, value) in &self.set {
            put(&mut body, at, value);
        }
        let method = self.method.as_ref().or(like.method.as_ref()).map_or("POST", String::as_str);
        if matches!(method, "GET" | "DELETE") { String::new() } else { body.to_string() }
    }

    async fn ask(&self, door: &dyn Door, like: &Self) -> Answer {
        let of = |own: &Option<String>, like: &Option<String>, or: &str| {
            own.clone().or_else(|| like.clone()).unwrap_or_else(|| or.to_owned())
        };
        let request = http::Request::builder()
            .method(of(&self.method, &like.method, "POST").as_str())
            .uri(of(&self.path, &like.path, ""))
            .header("content-type", of(&self.content_type, &like.content_type, "application/json"))
            .header("accept", of(&self.accept, &like.accept, "application/json"))
            .header("user-agent", "differential");
        send(door, request, self.text(like)).await
    }
}

/// Puts a value where a pointer leads to, making what is missing on the way; null takes away what is there.
fn put(body: &mut Value, pointer: &str, value: &Value) {
    let steps: Vec<String> =
        pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let Some((last, above)) = steps.split_last() else { return *body = value.clone() };
    // A pointer to a key with slashes ends with it.
    let mut at = body;
    for step in above {
        at = match at {
            Value::Array(items) => &mut items[step.parse::<usize>().expect("an index")],
            other => &mut other[step.as_str()],
        };
    }
    match at {
        Value::Array(items) => match last.parse::<usize>().expect("an index") {
            end if end == items.len() => items.push(value.clone()),
            index => items[index] = value.clone(),
        },
        other if value.is_null() => drop(other.as_object_mut().and_then(|map| map.remove(last))),
        other => other[last.as_str()] = value.clone(),
    }
}

async fn send(door: &dyn Door, request: http::request::Builder, body: String) -> Answer {
    let request = request.body(Bytes::from(body)).expect("a request");
    // Some requests end a connection of the original's without an answer.
    let Ok(answer) = door.ask(request).await else {
        return Answer { code: 0, warnings: Vec::new(), body: Value::Null };
    };
    let (head, mut stream) = answer.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.expect("a whole answer"));
    }
    let text = || String::from_utf8_lossy(&bytes).into_owned().into();
    let warnings = head.headers.get_all("warning").iter().filter_map(|w| w.to_str().ok()).map(str::to_owned);
    Answer {
        code: head.status.as_u16(),
        warnings: warnings.collect(),
        body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()),
    }
}

async fn simply(door: &dyn Door, method: &str, path: &str, body: Value) -> Answer {
    let request =
        http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    send(door, request, if body.is_null() { String::new() } else { body.to_string() }).await
}

/// Asks until the answer is as wished.
async fn until(door: &dyn Door, path: &str, wished: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = simply(door, "GET", path, Value::Null).await;
        if wished(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{path}: {} {}", answer.code, answer.body);
        tokio::task::yield_now().await;
    }
}

fn has_condition(answer: &Answer, wanted: &str, settled: bool) -> bool {
    let conditions = answer.body.pointer("/status/conditions").and_then(Value::as_array);
    let fits = |c: &Value| c["type"] == wanted && (settled || c["status"] == "True");
    conditions.into_iter().flatten().any(fits)
}

async fn remove(door: &dyn Door, path: &str) {
    simply(door, "DELETE", path, Value::Null).await;
    let free = json!({"metadata": {"finalizers": null}});
    let request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
    // In this suite nobody else lets go of ours.
    if std::env::var_os("KEDGE_ORIGINAL_URL").is_none() {
        send(door, request, free.to_string()).await;
    }
    until(door, path, |answer| answer.code == 404).await;
}

/// Defines anew, and waits until the kind is served, or the definition says why it is not.
async fn define(door: &dyn Door, given: &Value) {
    let mut definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"});
    for (key, value) in given.as_object().expect("a definition") {
        definition[key] = value.clone();
    }
    let settles = definition.as_object_mut().and_then(|map| map.remove("settles"));
    let name = definition["metadata"]["name"].as_str().expect("a name").to_owned();
    let path = format!("{DEFINITIONS}/{name}");
    remove(door, &path).await;
    let made = simply(door, "POST", DEFINITIONS, definition.clone()).await;
    assert_eq!(made.code, 201, "{name}: {}", made.body);
    match settles.as_ref().and_then(Value::as_str) {
        Some(condition) => drop(until(door, &path, |answer| has_condition(answer, condition, true)).await),
        None => {
            until(door, &path, |answer| has_condition(answer, "Established", false)).await;
            until(door, &list_path(&definition), |answer| answer.code == 200).await;
        }
    }
}

fn list_path(definition: &Value) -> String {
    let text = |at: &str| definition.pointer(at).and_then(Value::as_str).unwrap_or_default();
    format!("/apis/{}/{}/{}", text("/spec/group"), text("/spec/versions/0/name"), text("/spec/names/plural"))
}

/// Gives a definition other versions, and waits until they count: a field of the new schema is known then.
async fn redefine(door: &dyn Door, given: &Value) {
    let path = format!("{DEFINITIONS}/{}", given["name"].as_str().expect("a name"));
    let change = json!({"spec": {"versions": given["versions"]}}).to_string();
    let request = http::Request::patch(&path).header("content-type", "application/merge-patch+json");
    let changed = send(door, request, change).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    let list = list_path(&changed.body);
    let trial = json!({"apiVersion": format!("{}/v1", changed.body["spec"]["group"].as_str().expect("a group")),
        "kind": changed.body["spec"]["names"]["kind"], "metadata": {"name": "trial"}, "spec": {}});
    let deadline = Instant::now() + LIMIT;
    let is_stricter = |answer: &Answer| answer.code == 422;
    while !is_stricter(&simply(door, "POST", &format!("{list}?dryRun=All"), trial.clone()).await) {
        assert!(Instant::now() < deadline, "{path}: the new schema does not count");
        tokio::task::yield_now().await;
    }
}

impl Suite {
    fn read(path: &std::path::Path) -> Self {
        let text = std::fs::read_to_string(path).expect("readable");
        let value = api::yaml::parse_one(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_value(value).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The cases that are written, and one for each value of each field.
    fn all(&self) -> Vec<Case> {
        let mut out = Vec::new();
        for (field, values) in &self.fields {
            for (n, value) in values.as_array().expect("values").iter().enumerate() {
                let mut case = Case { name: format!("{field} {n:02} {value}"), ..Case::default() };
                let mut body = self.like.body.clone().unwrap_or_default();
                if self.named {
                    body["metadata"]["name"] = format!("{field}{n:02}").into();
                }
                match value {
                    // Null is sent here, as any other value.
                    Value::Null => {
                        put(&mut body, &self.each, &json!({field.as_str(): null}));
                    }
                    value => put(&mut body, &format!("{}/{field}", self.each), value),
                }
                case.body = Some(body);
                case.known = self.differ.get(&case.name).cloned();
                out.push(case);
            }
        }
        out.extend(self.cases.iter().cloned());
        out
    }

    async fn answers(&self, door: &dyn Door) -> Record {
        for definition in &self.define {
            define(door, definition).await;
        }
        for case in &self.before {
            let answer = case.ask(door, &Case::default()).await;
            assert!(answer.code < 300, "{}: {}", case.text(&Case::default()), answer.body);
        }
        for definition in &self.redefine {
            redefine(door, definition).await;
        }
        let mut normal = Normal::new();
        let mut record = Record::new();
        for case in self.all() {
            let answer = case.ask(door, &self.like).await;
            let told = settled(normal.answer(answer), case.unordered);
            assert!(record.insert(case.name.clone(), told).is_none(), "two cases are called {:?}", case.name);
        }
        for definition in &self.define {
            let name = definition["metadata"]["name"].as_str().expect("a name");
            remove(door, &format!("{DEFINITIONS}/{name}")).await;
        }
        record
    }
}

/// Of an answer, what can be compared: whole objects within messages have the names of the original's own types there.
fn settled(mut answer: Answer, unordered: bool) -> Answer {
    fn texts(value: &mut Value, change: &dyn Fn(&mut String)) {
        match value {
            Value::String(text) => change(text),
            Value::Array(items) => items.iter_mut().for_each(|item| texts(item, change)),
            Value::Object(map) => map.values_mut().for_each(|value| texts(value, change)),
            _ => {}
        }
    }
    let ends = ["]: must contain unique", "]: must have exactly one version", "}: only [Description"];
    texts(&mut answer.body, &|text| {
        for end in ends {
            while let Some(at) = text.find(end)
                && let Some(start) =
                    text[..at].rfind("Invalid value: ").map(|at| at + "Invalid value: ".len())
                && text[start..].starts_with(['[', '{'])
            {
                text.replace_range(start..=at, "<value>");
            }
        }
    });
    let causes = answer.body.pointer_mut("/details/causes").and_then(Value::as_array_mut);
    if let Some(causes) = causes.filter(|causes| unordered && causes.len() > 1) {
        causes.sort_by_cached_key(Value::to_string);
        let head = answer.body["message"].as_str().unwrap_or_default();
        let head = head.split(" is invalid: ").next().unwrap_or_default().to_owned();
        answer.body["message"] = format!("{head} is invalid: as the causes say").into();
    }
    if unordered {
        answer.warnings.sort();
    }
    answer
}

fn files() -> Vec<PathBuf> {
    let only = std::env::var("KEDGE_DEFINITIONS_ONLY").unwrap_or_default();
    let all = std::fs::read_dir(folder().join("definitions")).expect("a folder");
    let paths = all.map(|entry| entry.expect("an entry").path());
    let is_asked = |path: &PathBuf| only.is_empty() || path.file_stem().is_some_and(|stem| *stem == *only);
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "yaml") && is_asked(path)).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn definitions_and_their_objects_are_answered_as_by_the_original() {
    let world = World::new().await;
    prepare(&world).await;
    let original = original();
    if let Some(original) = &original {
        prepare(original).await;
    }
    let (mut differing, mut count, mut known) = (Vec::new(), 0, 0);
    for path in files() {
        let (suite, recorded) = (Suite::read(&path), path.with_extension("json"));
        if let Some(original) = &original {
            record::write(&recorded, &suite.answers(original).await).expect("recorded");
        }
        let theirs = record::read(&recorded).unwrap_or_else(|e| panic!("{e}: record it with an original"));
        let ours = suite.answers(&world).await;
        let reasons: BTreeMap<String, Option<String>> =
            suite.all().into_iter().map(|case| (case.name, case.known)).collect();
        assert!(theirs.keys().eq(ours.keys()), "{}: the cases changed: record them anew", path.display());
        for (name, theirs) in &theirs {
            if theirs.code == 0 {
                continue;
            }
            count += 1;
            let found = record::differences(theirs, &ours[name]);
            let file = path.file_stem().unwrap_or_default().to_string_lossy();
            match (found.is_empty(), &reasons[name]) {
                (true, None) => {}
                (false, Some(_)) => known += 1,
                (true, Some(_)) => differing.push(format!("{file}/{name} is known to differ and does not")),
                (false, None) => {
                    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
                    differing.push(format!("{file}/{name}: {}", told.join("\n    ")));
                }
            }
        }
    }
    println!("{count} answers compared, {known} differ with a known reason");
    assert!(differing.is_empty(), "{} answers differ:\n{}", differing.len(), differing.join("\n"));
}
