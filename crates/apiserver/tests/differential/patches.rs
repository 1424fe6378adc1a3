//! Random patches, beside the original. The answers to those of some seeds are recorded; with an original at hand
//! `KEDGE_PATCH_SEEDS=100..2000` compares those of others with it as they come, and records nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use testkit::differential::record::{self, Record};
use testkit::differential::{Door, patches, run};

use super::world::World;
use super::{folder, original, prepare};

const RECORDED: std::ops::Range<u64> = 0..200;

fn file() -> PathBuf {
    folder().join("patches.json")
}

async fn answers(door: &dyn Door, seed: u64) -> Record {
    let case = patches::of(seed);
    let answered = run(door, &case).await.unwrap_or_else(|e| panic!("{e}"));
    answered.into_iter().map(|(step, answer)| (format!("{}/{step}", case.name), answer)).collect()
}

/// Both serve the custom kind before the cases begin.
async fn define(door: &dyn Door) {
    prepare(door).await;
    let send = |method: &'static str, path: &'static str, body: String| {
        let request =
            http::Request::builder().method(method).uri(path).header("content-type", "application/json");
        door.ask(request.body(body.into()).expect("a request"))
    };
    let made =
        send("POST", patches::DEFINITIONS, patches::definition().to_string()).await.expect("an answer");
    assert!([201, 409].contains(&made.status().as_u16()), "{}", made.status());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let list = "/apis/patches.example.com/v1/namespaces/differential/shapes";
    while !send("GET", list, String::new()).await.expect("an answer").status().is_success() {
        assert!(std::time::Instant::now() < deadline, "the custom kind is not served");
        tokio::task::yield_now().await;
    }
}

/// The first step of each case that differs; what comes after it follows from it.
fn first_differences(theirs: &Record, ours: &Record) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (step, theirs) in theirs {
        let differences = record::differences(theirs, &ours[step]);
        let case = step.split('/').next().unwrap_or_default().to_owned();
        if !differences.is_empty() && !out.contains_key(&case) {
            out.insert(case, format!("{step}: {}", differences.join("\n    ")));
        }
    }
    out
}

/// What a case sends, for whoever looks into a difference.
fn shown(seed: u64) -> String {
    use testkit::differential::cases::Body;
    let steps = patches::of(seed).steps;
    let body = |body: &Body| match body {
        Body::None => String::new(),
        Body::Json(value) | Body::Held(value) | Body::Patch(_, value) => value.to_string(),
    };
    let lines = steps.iter().filter(|s| s.recorded).map(|s| {
        let query = s.path.split_once('?').map_or("", |(_, query)| query);
        format!("      {} {query} {}", s.name, body(&s.body))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn random_patches_answer_as_the_original() {
    let world = World::new().await;
    define(&world).await;
    let original = original();
    if let Some(original) = &original {
        define(original).await;
    }
    let asked = std::env::var("KEDGE_PATCH_SEEDS").ok();
    if let (Some(asked), Some(original)) = (asked, &original) {
        let (from, to) = asked.split_once("..").expect("KEDGE_PATCH_SEEDS=from..to");
        let mut differing = 0;
        for seed in from.parse::<u64>().expect("a number")..to.parse().expect("a number") {
            let (theirs, ours) = (answers(original, seed).await, answers(&world, seed).await);
            for difference in first_differences(&theirs, &ours).values() {
                differing += 1;
                println!("seed {seed} {difference}\n{}", shown(seed));
            }
        }
        assert_eq!(differing, 0, "cases differ");
        return;
    }
    let mut theirs = Record::new();
    match &original {
        Some(original) => {
            for seed in RECORDED {
                theirs.extend(answers(original, seed).await);
            }
            record::write(&file(), &theirs).expect("recorded");
        }
        None => theirs = record::read(&file()).expect("recorded answers"),
    }
    let mut ours = Record::new();
    for seed in RECORDED {
        ours.extend(answers(&world, seed).await);
    }
    assert_eq!(
        theirs.keys().collect::<Vec<_>>(),
        ours.keys().collect::<Vec<_>>(),
        "the cases changed: record them anew"
    );
    let differ = first_differences(&theirs, &ours);
    let lines: Vec<&String> = differ.values().collect();
    assert!(lines.is_empty(), "{} of {} cases differ:\n{lines:#?}", lines.len(), RECORDED.end);
    let successes = theirs.values().filter(|a| a.code < 300).count();
    assert!(successes * 3 > theirs.len() && successes < theirs.len(), "some are taken, some refused");
}
