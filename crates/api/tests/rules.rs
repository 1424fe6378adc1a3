//! Rules of custom resources: what a definition is told of them, and what objects are, new ones and changed ones.

use api::kinds::{Kind, Rejection, builtin, from_definition};
use serde_json::{Value, json};

/// A definition with this schema of `spec`, and of the whole where `rules` are given for it.
fn definition(spec: Value, rules: Value) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-validations": rules, "properties": {"spec": spec,
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "apps.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "apps", "kind": "App"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}}}]},
    })
}

fn texts(result: Result<Value, Rejection>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(Rejection::Fields(errors)) => errors.iter().map(ToString::to_string).collect(),
        Err(Rejection::Decode(why)) => vec![why],
    }
}

fn define(spec: Value, rules: Value) -> Vec<String> {
    let kind = builtin().iter().find(|kind| kind.kind == "CustomResourceDefinition").expect("the kind");
    texts(kind.behaviour.create(definition(spec, rules), &mut Vec::new()))
}

fn kind(spec: Value) -> Kind {
    assert_eq!(define(spec.clone(), json!([])), Vec::<String>::new());
    let definition = serde_json::from_value(definition(spec, json!([]))).expect("a definition");
    from_definition(&definition).expect("compiles").pop().expect("one version")
}

fn object(spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "App", "metadata": {"name": "a"}, "spec": spec})
}

fn create(kind: &Kind, spec: Value) -> Vec<String> {
    texts(kind.behaviour.create(object(&spec), &mut Vec::new()))
}

fn update(kind: &Kind, old: Value, new: Value) -> Vec<String> {
    texts(kind.behaviour.update(object(&new), &object(&old), &mut Vec::new()))
}

const RULE: &str = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
const HELP: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are \
                    declared)";

fn shown(rule: &str) -> String {
    format!(
        "{{\"Rule\":{},\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}",
        json!(rule)
    )
}

#[test]
fn a_definition_is_told_what_is_wrong_with_its_rules() {
    let define_rule = |rule: Value| {
        let spec = json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
            "n": {"type": "integer"}, "s": {"type": "string"}, "list": {"type": "array", "items": {"type": "string"}}}});
        define(spec, json!([]))
    };
    let cases = [
        (json!({"rule": "self.n > 0"}), vec![]),
        (
            json!({"rule": "self.x == 1"}),
            vec![format!(
                "{RULE}.rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'x'\n | self.x == 1\n | ....^",
                shown("self.x == 1")
            )],
        ),
        (
            json!({"rule": "self.n"}),
            vec![format!(
                "{RULE}.rule: Invalid value: {}: cel expression must evaluate to a bool",
                shown("self.n")
            )],
        ),
        (json!({"rule": " "}), vec![format!("{RULE}.rule: Required value: rule is not specified")]),
        (
            json!({"rule": "self.n > 0", "message": "a\nb"}),
            vec![format!("{RULE}.message: Invalid value: \"a\\nb\": must not contain line breaks")],
        ),
        (
            json!({"rule": "self.n > 0 &&\nself.n < 9"}),
            vec![format!(
                "{RULE}.message: Required value: message must be specified if rule contains line breaks"
            )],
        ),
        (
            json!({"rule": "self.n > 0", "reason": "Foo"}),
            vec![format!(
                "{RULE}.reason: Unsupported value: \"Foo\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \
                 \"FieldValueInvalid\", \"FieldValueRequired\""
            )],
        ),
        (
            json!({"rule": "self.n > 0", "fieldPath": ".x"}),
            vec![format!("{RULE}.fieldPath: Invalid value: \".x\": must be a valid path")],
        ),
        (
            json!({"rule": "self.n > 0", "optionalOldSelf": true}),
            vec![format!(
                "{RULE}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"
            )],
        ),
        (
            json!({"rule": "self.n == 0", "messageExpression": "self.n"}),
            vec![format!(
                "{RULE}.messageExpression: Invalid value: {}: messageExpression must evaluate to a string",
                shown("self.n == 0")
                    .replace("\"MessageExpression\":\"\"", "\"MessageExpression\":\"self.n\"")
            )],
        ),
        (
            json!({"rule": "self.list.all(a, self.list.all(b, a != b))"}),
            vec![
                format!(
                    "{RULE}.rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {HELP}"
                ),
                format!(
                    "{RULE}.rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
                ),
                format!(
                    "spec.validation.openAPIV3Schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 \
                     schema exceeds budget by factor of more than 100x {HELP}"
                ),
            ],
        ),
    ];
    for (rule, expected) in cases {
        assert_eq!(define_rule(rule.clone()), expected, "{rule}");
    }
}

