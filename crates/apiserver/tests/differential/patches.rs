//! Random patches, beside the original. The answers to those of some seeds are recorded; with an original at hand
//! `KEDGE_PATCH_SEEDS=100..2000` compares those of others with it as they come, and records nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use testkit::differential::patches::{self, STEPS};
use testkit::differential::record::{self, Record};
use testkit::differential::{Door, run};

use super::world::World;
use super::{folder, known, original, prepare};

const RECORDED: std::ops::Range<u64> = 0..200;

fn file() -> PathBuf {
    folder().join("patches.json")
}

async fn answers(door: &dyn Door, seed: u64) -> Result<Record, String> {
    let case = patches::of(seed);
    let answered = run(door, &case).await?;
    let named = |(step, answer)| (format!("{}/{step}", case.name), answer);
    Ok(answered.into_iter().map(named).collect())
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
    // What is created comes first, and then what is done to it, by number.
    let mut steps: Vec<_> = theirs.iter().collect();
    steps.sort_by_key(|(step, _)| !step.contains("/create"));
    for (step, theirs) in steps {
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
    if let Some(asked) = asked {
        let original = original.as_ref().expect("KEDGE_PATCH_SEEDS compares with a live original: name one");
        let (from, to) = asked.split_once("..").expect("KEDGE_PATCH_SEEDS=from..to");
        let seeds = from.parse::<u64>().expect("a number")..to.parse().expect("a number");
        assert!(!seeds.is_empty(), "{asked} names no seed");
        let mut differing = 0;
        for seed in seeds {
            let ours = answers(&world, seed).await.unwrap_or_else(|e| panic!("{e}"));
            // Some patches end a connection of the original's without an answer.
            let Ok(theirs) = answers(original, seed).await else { continue };
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
                theirs.extend(answers(original, seed).await.unwrap_or_default());
            }
            record::write(&file(), &theirs).expect("recorded");
        }
        None => theirs = record::read(&file()).expect("recorded answers"),
    }
    let mut ours = Record::new();
    for seed in RECORDED {
        let own = answers(&world, seed).await.unwrap_or_else(|e| panic!("{e}"));
        // What ended the original's connection has no answer to be compared with.
        ours.extend(own.into_iter().filter(|(step, _)| theirs.contains_key(step)));
    }
    assert_eq!(
        theirs.keys().collect::<Vec<_>>(),
        ours.keys().collect::<Vec<_>>(),
        "the cases changed: record them anew"
    );
    let mut differ = first_differences(&theirs, &ours);
    let known: Vec<String> =
        known().into_keys().filter_map(|name| name.strip_prefix("patches/").map(str::to_owned)).collect();
    let gone: Vec<&String> = known.iter().filter(|case| differ.remove(*case).is_none()).collect();
    println!(
        "{} cases of {STEPS} steps, {} differ with a known reason",
        RECORDED.end,
        known.len() - gone.len()
    );
    let lines: Vec<&str> = differ.values().map(String::as_str).collect();
    assert!(lines.is_empty(), "{} cases differ:\n{}", lines.len(), lines.join("\n"));
    assert!(gone.is_empty(), "known differences that are no more: take them out of known.txt: {gone:?}");
    let successes = theirs.values().filter(|a| a.code < 300).count();
    assert!(successes * 3 > theirs.len() && successes < theirs.len(), "some are taken, some refused");
}
