//! Random patches, beside the original. The answers to those of some seeds are recorded; with an original at hand
//! `KEDGE_PATCH_SEEDS=100..2000` compares those of others with it as they come, and records nothing. Seeds from a million
//! on go through more than one face of an object.

use std::collections::BTreeMap;
use std::path::PathBuf;

use testkit::differential::cases::Body;
use testkit::differential::patches::{self, FIRST_WIDER, STEPS};
use testkit::differential::record::{self, Record};
use testkit::differential::{Door, run};

use super::known::Known;
use super::world::World;
use super::{folder, original, prepare};

/// What is recorded, and where.
const RECORDED: &[(std::ops::Range<u64>, &str)] =
    &[(0..200, "patches.json"), (FIRST_WIDER..FIRST_WIDER + 170, "patches-wider.json")];

fn seeds() -> impl Iterator<Item = u64> {
    RECORDED.iter().flat_map(|(seeds, _)| seeds.clone())
}

fn file(name: &str) -> PathBuf {
    folder().join(name)
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
            let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
            out.insert(case, format!("{step}: {}", lines.join("\n    ")));
        }
    }
    out
}

/// What a case sends, for whoever looks into a difference.
fn shown(seed: u64) -> String {
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
    for (seeds, name) in RECORDED {
        match &original {
            Some(original) => {
                let mut record = Record::new();
                for seed in seeds.clone() {
                    record.extend(answers(original, seed).await.unwrap_or_default());
                }
                record::write(&file(name), &record).expect("recorded");
                theirs.extend(record);
            }
            None => theirs.extend(record::read(&file(name)).expect("recorded answers")),
        }
    }
    let mut ours = Record::new();
    for seed in seeds() {
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
        Known::read().steps().filter_map(|name| name.strip_prefix("patches/").map(str::to_owned)).collect();
    let gone: Vec<&String> = known.iter().filter(|case| differ.remove(*case).is_none()).collect();
    println!(
        "{} cases of {STEPS} steps, {} differ with a known reason",
        seeds().count(),
        known.len() - gone.len()
    );
    let lines: Vec<&str> = differ.values().map(String::as_str).collect();
    assert!(lines.is_empty(), "{} cases differ:\n{}", lines.len(), lines.join("\n"));
    assert!(gone.is_empty(), "known differences that are no more: take them out of known.txt: {gone:?}");
    let successes = theirs.values().filter(|a| a.code < 300).count();
    assert!(successes * 3 > theirs.len() && successes < theirs.len(), "some are taken, some refused");
}

/// What is done to each subject: the kinds of patches, through which face.
fn done() -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut out: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for case in seeds().map(patches::of) {
        let subject = case.name.rsplit_once('-').map_or("", |(subject, _)| subject).to_owned();
        for step in case.steps.iter().filter(|step| step.recorded) {
            let kind = match &step.body {
                Body::Patch(kind, _) => kind.split(['/', '+']).nth(1).unwrap_or_default().to_owned(),
                Body::Held(_) => "update".to_owned(),
                Body::Json(_) | Body::None => continue,
            };
            let path = step.path.split('?').next().unwrap_or_default();
            let face =
                ["/status", "/scale"].into_iter().find(|face| path.ends_with(face)).unwrap_or_default();
            *out.entry(subject.clone()).or_default().entry(kind + face).or_default() += 1;
        }
    }
    out
}

#[test]
fn every_subject_gets_every_kind_of_patch() {
    let done = done();
    println!("{done:#?}");
    assert_eq!(done.len(), 15, "{:?}", done.keys());
    let strategic = |subject: &str| subject != "shape";
    for (subject, kinds) in &done {
        for kind in ["apply-patch", "merge-patch", "json-patch", "update"] {
            assert!(kinds.get(kind).is_some_and(|n| *n >= 5), "{subject}: {kind}: {kinds:?}");
        }
        let of_types = kinds.get("strategic-merge-patch").copied().unwrap_or(0);
        assert_eq!(of_types >= 5, strategic(subject), "{subject}: {kinds:?}");
    }
    for (face, subjects) in [
        ("status", &["pod", "node", "statefulset", "job", "cronjob", "scaled", "ingress", "autoscaler"][..]),
        ("scale", &["scaled", "statefulset"]),
    ] {
        for subject in subjects {
            for kind in ["apply-patch", "merge-patch"] {
                let count = done[*subject].get(&format!("{kind}/{face}")).copied().unwrap_or(0);
                assert!(count >= 3, "{subject}: {kind} of the {face}: {count}");
            }
        }
    }
}
