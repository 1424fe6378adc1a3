//! The checks that `/healthz` goes through, by the names by which people ask for one or leave one out. Those of ours are
//! the original's, in its order; what it has beside them belongs to parts that ours has not, and is in `known.txt`.

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use testkit::differential::Door;

use crate::known::Known;
use crate::world::World;
use crate::{folder, original, script};

async fn told(door: &dyn Door, path: &str) -> String {
    let request = Request::get(path).body(Bytes::new()).expect("a request");
    let (_, stream) = door.ask(request).await.expect("an answer").into_parts();
    script::body(stream, 0).await.as_str().expect("text").to_owned()
}

fn names(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("[+]"));
    lines.map(|line| line.trim_end_matches(" ok").to_owned()).collect()
}

#[tokio::test]
async fn checks_have_the_originals_names() {
    let path = folder().join("recorded/probes.json");
    if let Some(original) = original() {
        let theirs = serde_json::json!(names(&told(&original, "/healthz?verbose").await));
        std::fs::write(&path, format!("{theirs:#}\n")).expect("written");
    }
    let theirs: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("recorded")).expect("JSON");
    let theirs: Vec<&str> = theirs.as_array().expect("names").iter().filter_map(Value::as_str).collect();
    let world = World::new().await;
    let text = told(&world, "/healthz?verbose").await;
    assert!(text.ends_with("healthz check passed\n"), "{text}");
    let ours = names(&text);
    let mut known = Known::of("probes");
    for name in &theirs {
        let missing = !ours.iter().any(|own| own == name);
        known.found(name, missing.then(|| "ours lacks it".to_owned()));
        if !missing {
            assert_eq!(told(&world, &format!("/healthz/{name}")).await, "ok", "{name}");
        }
    }
    let shared: Vec<&str> = theirs.into_iter().filter(|name| ours.iter().any(|own| own == name)).collect();
    assert_eq!(ours, shared, "in its order, and no others");
    known.end();
}
