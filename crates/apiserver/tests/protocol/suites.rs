//! The scripts of `suites/`, each with its recorded answers.

use std::path::PathBuf;

use serde_json::json;
use testkit::differential::Door;
use testkit::differential::record;

use crate::known::Known;
use crate::world::World;
use crate::{folder, original, script};

fn recorded(suite: &str) -> PathBuf {
    folder().join("recorded").join(format!("{suite}.json"))
}

/// What both have before a script begins.
async fn prepare(door: &dyn Door, suite: &str) {
    let namespace = format!("protocol-{suite}");
    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    for (path, object) in [
        ("/api/v1/namespaces", json!({"metadata": {"name": namespace}})),
        (&account, json!({"metadata": {"name": "default", "namespace": namespace}})),
    ] {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(object.to_string().into())
            .expect("a request");
        let answer = door.ask(request).await.expect("an answer");
        assert!([201, 409].contains(&answer.status().as_u16()), "{path}: {}", answer.status());
    }
}

/// Runs a script, in which `@ns` is its namespace's path and `@name` the namespace.
async fn compared(suite: &str) {
    let text =
        std::fs::read_to_string(folder().join("suites").join(format!("{suite}.txt"))).expect("a script");
    let namespace = format!("protocol-{suite}");
    let text = text.replace("@ns", &format!("/namespaces/{namespace}")).replace("@name", &namespace);
    let steps = script::parse(&text);
    if let Some(original) = original() {
        prepare(&original, suite).await;
        let answers = script::run(&original, &steps).await;
        record::write(&recorded(suite), &answers).expect("recorded");
    }
    let theirs = record::read(&recorded(suite)).unwrap_or_else(|e| panic!("{e}: record it with an original"));
    let world = World::new().await;
    prepare(&world, suite).await;
    let ours = script::run(&world, &steps).await;
    let names = |record: &record::Record| record.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&theirs), names(&ours), "{suite}: the script changed: record it anew");
    let mut known = Known::of(suite);
    for (step, theirs) in &theirs {
        let differences = record::differences(theirs, &ours[step]);
        let told: Vec<String> = differences.iter().map(ToString::to_string).collect();
        known.found(step, (!told.is_empty()).then(|| told.join("\n    ")));
    }
    known.end();
}

#[tokio::test]
async fn deletions() {
    compared("deletions").await;
}

#[tokio::test]
async fn available_services() {
    compared("apiservices").await;
}

#[tokio::test]
async fn subresources() {
    compared("subresources").await;
}

#[tokio::test]
async fn reviews() {
    compared("reviews").await;
}

#[tokio::test]
async fn forms_of_watches() {
    compared("forms").await;
}

#[tokio::test]
async fn mutating_policies() {
    compared("mutations").await;
}