#[test]
fn bounds_make_rules_affordable() {
    let spec = |bounds: Value| {
        let mut items = json!({"type": "string"});
        let mut list = json!({"type": "array", "x-kubernetes-validations": [{"rule": "self.all(a, self.exists_one(b, a == b))"}]});
        if !bounds.is_null() {
            items["maxLength"] = json!(20);
            list["maxItems"] = bounds;
        }
        list["items"] = items;
        json!({"type": "object", "properties": {"list": list}})
    };
    assert_eq!(define(spec(json!(20)), json!([])), Vec::<String>::new());
    assert!(!define(spec(Value::Null), json!([])).is_empty());
    let inside = json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "object", "properties": {
        "m": {"type": "object", "additionalProperties": {"type": "string", "x-kubernetes-validations": [{"rule": "self.contains('x')"}]}}}}}}});
    let found = define(inside, json!([]));
    assert!(found[0].starts_with("spec.validation.openAPIV3Schema.properties[spec].properties[list].items.properties[m].additionalProperties.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of"), "{found:?}");
}

#[test]
fn old_values_are_only_known_where_they_can_be_told_apart() {
    let rule = json!([{"rule": "self == oldSelf"}]);
    let list = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string", "maxLength": 5, "x-kubernetes-validations": rule}, "maxItems": 5}}});
    let place = "spec.validation.openAPIV3Schema.properties[spec].properties[l]";
    assert_eq!(
        define(list, json!([])),
        [format!(
            "{place}.items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the \
             uncorrelatable portion of the schema within {place}"
        )]
    );
    let root = json!([{"rule": "self.metadata.name.startsWith('a') && self.kind == 'App'"}]);
    assert_eq!(define(json!({"type": "object"}), root), Vec::<String>::new());
}

#[test]
fn two_schemas_are_told_of_where_they_stand() {
    let mut given = definition(json!({"type": "object"}), json!([{"rule": "self.x"}]));
    let mut second = given["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    second["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = json!([{"rule": "1"}]);
    given["spec"]["versions"].as_array_mut().expect("versions").push(second);
    let kind = builtin().iter().find(|kind| kind.kind == "CustomResourceDefinition").expect("the kind");
    let found = texts(kind.behaviour.create(given, &mut Vec::new()));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("spec.versions[0].schema.openAPIV3Schema.x-kubernetes-validations[0].rule: ")
    );
    assert!(found[1].ends_with("cel expression must evaluate to a bool"));
}

