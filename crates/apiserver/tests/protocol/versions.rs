//! Lists and watches of some version: every combination of `resourceVersion`, `resourceVersionMatch`, `limit`, `continue`,
//! `sendInitialEvents` and `watch`, and what is answered. Versions are told by words, since each server has its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use serde_json::{Value, json};
use testkit::differential::Door;

use crate::known::Known;
use crate::world::World;
use crate::{folder, original, script};

const PATH: &str = "/api/v1/namespaces/protocol-versions/configmaps";
/// Requests at once: one for a version that is to come waits for it.
const AT_ONCE: usize = 24;

type Answers = BTreeMap<String, String>;

async fn ask(door: &dyn Door, method: &str, path: &str, body: Value) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let answer = door.ask(request.body(body).expect("a request")).await.expect("an answer");
    let (head, stream) = answer.into_parts();
    (head.status.as_u16(), script::body(stream, 0).await)
}

/// What the words of a question stand for on a server.
struct Words {
    before: String,
    now: String,
    token: String,
}

/// Three objects, the first of which was changed since.
async fn prepare(door: &dyn Door) -> Words {
    ask(door, "POST", "/api/v1/namespaces", json!({"metadata": {"name": "protocol-versions"}})).await;
    for name in ["a", "b", "c"] {
        ask(door, "DELETE", &format!("{PATH}/{name}"), Value::Null).await;
        let (code, answer) =
            ask(door, "POST", PATH, json!({"metadata": {"name": name, "labels": {"own": "yes"}}})).await;
        assert_eq!(code, 201, "{answer}");
    }
    let version = |list: &Value| list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let (_, list) = ask(door, "GET", PATH, Value::Null).await;
    let before = version(&list);
    let changed = json!({"metadata": {"name": "a", "labels": {"own": "yes"}}, "data": {"a": "b"}});
    assert_eq!(ask(door, "PUT", &format!("{PATH}/a"), changed).await.0, 200);
    let (_, list) = ask(door, "GET", &format!("{PATH}?limit=1&labelSelector=own"), Value::Null).await;
    let token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    Words { before, now: version(&list), token }
}

/// Every question, as a query in words.
fn questions() -> Vec<String> {
    let mut out = Vec::new();
    let given =
        |name: &str, value: &str| if value == "-" { String::new() } else { format!("&{name}={value}") };
    for watch in ["-", "true"] {
        for version in ["-", "0", "1x", "{before}", "{now}", "{future}"] {
            for how in ["-", "Exact", "NotOlderThan", "Bogus"] {
                for limit in ["-", "1", "-1"] {
                    for token in ["-", "{token}", "bogus"] {
                        for initial in ["-", "true", "false"] {
                            out.push(format!(
                                "labelSelector=own{}{}{}{}{}{}",
                                given("watch", watch),
                                given("resourceVersion", version),
                                given("resourceVersionMatch", how),
                                given("limit", limit),
                                given("continue", token),
                                given("sendInitialEvents", initial)
                            ));
                        }
                    }
                }
            }
        }
    }
    // Limits and tokens say nothing to a watch that the other questions do not say.
    out.retain(|q| !q.contains("watch") || !q.contains("limit=-1"));
    out.extend(
        ["", "&watch=true"]
            .map(|watch| format!("labelSelector=own&resourceVersion=&resourceVersionMatch=&limit=0{watch}")),
    );
    out
}

