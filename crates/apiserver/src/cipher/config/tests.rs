//! What is wrong with a file is told by the name of the field, in the original's words, and never with a key.

use super::*;

fn refused(resources: &str, expected: &str) {
    let text = format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: {resources}}}"
    );
    let error = parse(&text, Times::default()).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.starts_with(expected), "{resources}: {error}");
}

#[test]
fn a_file_that_is_wrong_is_refused_by_the_name_of_the_field_and_never_with_the_key() {
    let required =
        |field: &str, what: &str| format!("{field}: Required value: at least one {what} is required");
    refused("[]", &required("resources", "resources"));
    let (resources, providers) = ("resources[0].resources", "resources[0].providers");
    refused("[{providers: [{identity: {}}]}]", &required(resources, resources));
    refused("[{resources: [secrets]}]", &required(providers, providers));
    refused(
        "[{resources: [Secrets], providers: [{identity: {}}]}]",
        "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters",
    );
    for (name, why) in [
        (
            "'*'",
            "\"*\": use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        ),
        ("secrets.*", "\"secrets.*\": encrypting the same resource across groups is not supported"),
        (
            "events.events.k8s.io",
            "\"events.events.k8s.io\": '*.events.k8s.io' objects are stored using the 'events' API group in etcd",
        ),
        ("deployments.extensions", "\"deployments.extensions\": 'extensions' group has been removed"),
        (
            "apiserveripinfo",
            "\"apiserveripinfo\": resources which do not have REST API/s cannot be encrypted",
        ),
        ("'sec*'", "\"sec*\": a star stands for a whole name"),
        ("'*.ap*'", "\"*.ap*\": a star stands for a whole name"),
    ] {
        refused(
            &format!("[{{resources: [{name}], providers: [{{identity: {{}}}}]}}]"),
            &format!("resources[0].resources[0]: Invalid value: {why}"),
        );
    }
    for (names, why) in [
        (
            "secrets, configmaps, secrets",
            "[\"secrets\",\"configmaps\",\"secrets\"]: the same resource cannot be specified multiple times",
        ),
        (
            "secrets, '*.'",
            "[\"secrets\",\"*.\"]: using overlapping resources such as 'secrets' and '*.' in the same resource list",
        ),
        ("secrets, '*.*'", "[\"secrets\",\"*.*\"]: using overlapping resources"),
    ] {
        refused(
            &format!("[{{resources: [{names}], providers: [{{identity: {{}}}}]}}]"),
            &format!("resources[0].resources: Invalid value: {why}"),
        );
    }
    for (first, second, why) in [
        ("'*.'", "secrets", "resource \"secrets\" is masked by earlier rule \"*.\""),
        ("'*.*'", "deployments.apps", "resource \"deployments.apps\" is masked by earlier rule \"*.*\""),
        ("'*.apps'", "'*.apps'", "resource \"*.apps\" is masked by earlier rule \"*.apps\""),
    ] {
        let entry = |name: &str| format!("{{resources: [{name}], providers: [{{identity: {{}}}}]}}");
        refused(&format!("[{}, {}]", entry(first), entry(second)), &format!("resources[1].resources: {why}"));
    }
    refused(
        "[{resources: [secrets], providers: [{}]}]",
        "resources[0].providers[0]: Invalid value: provider does not contain any of the expected providers: KMS",
    );
    refused(
        "[{resources: [secrets], providers: [{identity: {}, aesgcm: {}}]}]",
        "resources[0].providers[0]: Invalid value: more than one provider specified in a single element",
    );
    refused(
        "[{resources: [secrets], providers: [{rot13: {}}]}]",
        "resources[0].providers[0].rot13: unknown field",
    );
    refused(
        "[{resources: [secrets], providers: [{aescbc: {keys: []}}]}]",
        "resources[0].providers[0].aescbc.keys: Required value: at least one keys is required",
    );
    let key = |name: &str, secret: &str| {
        format!(
            "[{{resources: [secrets], providers: [{{secretbox: {{keys: [{{name: '{name}', secret: '{secret}'}}]}}}}]}}]"
        )
    };
    refused(
        &key("", "AAAA"),
        "resources[0].providers[0].secretbox.keys[0].name: Required value: name is a mandatory field for a key",
    );
    refused(&key("a:b", "AAAA"), "resources[0].providers[0].secretbox.keys[0].name: Invalid value");
    refused(
        &key("a", "?"),
        "resources[0].providers[0].secretbox.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded",
    );
    refused(
        &key("a", "c2hvcnQ="),
        "resources[0].providers[0].secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 5, expected one of [32]",
    );
    assert_eq!(parse("kind: Secret", Times::default()).err(), Some(ConfigError::Type));
}

#[test]
fn who_keeps_keys_is_named_as_the_original_has_it() {
    let kms = |fields: &str, expected: &str| {
        refused(
            &format!("[{{resources: [secrets], providers: [{{kms: {{{fields}}}}}]}}]"),
            &format!("resources[0].providers[0].kms.{expected}"),
        );
    };
    let whole = |fields: &str| format!("apiVersion: v2, name: a, endpoint: 'unix:///a/b', {fields}");
    kms("", "name: Required value: name is a mandatory field for a provider");
    kms(
        "apiVersion: v2, name: 'a:b', endpoint: 'unix:///a'",
        "name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'",
    );
    for (timeout, shown) in [("0s", "0s"), ("'0'", "0s"), ("-90s", "-1m30s")] {
        kms(
            &whole(&format!("timeout: {timeout}")),
            &format!("timeout: Invalid value: \"{shown}\": timeout should be a positive value"),
        );
    }
    kms(&whole("timeout: soon"), "timeout: Invalid value: \"soon\": it is no duration");
    kms(&whole("timeout: 3"), "timeout: Invalid value: 3: a text is wanted");
    kms(&whole("cachesize: 10"), "cachesize: Invalid value: 10: cachesize is not supported in v2");
    kms(&whole("proxy: x"), "proxy: unknown field");
    kms("apiVersion: v2, name: a", "endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms");
    for (endpoint, scheme) in [("tcp://a:1", "tcp"), ("/a/b", "")] {
        kms(
            &format!("apiVersion: v2, name: a, endpoint: '{endpoint}'"),
            &format!(
                "endpoint: Invalid value: {endpoint:?}: unsupported scheme {scheme:?} for KMS provider, only unix is supported"
            ),
        );
    }
    kms(
        "apiVersion: v2, name: a, endpoint: 'unix://a'",
        "endpoint: Invalid value: \"unix://a\": invalid endpoint",
    );
    for version in ["", "apiVersion: v1,"] {
        kms(
            &format!("{version} name: 'a:b', endpoint: 'unix:///a'"),
            "apiVersion: Invalid value: \"v1\": KMSv1 is deprecated and not supported. Use KMSv2 instead",
        );
    }
    kms(
        "apiVersion: v3, name: a, endpoint: 'unix:///a'",
        "apiVersion: Invalid value: \"v3\": unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported",
    );
    let twice = format!("{{kms: {{{}}}}}", whole("timeout: 1s"));
    refused(
        &format!(
            "[{{resources: [secrets], providers: [{twice}]}}, {{resources: ['*.apps'], providers: [{{identity: {{}}}}, {twice}]}}]"
        ),
        "resources[1].providers[1].kms.name: Invalid value: \"a\": duplicate KMS provider name a, names must be unique",
    );
    let config = |fields: &str| {
        let text = format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{{resources: [secrets], providers: [{{kms: {{apiVersion: v2, name: a, {fields}}}}}]}}]}}"
        );
        let rules = parse(&text, Times::default()).unwrap_or_else(|e| panic!("{fields}: {e}"));
        let Config { path, timeout, .. } = rules[0].providers[0].kms().expect("a plugin").config().clone();
        (path, timeout)
    };
    assert_eq!(config("endpoint: 'unix:///a/b%20c'"), ("/a/b c".into(), Duration::from_secs(3)));
    assert_eq!(
        config("endpoint: 'unix:///@a', timeout: 1m500ms"),
        ("@a".into(), Duration::from_millis(60_500))
    );
}

#[test]
fn entries_are_about_what_they_name() {
    let kinds = crate::catalog::Catalog::default();
    kinds.rebuild(&[]);
    let kinds = kinds.snapshot();
    let check = |pattern: &str, hits: &[(&str, &str)], misses: &[(&str, &str)]| {
        let text = format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{{resources: ['{pattern}'], providers: [{{identity: {{}}}}]}}]}}"
        );
        let rules = parse(&text, Times::default()).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        for (list, expected) in [(hits, true), (misses, false)] {
            for (group, plural) in list {
                let kind = kinds.find(group, "v1", plural).expect(plural);
                assert_eq!(rules[0].is_about(kind), expected, "{pattern}: {plural}.{group}");
            }
        }
    };
    let (secrets, maps, deployments) = (("", "secrets"), ("", "configmaps"), ("apps", "deployments"));
    check("secrets", &[secrets], &[maps, deployments]);
    check("deployments.apps", &[deployments], &[secrets]);
    check("*.apps", &[deployments, ("apps", "daemonsets")], &[secrets]);
    check("*.", &[secrets, maps], &[deployments]);
    check("*.*", &[secrets, maps, deployments], &[]);
}
