//! What the recorded cases cover, counted: each kind, each verb that it serves, each of its subresources, and what of it is
//! refused.

use std::collections::{BTreeMap, BTreeSet};

use testkit::differential::cases::{self, Case, Step, Subject};

use super::kinds;

/// `update`, or `update status`: what is done, and to which part.
type Done = BTreeMap<String, usize>;

/// What a request of the cases is to the kind.
fn verb(subject: &Subject, step: &Step) -> String {
    let (path, query) = step.path.split_once('?').unwrap_or((&step.path, ""));
    let rest = path.strip_prefix(&subject.collection()).unwrap_or_default();
    let mut parts = rest.split('/').skip(1);
    let (name, part) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let verb = match (step.method, name.is_empty()) {
        ("GET", true) if query.contains("watch=true") => "watch",
        ("GET", true) => "list",
        ("GET", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        _ => "delete",
    };
    if part.is_empty() { verb.into() } else { format!("{verb} {part}") }
}

fn recorded(cases: &[Case]) -> impl Iterator<Item = &Step> {
    cases.iter().flat_map(|case| &case.steps).filter(|step| step.recorded)
}

/// By kind, what is asked of it how often.
fn done() -> Vec<(Subject, Done)> {
    let kinds = kinds().into_iter();
    kinds
        .map(|(subject, example)| {
            let mut done = Done::new();
            for step in recorded(&cases::of(&subject, &example)) {
                *done.entry(verb(&subject, step)).or_default() += 1;
            }
            (subject, done)
        })
        .collect()
}

#[test]
fn the_cases_cover_every_verb() {
    let done = done();
    let mut missing = Vec::new();
    for (subject, done) in &done {
        let counts: Vec<String> = done.iter().map(|(verb, count)| format!("{verb} {count}")).collect();
        println!("{}: {}", subject.label(), counts.join(", "));
        let own = subject.verbs.iter().cloned();
        let parts = subject.subresources.iter();
        let of_parts = parts.flat_map(|(part, verbs)| verbs.iter().map(move |verb| format!("{verb} {part}")));
        missing.extend(
            own.chain(of_parts)
                .filter(|verb| !done.contains_key(verb))
                .map(|verb| format!("{}: {verb}", subject.label())),
        );
    }
    let total: usize = done.iter().flat_map(|(_, done)| done.values()).sum();
    println!("{} kinds, {total} recorded answers", done.len());
    assert!(missing.is_empty(), "no case of:\n{}", missing.join("\n"));
}

/// How often a kind is refused something by what it is.
#[test]
fn every_kind_is_refused_something() {
    /// What is refused of definitions and policies is not in their examples.
    const APART: &[&str] = &[
        "customresourcedefinitions.v1.apiextensions.k8s.io",
        "mutatingadmissionpolicies.v1.admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings.v1.admissionregistration.k8s.io",
        "validatingadmissionpolicies.v1.admissionregistration.k8s.io",
        "validatingadmissionpolicybindings.v1.admissionregistration.k8s.io",
    ];
    let mut lacking = BTreeSet::new();
    let mut total = [0; 3];
    for (subject, example) in kinds() {
        let count = |name: &str| example[name].as_array().map_or(0, Vec::len);
        let counts = [count("invalid"), count("immutable"), count("invalidStatus")];
        println!("{}: invalid {}, immutable {}, status {}", subject.label(), counts[0], counts[1], counts[2]);
        for (total, count) in total.iter_mut().zip(counts) {
            *total += count;
        }
        if counts[0] == 0 && !APART.contains(&&*subject.label()) {
            lacking.insert(subject.label());
        }
    }
    println!("in all: invalid {}, immutable {}, status {}", total[0], total[1], total[2]);
    assert!(lacking.is_empty(), "no invalid case of {lacking:?}");
}