async fn answers<D: Door + 'static>(door: Arc<D>) -> Answers {
    let words = Arc::new(prepare(&*door).await);
    let asked = questions().into_iter().map(|question| {
        let (door, words) = (Arc::clone(&door), Arc::clone(&words));
        async move {
            let query = question.replace("{before}", &words.before).replace("{now}", &words.now);
            let query = query.replace("{future}", "999999999999").replace("{token}", &words.token);
            let end = if query.contains("watch") { "&allowWatchBookmarks=true&timeoutSeconds=1" } else { "" };
            let request = Request::get(format!("{PATH}?{query}{end}")).body(Bytes::new()).expect("a request");
            let answer = door.ask(request).await.unwrap_or_else(|e| panic!("{question}: {e}"));
            let (head, stream) = answer.into_parts();
            let watched = query.contains("watch") && head.status == 200;
            let said = script::body(stream, if watched { usize::MAX } else { 0 }).await;
            (question, told(head.status.as_u16(), &said, &words))
        }
    });
    futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await
}

/// An answer in a line.
fn told(code: u16, said: &Value, words: &Words) -> String {
    let version = |at: &Value| match at["metadata"]["resourceVersion"].as_str().unwrap_or_default() {
        "" => "none",
        v if v == words.before => "before",
        v if v == words.now => "now",
        v if v.parse::<u64>().unwrap_or_default() > words.now.parse().unwrap_or_default() => "now",
        _ => "other",
    };
    let events = said.as_array().into_iter().flatten().map(|event| {
        let object = &event["object"];
        match event["type"].as_str().unwrap_or_default() {
            "ERROR" => format!("ERROR {} {}", object["code"], object["message"]),
            "BOOKMARK" => {
                let end = object["metadata"]["annotations"]["k8s.io/initial-events-end"].as_str().is_some();
                if end { "BOOKMARK end".to_owned() } else { "BOOKMARK".to_owned() }
            }
            kind => format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default()),
        }
    });
    match (code, said) {
        (200, Value::Array(_)) => {
            let told = format!("200 {}", events.collect::<Vec<_>>().join(", "));
            // The last one comes when time is nearly over, or not any more.
            let told = told.strip_suffix(", BOOKMARK").unwrap_or(&told);
            script::without_number(told, "current: ")
        }
        (200, list) => {
            let names = list["items"].as_array().into_iter().flatten();
            let names: Vec<&str> = names.filter_map(|item| item["metadata"]["name"].as_str()).collect();
            let more = list["metadata"].get("continue").is_some();
            let left =
                list["metadata"].get("remainingItemCount").map_or(String::new(), |n| format!(" {n} left"));
            let more = if more { " more" } else { "" };
            format!("200 {} at {}{more}{left}", names.join(","), version(list))
        }
        (code, status) => {
            let message = status["message"].as_str().unwrap_or_default();
            let message = script::without_number(message, "current: ").replace(&words.now, "{now}");
            format!(
                "{code} {} {message} {}",
                status["reason"].as_str().unwrap_or_default(),
                status["details"]
            )
        }
    }
}

/// Each answer once, with all questions that it is the answer to.
fn write(path: &Path, answers: &Answers) {
    let mut by_answer: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (question, said) in answers {
        by_answer.entry(said).or_default().push(question);
    }
    let lines: Vec<String> =
        by_answer.iter().map(|(said, all)| format!("{}:{}", json!(said), json!(all))).collect();
    std::fs::write(path, format!("{{\n{}\n}}\n", lines.join(",\n"))).expect("written");
}

#[tokio::test]
async fn every_combination_is_answered_as_by_the_original() {
    let path = folder().join("recorded/versions.json");
    if let Some(original) = original() {
        let theirs = answers(Arc::new(original)).await;
        write(&path, &theirs);
    }
    let text = std::fs::read_to_string(&path).expect("recorded");
    let theirs: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).expect("JSON");
    let theirs: Answers = theirs
        .into_iter()
        .flat_map(|(said, questions)| questions.into_iter().map(move |question| (question, said.clone())))
        .collect();
    let ours = answers(Arc::new(World::new().await)).await;
    let mut known = Known::of("versions");
    for (question, said) in &theirs {
        let own = ours.get(question).map_or("nothing", String::as_str);
        known.found(question, (own != said).then(|| format!("{said}\n    ours {own}")));
    }
    known.end();
}
