//! What a node may write, beside what kube-apiserver v1.36.2 was heard to answer to the same: `node_restriction.json` has the
//! requests, by nodes to whom everything is allowed, so that nothing but the contents decides.

mod world;

use apiserver::auth::Identity;
use serde_json::{Value, json};
use world::World;

/// `{n1}` in the recorded requests and answers stands for that object's uid.
const UIDS: [(&str, &str); 3] = [
    ("{n1}", "/api/v1/nodes/n1"),
    ("{p1}", "/api/v1/namespaces/default/pods/p1"),
    ("{p2}", "/api/v1/namespaces/default/pods/p2"),
];

/// Where ours are answered otherwise, and why that lets nothing in.
const KNOWN: [(&str, &str); 10] = [
    ("create generateName", "the name is made first"),
    ("lease generate", "as above"),
    ("csr bad", "what cannot be read is refused by its kind"),
    ("token missing", "the kind is named as everywhere else"),
    ("set taints/status", "a status changes nothing else, so there is nothing to refuse"),
    ("empty taints/status", "as above"),
    ("configSource/status", "as above"),
    (
        "delete pods",
        "no node may delete them as a collection; one to whom it is allowed is not let at those of others",
    ),
    ("evict names another", "the name is looked at first"),
    ("evict missing", "the kind is named as everywhere else"),
];

#[tokio::test]
async fn a_node_is_answered_as_by_the_original() {
    let world = World::new().await;
    let recorded: Value = serde_json::from_str(include_str!("node_restriction.json")).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for step in recorded["setup"].as_array().expect("steps") {
        let (code, answer) = world.json(&text(&step[0]), &text(&step[1]), step[2].clone()).await;
        assert!([201, 409].contains(&code), "{step}: {answer}");
    }
    let mut uids = Vec::new();
    for (mark, path) in UIDS {
        uids.push((mark, text(&world.json("GET", path, json!(null)).await.1["metadata"]["uid"])));
    }
    let mut differences = Vec::new();
    let cases = recorded["cases"].as_array().expect("cases");
    for case in cases {
        let [name, who, method, path, body, code, message] = case.as_array().expect("a case").as_slice()
        else {
            panic!("{case} is no case")
        };
        let uid = |text: String| uids.iter().fold(text, |text, (mark, uid)| text.replace(mark, uid));
        let body = serde_json::from_str(&uid(body.to_string())).expect("JSON");
        let who = Identity::new(text(who), &["system:nodes"]);
        let (given, answer) = world.ask(&who, &text(method), &text(path), body).await;
        let told = if given < 400 { String::new() } else { text(&answer["message"]) };
        let known = KNOWN.iter().any(|(known, _)| name == known);
        if known && *code == given && told == uid(text(message)) {
            differences.push(format!("{name} is known to differ and does not"));
        }
        if !known && (*code != given || !told.starts_with(&uid(text(message)))) {
            differences.push(format!("{name}:\n  theirs {code} {message}\n  ours   {given} {told}"));
        }
    }
    assert!(cases.len() > 150);
    for (name, path) in [("other nodes", "/api/v1/nodes/n2"), ("their own", "/api/v1/nodes/n1")] {
        assert_eq!(world.json("GET", path, json!(null)).await.0, 200, "{name} are there still");
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
