//! What a few letters of a schema or of a body may come to: faults are told up to so much, and what a schema asks for is done
//! up to so much. Past it the request is refused in words, whatever is multiplied by what.

use api::schema::{self, Schema, decode};
use serde_json::{Value, json};

/// A definition whose spec is this.
fn custom(spec: Value) -> Schema {
    let spec = json!({"type": "object", "properties": {"spec": spec}});
    schema::from_crd(&spec).expect("structural")
}

#[test]
fn faults_are_told_up_to_so_much() {
    // A name as long as it may be, and each of many faults below it.
    let long = "x".repeat(1 << 20);
    let twice: String = (0..50_000).map(|_| "\"a\":1,").collect();
    let body = format!("{{\"{long}\":{{{twice}\"b\":1}}}}");
    let decoded = decode::parse_json(body.as_bytes()).expect("JSON");
    let bytes: usize = decoded.duplicates.iter().map(|fault| fault.to_string().len()).sum();
    assert!(!decoded.duplicates.is_empty() && bytes < 4 << 20, "{bytes} bytes");
    let properties: Value =
        (0..20_000).map(|n| (format!("a{n}"), 1.into())).collect::<serde_json::Map<_, _>>().into();
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {},
        "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"properties": {&long: properties}}}}]}});
    let faults = schema::of_object(&definition).expect("built in").check(&definition);
    let bytes: usize = faults.iter().map(|fault| fault.to_string().len()).sum();
    assert!(!faults.is_empty() && bytes < 4 << 20, "{bytes} bytes");
    // Each of many values is none of many.
    let choice = custom(json!({"type": "array", "items": {"type": "string",
        "enum": (0..50_000).map(|n| format!("x{n}")).collect::<Vec<_>>()}}));
    let faults = choice.validate(&json!({"spec": vec!["y"; 50_000]}));
    let bytes: usize = faults.iter().map(|fault| fault.to_string().len()).sum();
    assert!(bytes < 4 << 20, "{bytes} bytes");
    assert!(faults.iter().any(|fault| fault.to_string().contains("too many errors")), "{}", faults.len());
}

#[test]
fn what_schemas_ask_for_is_bounded() {
    let apart: Vec<Value> = (0..3_000).map(|n| json!({"required": [format!("a{n}")]})).collect();
    let choice = custom(json!({"type": "array", "items": {"type": "object", "anyOf": apart,
        "x-kubernetes-preserve-unknown-fields": true}}));
    let few = choice.validate(&json!({"spec": vec![json!({"a2999": 1}); 100]}));
    assert!(few.is_empty(), "{few:?}");
    let many = choice.validate(&json!({"spec": vec![json!({"a2999": 1}); 20_000]}));
    let told: Vec<String> = many.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["<nil>: Invalid value: the object takes too long to check against its schema"]);
    let large = "x".repeat(10_000);
    let filling = custom(json!({"type": "array", "items": {"type": "object",
        "properties": {"a": {"type": "string", "default": large}}}}));
    let mut object = json!({"spec": vec![json!({}); 100_000]});
    filling.apply_defaults(&mut object);
    assert!(object.to_string().len() < 16 << 20, "{} bytes", object.to_string().len());
}

#[test]
fn patterns_are_weighed_together() {
    let read = |patterns: Vec<String>| {
        let properties = patterns.into_iter().enumerate();
        let properties: serde_json::Map<_, _> =
            properties.map(|(n, p)| (format!("p{n}"), json!({"type": "string", "pattern": p}))).collect();
        schema::from_crd(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}),
        )
        .err()
        .unwrap_or_default()
    };
    assert_eq!(read(vec!["^[a-z0-9]([-a-z0-9]*[a-z0-9])?$".to_owned(); 3_000]), Vec::<String>::new());
    assert_eq!(read((0..3_000).map(|n| format!("^[a-z0-9]{{{}}}$", n % 60)).collect()), Vec::<String>::new());
    let one = read(vec!["(\\pL{1,900}){1}".to_owned(); 3]);
    assert_eq!(one.len(), 3, "{one:?}");
    assert!(
        one[0].contains("pattern: Invalid value") && one[0].ends_with("expression too large"),
        "{}",
        one[0]
    );
    let many = read((1..3_000).map(|n| format!("(\\pL{{1,{}}}){{1}}", 1 + n % 400)).collect());
    assert!(
        many.len() == 1
            && many[0].starts_with("pattern: Forbidden: the patterns of this definition are too large")
    );
    // Held against a long text, a large one is given up.
    let schema = custom(json!({"type": "string", "pattern": "^(\\pL{1,300}x)*$"}));
    assert!(schema.validate(&json!({"spec": "abcx"})).is_empty());
    let told: Vec<String> =
        schema.validate(&json!({"spec": "é".repeat(100_000)})).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["<nil>: Invalid value: the object takes too long to check against its schema"]);
}

#[test]
fn patterns_of_all_versions_are_weighed_together() {
    let definition = |versions: &[Vec<String>]| {
        let version = |(n, patterns): (usize, &Vec<String>)| {
            let properties = patterns.iter().enumerate();
            let properties: serde_json::Map<_, _> =
                properties.map(|(n, p)| (format!("p{n}"), json!({"type": "string", "pattern": p}))).collect();
            json!({"name": format!("v{}", n + 1), "served": true, "storage": n == 0, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}}})
        };
        let versions: Vec<Value> = versions.iter().enumerate().map(version).collect();
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "as.x.io"},
            "spec": {"group": "x.io", "scope": "Namespaced", "versions": versions,
                "names": {"plural": "as", "kind": "A", "singular": "a", "listKind": "AList"}}})
    };
    // Each of a third of what is allowed.
    let heavy = |first: usize| vec![format!("(\\pL{{1,{}}}){{1}}", first)];
    let check = |versions: &[Vec<String>], fault: &str| {
        let definition = definition(versions);
        let compiled =
            api::kinds::from_definition(&serde_json::from_value(definition.clone()).expect("a definition"));
        assert_eq!(compiled.err().unwrap_or_default().is_empty(), fault.is_empty(), "{fault}");
        let kinds = api::kinds::builtin().iter();
        let kind = kinds.into_iter().find(|k| k.kind == "CustomResourceDefinition").expect("built in");
        let told = match kind.behaviour.create(definition, &mut Vec::new()) {
            Err(api::kinds::Rejection::Fields(faults)) => faults.iter().map(ToString::to_string).collect(),
            Err(_) => panic!("refused otherwise"),
            Ok(_) => Vec::new(),
        };
        match fault {
            "" => assert_eq!(told, Vec::<String>::new()),
            fault => assert!(told.len() == 1 && told[0].starts_with(fault), "{told:?}"),
        }
    };
    check(&[heavy(200), heavy(201)], "");
    check(&vec![heavy(200); 8], "");
    check(
        &[heavy(200), heavy(201), heavy(202), heavy(203)],
        "spec.versions[2].schema.openAPIV3Schema.pattern: Forbidden: the patterns of this definition are too large together",
    );
}
