//! Field selectors: which fields each kind's objects may be selected by, and how others are refused. Every kind is asked for
//! every field that any kind has.

use std::collections::{BTreeMap, BTreeSet};

use api::kinds::builtin;
use bytes::Bytes;
use http::Request;
use serde_json::Value;
use testkit::differential::Door;

use crate::known::Known;
use crate::world::World;
use crate::{folder, original, script};

/// By kind, then by what is said (in which `{}` stands for the field): the fields of which it is.
type Answers = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// Fields that are none, or of no kind.
const OTHERS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "spec.bogus",
    "status",
    "kind",
    "name",
    "",
];

fn fields() -> BTreeSet<String> {
    let own = builtin().iter().flat_map(|kind| kind.selectable.iter().map(ToString::to_string));
    own.chain(OTHERS.iter().map(ToString::to_string)).collect()
}

async fn said(door: &dyn Door, path: &str, selector: &str) -> String {
    let selector = selector.replace('=', "%3D").replace(',', "%2C").replace('!', "%21").replace('\\', "%5C");
    let request =
        Request::get(format!("{path}?fieldSelector={selector}")).header("accept", "application/json");
    let answer = door.ask(request.body(Bytes::new()).expect("a request")).await.expect("an answer");
    let (head, stream) = answer.into_parts();
    match (head.status.as_u16(), script::body(stream, 0).await) {
        (200, _) => "ok".to_owned(),
        (code, body) => {
            format!(
                "{code} {} {}",
                body["reason"].as_str().unwrap_or_default(),
                body["message"].as_str().unwrap_or_default()
            )
        }
    }
}

async fn answers(door: &dyn Door) -> Answers {
    let mut out = Answers::new();
    for kind in builtin().iter().filter(|kind| kind.verbs.contains(&"list")) {
        let root = if kind.group.is_empty() { "/api" } else { "/apis" };
        let path = format!("{root}/{}/{}", kind.api_version(), kind.plural);
        let of_kind: &mut BTreeMap<_, _> =
            out.entry(format!("{} {}", kind.api_version(), kind.plural)).or_default();
        for field in fields() {
            let selector = format!("{field}=x");
            let mut told = said(door, &path, &selector).await;
            if !field.is_empty() {
                told = told.replace(&field, "{}");
            }
            of_kind.entry(told).or_default().push(field);
        }
    }
    out
}

/// How selectors themselves are read.
async fn grammar(door: &dyn Door) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for selector in [
        "metadata.name",
        "metadata.name=",
        "metadata.name==x",
        "metadata.name!=x",
        "metadata.name=a,metadata.name=b",
        "metadata.name=a,,metadata.namespace=b",
        ",",
        "=",
        "!=",
        "==x",
        "metadata.name=a\\,b",
        "metadata.name=a\\b",
        "metadata.name=a\\",
        "metadata.name>a",
        "metadata.name in (a)",
        "metadata.name = a",
        "status.phase=Running,spec.nodeName!=",
    ] {
        let encoded = selector.replace(' ', "%20").replace('>', "%3E");
        let told = said(door, "/api/v1/pods", &encoded).await;
        out.entry(told).or_default().push(selector.to_owned());
    }
    out
}

fn write(answers: &Answers) {
    let lines: Vec<String> = answers
        .iter()
        .map(|(kind, fields)| format!("{}:{}", Value::from(kind.as_str()), serde_json::json!(fields)))
        .collect();
    std::fs::write(folder().join("recorded/fields.json"), format!("{{\n{}\n}}\n", lines.join(",\n")))
        .expect("written");
}

#[tokio::test]
async fn every_kind_is_selected_by_its_fields_and_no_others() {
    if let Some(original) = original() {
        let mut all = answers(&original).await;
        all.insert("grammar".into(), grammar(&original).await);
        write(&all);
    }
    let text = std::fs::read_to_string(folder().join("recorded/fields.json")).expect("recorded");
    let theirs: Answers = serde_json::from_str(&text).expect("JSON");
    let world = World::new().await;
    let mut ours = answers(&world).await;
    ours.insert("grammar".into(), grammar(&world).await);
    let mut known = Known::of("fields");
    for (kind, answers) in &theirs {
        for (said, field) in
            answers.iter().flat_map(|(said, fields)| fields.iter().map(move |field| (said, field)))
        {
            let mut own = ours.get(kind).into_iter().flatten();
            let own = own.find(|(_, fields)| fields.contains(field)).map_or("nothing", |(said, _)| said);
            known.found(&format!("{kind} {field}"), (own != said).then(|| format!("{said:?}, ours {own:?}")));
        }
    }
    known.end();
}