fn everywhere() -> Kind {
    kind(json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.minReplicas <= self.maxReplicas", "messageExpression": "'min %d is above max %d'.format([self.minReplicas, self.maxReplicas])"},
            {"rule": "!has(self.pair) || self.pair.a != self.pair.b", "message": "a and b must differ", "reason": "FieldValueForbidden", "fieldPath": ".pair.b"},
        ],
        "properties": {
            "minReplicas": {"type": "integer", "default": 1},
            "maxReplicas": {"type": "integer", "default": 5, "x-kubernetes-validations": [{"rule": "self < 100"}]},
            "name": {"type": "string", "maxLength": 30, "x-kubernetes-validations": [{"rule": "self.startsWith('a')", "message": "must start with a"}]},
            "fixed": {"type": "string", "maxLength": 9, "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
            "once": {"type": "string", "maxLength": 9, "x-kubernetes-validations": [{"rule": "!oldSelf.hasValue() || self != oldSelf.value()", "optionalOldSelf": true, "message": "must change"}]},
            "pair": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}, "b": {"type": "string", "maxLength": 9}}},
            "ports": {"type": "array", "maxItems": 9, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"],
                    "x-kubernetes-validations": [{"rule": "self.port >= oldSelf.port", "message": "ports only grow"}, {"rule": "self.port > 0"}],
                    "properties": {"name": {"type": "string", "maxLength": 9}, "port": {"type": "integer"}}}},
            "labels": {"type": "object", "maxProperties": 9, "additionalProperties": {"type": "string", "maxLength": 9,
                "x-kubernetes-validations": [{"rule": "self != ''", "reason": "FieldValueRequired"}]}},
            "target": {"x-kubernetes-int-or-string": true, "maxLength": 9, "x-kubernetes-validations": [{"rule": "type(self) == int ? self > 0 : self.endsWith('%')"}]},
            "unknown": {"x-kubernetes-int-or-string": true, "maxLength": 9, "x-kubernetes-validations": [{"rule": "self + 1 > 0"}]},
            "maybe": {"type": "object", "x-kubernetes-validations": [{"rule": "self.x == 'a'"}], "properties": {"x": {"type": "string", "maxLength": 9}}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
                "x-kubernetes-validations": [{"rule": "self.kind == 'Pod' && self.metadata.name != ''"}]},
        },
    }))
}

