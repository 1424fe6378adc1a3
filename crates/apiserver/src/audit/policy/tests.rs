//! What a policy decides, and which ones are refused with which words.

use super::*;

fn attributes(text: &str) -> Attributes {
    let mut words = text.split(' ');
    let verb = words.next().unwrap_or_default().to_owned();
    let place = words.next().unwrap_or_default();
    if place.starts_with('/') {
        return Attributes { verb, path: place.to_owned(), ..Default::default() };
    }
    let (group, resource) = place.split_once(':').unwrap_or(("", place));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (namespace, name) = words.next().unwrap_or("/").split_once('/').unwrap_or_default();
    Attributes {
        verb,
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Default::default()
    }
}

fn check(rule: &str, hits: &[&str], misses: &[&str]) {
    let text = format!(
        "{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{{level: Request, {rule}}}, {{level: Metadata}}]}}"
    );
    let policy = Policy::parse(&text).expect(rule);
    let jane = Identity::new("jane", &["devs"]);
    for (list, level) in [(hits, Level::Request), (misses, Level::Metadata)] {
        for request in list {
            assert_eq!(policy.decide(Some(&jane), &attributes(request)).level, level, "{rule}: {request}");
        }
    }
}

#[test]
fn the_first_rule_that_is_about_a_request_decides() {
    check("", &["get pods a/p", "get /version"], &[]);
    check("users: [jane]", &["get pods"], &[]);
    check("users: [joe]", &[], &["get pods"]);
    check("userGroups: [ops, devs]", &["get /x"], &[]);
    check("userGroups: [ops]", &[], &["get /x"]);
    check("verbs: [create]", &["create pods a/"], &["get pods a/"]);
    check(
        "namespaces: [a]",
        &["get pods a/", "get apps:deployments/status a/x"],
        &["get pods b/", "get /version"],
    );
    check("namespaces: ['']", &["get nodes /n"], &["get pods b/", "get /version"]);
    check(
        "resources: [{group: ''}]",
        &["get pods a/", "get pods/log a/p"],
        &["get apps:deployments a/", "get /x"],
    );
    check("resources: [{resources: [pods]}]", &["get pods a/"], &["get pods/log a/p", "get apps:pods a/"]);
    check(
        "resources: [{resources: [pods/log]}]",
        &["get pods/log a/p"],
        &["get pods a/p", "get pods/exec a/p"],
    );
    check(
        "resources: [{resources: ['pods/*']}]",
        &["get pods/log a/p", "get pods a/p"],
        &["get secrets a/p"],
    );
    check(
        "resources: [{resources: ['*/scale']}]",
        &["get replicationcontrollers/scale a/p"],
        &["get pods a/p"],
    );
    check(
        "resources: [{group: '*', resources: ['*']}]",
        &["get apps:x/scale a/p", "get pods a/"],
        &["get /api"],
    );
    check(
        "resources: [{resources: [configmaps], resourceNames: [lock]}]",
        &["get configmaps a/lock"],
        &["get configmaps a/other", "list configmaps a/"],
    );
    check(
        "nonResourceURLs: ['/healthz*', /version]",
        &["get /healthz/ping", "get /version"],
        &["get /versions", "get pods a/"],
    );
    check("nonResourceURLs: ['*']", &["get /x"], &["get pods a/"]);
}

#[test]
fn nobody_matches_no_user_and_what_no_rule_is_about_leaves_no_trace() {
    let policy = Policy::parse(
        "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [Panic], omitManagedFields: true, rules: [
          {level: Metadata, userGroups: [devs], omitStages: [RequestReceived], omitManagedFields: false}]}",
    )
    .expect("a policy");
    let what = attributes("get pods a/p");
    let unknown = policy.decide(None, &what);
    let none = Decision { level: Level::None, omit_stages: vec![Stage::Panic], omit_managed_fields: true };
    assert_eq!(unknown, none);
    let jane = policy.decide(Some(&Identity::new("jane", &["devs"])), &what);
    let stages = vec![Stage::Panic, Stage::RequestReceived];
    assert_eq!(jane, Decision { level: Level::Metadata, omit_stages: stages, omit_managed_fields: false });
}

#[test]
fn without_a_file_no_body_is_kept() {
    let policy = Policy::unsaid();
    let jane = Identity::new("jane", &["devs"]);
    for request in [
        "create secrets a/",
        "create authentication.k8s.io:tokenreviews /",
        "create serviceaccounts/token a/x",
    ] {
        assert_eq!(policy.decide(Some(&jane), &attributes(request)).level, Level::Metadata, "{request}");
    }
    for request in ["get /readyz", "update coordination.k8s.io:leases a/x"] {
        assert_eq!(policy.decide(Some(&jane), &attributes(request)).level, Level::None, "{request}");
    }
}

fn refused(rest: &str, expected: &str) {
    let text = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, {rest}}}");
    let error = Policy::parse(&text).expect_err(rest).to_string();
    assert!(error.starts_with(expected), "{rest}: {error}");
}

#[test]
fn a_policy_that_is_wrong_is_refused_by_the_name_of_the_field() {
    refused("rules: []", "rules: Required value");
    refused(
        "rules: [{level: Everything}]",
        "rules[0].level: Unsupported value: \"Everything\": supported values: \"None\", ",
    );
    refused("rules: [{users: [a]}]", "rules[0].level: Required value");
    refused(
        "rules: [{level: None}, {level: None, omitStages: [Begin]}]",
        "rules[1].omitStages[0]: Invalid value: \"Begin\"",
    );
    refused(
        "omitStages: [End], rules: [{level: None}]",
        "omitStages[0]: Invalid value: \"End\": allowed stages are RequestReceived,",
    );
    refused("rules: [{level: None, user: [a]}]", "rules[0]: unknown field `user`");
    refused("rules: [{level: None}], omit: true", "omit: unknown field");
    refused(
        "rules: [{level: None, nonResourceURLs: [version]}]",
        "rules[0].nonResourceURLs[0]: Invalid value: \"version\"",
    );
    refused(
        "rules: [{level: None, nonResourceURLs: ['/a*b']}]",
        "rules[0].nonResourceURLs[0]: Invalid value: \"/a*b\"",
    );
    refused(
        "rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]",
        "rules[0].nonResourceURLs: Invalid value: rules cannot",
    );
    refused(
        "rules: [{level: None, resources: [{group: rbac/v1}]}]",
        "rules[0].resources[0].group: Invalid value",
    );
    refused(
        "rules: [{level: None, resources: [{resourceNames: [x]}]}]",
        "rules[0].resources[0].resourceNames: Invalid value",
    );
    assert_eq!(
        Policy::parse("{apiVersion: audit.k8s.io/v1beta1, kind: Policy}").err(),
        Some(PolicyError::Version("audit.k8s.io/v1beta1".into()))
    );
    assert_eq!(
        Policy::parse("{apiVersion: audit.k8s.io/v1, kind: Event}").err(),
        Some(PolicyError::Kind("Event".into()))
    );
    assert!(matches!(Policy::parse("a: [b"), Err(PolicyError::Yaml(_))));
}
