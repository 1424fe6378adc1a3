//! Our answers beside the original's: every verb on every kind, what each kind refuses, and in which words. The
//! original's answers are recorded in `expected/`, a line a step; where ours differ, `known.txt` says why. A difference
//! that is not known fails, and so does one that is known and gone.
//!
//! With an original at hand (`KEDGE_ORIGINAL_URL`, `KEDGE_ORIGINAL_TOKEN`, `KEDGE_ORIGINAL_CA`) its answers are recorded
//! anew: `cargo test -p apiserver --test differential`.

mod coverage;
mod definitions;
mod known;
mod patches;
mod world;

use std::path::{Path, PathBuf};

use api::kinds::{Kind, builtin};
use serde_json::{Value, json};
use testkit::differential::cases::{self, Subject};
use testkit::differential::original::Original;
use testkit::differential::record::{self, Record};
use testkit::differential::{Door, run};

use known::Known;
use world::World;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential")
}

fn subject(kind: &Kind) -> Subject {
    Subject {
        group: kind.group.to_string(),
        version: kind.version.to_string(),
        kind: kind.kind.to_string(),
        plural: kind.plural.to_string(),
        namespaced: kind.namespaced,
        verbs: kind.verbs.iter().map(|v| (*v).to_owned()).collect(),
        subresources: kind
            .subresources
            .iter()
            .map(|s| (s.name.to_owned(), s.verbs.iter().map(|v| (*v).to_owned()).collect()))
            .collect(),
    }
}

/// The example of a kind; that of an older version lies beside the stored one's.
fn example(kind: &Kind) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/src/kinds/examples");
    let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
    let names =
        [format!("{}.{}{group}.yaml", kind.plural, kind.version), format!("{}{group}.yaml", kind.plural)];
    let text = names.iter().find_map(|name| std::fs::read_to_string(folder.join(name)).ok());
    let text = text.unwrap_or_else(|| panic!("no example of {}{group}", kind.plural));
    api::yaml::parse_one(&text).unwrap_or_else(|e| panic!("{}{group}: {e}", kind.plural))
}

fn kinds() -> Vec<(Subject, Value)> {
    let stored = builtin().iter().filter(|k| !k.is_virtual());
    let only = std::env::var("KEDGE_DIFFERENTIAL_ONLY").unwrap_or_default();
    let all = stored.map(|k| (subject(k), example(k)));
    all.filter(|(subject, _)| only.is_empty() || only.split(',').any(|label| label == subject.label()))
        .collect()
}

/// What both have before the cases begin.
async fn prepare(door: &dyn Door) {
    for (path, object) in [
        ("/api/v1/namespaces", json!({"metadata": {"name": cases::NAMESPACE}})),
        (
            "/api/v1/namespaces/differential/serviceaccounts",
            json!({"metadata": {"name": "default", "namespace": cases::NAMESPACE}}),
        ),
    ] {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(object.to_string().into())
            .expect("a request");
        let answer = door.ask(request).await.expect("an answer");
        assert!([201, 409].contains(&answer.status().as_u16()), "{path}: {}", answer.status());
    }
}

async fn answers(door: &dyn Door, subject: &Subject, example: &Value) -> Record {
    let mut record = Record::new();
    for case in cases::of(subject, example) {
        let answered = run(door, &case).await.unwrap_or_else(|e| panic!("{e}"));
        let name = case.name.rsplit('/').next().unwrap_or_default().to_owned();
        record.extend(answered.into_iter().map(|(step, answer)| (format!("{name}/{step}"), answer)));
    }
    record
}

fn original() -> Option<Original> {
    let variable = |name: &str| std::env::var(name).ok();
    let url = variable("KEDGE_ORIGINAL_URL")?;
    let token = variable("KEDGE_ORIGINAL_TOKEN").expect("KEDGE_ORIGINAL_TOKEN");
    let authority = variable("KEDGE_ORIGINAL_CA").expect("KEDGE_ORIGINAL_CA");
    Some(Original::new(&url, &token, Path::new(&authority)).expect("an original"))
}

fn expected(subject: &Subject) -> PathBuf {
    folder().join("expected").join(format!("{}.json", subject.label()))
}

#[tokio::test]
async fn every_verb_on_every_kind_answers_as_the_original() {
    let world = World::new().await;
    prepare(&world).await;
    let original = original();
    if let Some(original) = &original {
        prepare(original).await;
    }
    let mut known = Known::read();
    let (mut unknown, mut count, mut differing) = (Vec::new(), 0, 0);
    for (subject, example) in kinds() {
        if let Some(original) = &original {
            let record = answers(original, &subject, &example).await;
            record::write(&expected(&subject), &record).expect("recorded");
        }
        let path = expected(&subject);
        let theirs = record::read(&path).unwrap_or_else(|e| panic!("{e}: record it with an original"));
        let ours = answers(&world, &subject, &example).await;
        let steps = |r: &Record| r.keys().cloned().collect::<Vec<_>>();
        assert_eq!(steps(&theirs), steps(&ours), "{}: the cases changed: record them anew", subject.label());
        for (step, theirs) in &theirs {
            count += 1;
            let name = format!("{}/{step}", subject.label());
            let differences = record::differences(theirs, &ours[step]);
            differing += usize::from(!differences.is_empty());
            let left = known.without(&name, differences);
            if !left.is_empty() {
                let lines: Vec<String> = left.iter().map(ToString::to_string).collect();
                unknown.push(format!("{name}: {}", lines.join("\n    ")));
            }
        }
    }
    println!("{count} answers compared, {differing} differ with a known reason or none");
    assert!(unknown.is_empty(), "{} answers differ:\n{}", unknown.len(), unknown.join("\n"));
    let gone = known.unmet(|step| !step.starts_with("patches/") && is_asked(step));
    assert!(
        gone.is_empty(),
        "known differences that are no more: take them out of known.txt:\n{}",
        gone.join("\n")
    );
}

/// Whether the kind that a step is of is among those asked for.
fn is_asked(step: &str) -> bool {
    let label = step.split('/').next().unwrap_or_default();
    kinds().iter().any(|(subject, _)| subject.label() == label)
}