#[test]
fn rules_are_evaluated_at_every_level() {
    let kind = everywhere();
    for (spec, expected) in [
        (json!({}), vec![]),
        (json!({"minReplicas": 9}), vec!["spec: Invalid value: min 9 is above max 5"]),
        (json!({"maxReplicas": 100}), vec!["spec.maxReplicas: Invalid value: 100: failed rule: self < 100"]),
        (json!({"name": "b"}), vec!["spec.name: Invalid value: \"b\": must start with a"]),
        (json!({"pair": {"a": "x", "b": "x"}}), vec!["spec.pair.b: Forbidden: a and b must differ"]),
        (
            json!({"ports": [{"name": "a", "port": 0}, {"name": "b", "port": 1}]}),
            vec!["spec.ports[0]: Invalid value: failed rule: self.port > 0"],
        ),
        (json!({"labels": {"x": ""}}), vec!["spec.labels[x]: Required value: failed rule: self != ''"]),
        (json!({"target": "50%"}), vec![]),
        (
            json!({"target": "50"}),
            vec![
                "spec.target: Invalid value: \"50\": failed rule: type(self) == int ? self > 0 : self.endsWith('%')",
            ],
        ),
        (
            json!({"unknown": "x"}),
            vec![
                "spec.unknown: Invalid value: \"\": 'no such overload': call arguments did not match a supported operator, function or macro \
                 signature for rule: self + 1 > 0",
            ],
        ),
        (
            json!({"maybe": {}}),
            vec!["spec.maybe: Invalid value: \"object\": no such key: x evaluating rule: self.x == 'a'"],
        ),
        (json!({"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}}), vec![]),
        (
            json!({"template": {"apiVersion": "v1", "kind": "Job", "metadata": {"name": "p"}}}),
            vec!["spec.template: Invalid value: failed rule: self.kind == 'Pod' && self.metadata.name != ''"],
        ),
        (
            json!({"minReplicas": "x", "name": "b"}),
            vec![
                "spec.minReplicas: Invalid value: \"string\": spec.minReplicas in body must be of type integer: \"string\"",
                "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the \
                 existing errors to complete validation",
            ],
        ),
    ] {
        assert_eq!(create(&kind, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn changes_are_judged_against_what_was() {
    let kind = everywhere();
    for (old, new, expected) in [
        (json!({"fixed": "a"}), json!({"fixed": "a"}), vec![]),
        (
            json!({"fixed": "a"}),
            json!({"fixed": "b"}),
            vec!["spec.fixed: Invalid value: \"b\": is immutable"],
        ),
        (json!({}), json!({"fixed": "b"}), vec![]),
        (json!({"once": "a"}), json!({"once": "a"}), vec!["spec.once: Invalid value: \"a\": must change"]),
        (json!({"once": "a"}), json!({"once": "b"}), vec![]),
        // By their keys, wherever they stand.
        (
            json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 5}]}),
            json!({"ports": [{"name": "b", "port": 4}, {"name": "a", "port": 2}, {"name": "c", "port": 1}]}),
            vec!["spec.ports[0]: Invalid value: ports only grow"],
        ),
        // What is wrong already may stay, as long as it is not touched.
        (json!({"name": "b"}), json!({"name": "b", "minReplicas": 2}), vec![]),
        (
            json!({"name": "b"}),
            json!({"name": "c"}),
            vec!["spec.name: Invalid value: \"c\": must start with a"],
        ),
        (
            json!({"pair": {"a": "x", "b": "x"}}),
            json!({"pair": {"a": "x", "b": "x"}, "minReplicas": 2}),
            vec!["spec.pair.b: Forbidden: a and b must differ"],
        ),
        (
            json!({"ports": [{"name": "a", "port": 0}]}),
            json!({"ports": [{"name": "b", "port": 1}, {"name": "a", "port": 0}]}),
            vec![],
        ),
        (json!({"labels": {"x": ""}}), json!({"labels": {"x": "", "y": "1"}}), vec![]),
        // The same holds for the schema's other words.
        (json!({"name": "a".repeat(40)}), json!({"name": "a".repeat(40), "minReplicas": 2}), vec![]),
        (
            json!({"minReplicas": "x"}),
            json!({"minReplicas": "x", "name": "b"}),
            vec![
                "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: self.minReplicas <= self.maxReplicas",
                "spec.name: Invalid value: \"b\": must start with a",
            ],
        ),
    ] {
        assert_eq!(update(&kind, old.clone(), new.clone()), expected, "{old} → {new}");
    }
}

#[test]
fn a_status_is_judged_too() {
    let given = definition(
        json!({"type": "object"}),
        json!([{"rule": "!has(self.status) || !has(self.status.ready) || self.status.ready"}]),
    );
    let kind = from_definition(&serde_json::from_value(given).expect("a definition"))
        .expect("compiles")
        .pop()
        .expect("one");
    let old = object(&json!({}));
    let mut new = old.clone();
    new["status"] = json!({"ready": false});
    let rule = "!has(self.status) || !has(self.status.ready) || self.status.ready";
    let expected = format!("<nil>: Invalid value: failed rule: {rule}");
    assert_eq!(texts(kind.behaviour.update_status(new, &old)), [expected]);
}

#[test]
fn what_rules_cost_is_bounded() {
    // Too dear by their estimates; as if the definitions came from before there were any.
    let kind = |rule: &str| {
        let spec = json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 20, "items": {"type": "string",
            "x-kubernetes-validations": [{"rule": rule, "message": "slow"}]}}}});
        let given = serde_json::from_value(definition(spec, json!([]))).expect("a definition");
        from_definition(&given).expect("compiles").pop().expect("one")
    };
    let one = kind("lists.range(900).all(a, lists.range(900).all(b, true))");
    assert_eq!(
        create(&one, json!({"l": ["a", "b"]})),
        [
            "spec.l[0]: Invalid value: \"string\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run \
          due to call cost exceeds limit for rule: slow"
        ]
    );
    let many = kind("lists.range(500).all(a, lists.range(400).all(b, true))");
    let items: Vec<&str> = "abcdefghijklmnop".split_inclusive(|_: char| true).collect();
    assert_eq!(
        create(&many, json!({"l": items})),
        [
            "spec.l[12]: Invalid value: \"string\": validation failed due to running out of cost budget, no further validation rules will be \
          run"
        ]
    );
}
