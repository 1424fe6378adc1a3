//! Policies: what they are told when they are written, and what they say of operations and make of objects.

use api::kinds::{Rejection, builtin};
use api::policy::{AdmissionVars, Denial, MutatingPolicy, ValidatingPolicy, Verdict};
use cel::Question;
use serde_json::{Value, json};

fn create(kind: &str, spec: Value) -> Vec<String> {
    let kind = builtin().iter().find(|k| k.kind == kind).expect("the kind");
    let object = json!({"apiVersion": kind.api_version(), "kind": &*kind.kind, "metadata": {"name": "x"}, "spec": spec});
    match kind.behaviour.create(object, &mut Vec::new()) {
        Ok(_) => Vec::new(),
        Err(Rejection::Fields(errors)) => errors.iter().map(ToString::to_string).collect(),
        Err(Rejection::Decode(why)) => vec![why],
    }
}

fn constraints() -> Value {
    json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]})
}

fn with(mut spec: Value, change: Value) -> Value {
    for (key, value) in change.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

#[test]
fn a_validating_policy_is_told_what_is_wrong() {
    let spec = |change: Value| {
        with(
            json!({"matchConstraints": constraints(), "validations": [{"expression": "object.spec.replicas <= 5"}]}),
            change,
        )
    };
    for (change, expected) in [
        (json!({}), vec![]),
        (json!({"matchConstraints": null}), vec!["spec.matchConstraints: Required value"]),
        (
            json!({"validations": []}),
            vec![
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ],
        ),
        (
            json!({"validations": [{"expression": "object.spec.replicas"}]}),
            vec![
                "spec.validations[0].expression: Invalid value: \"object.spec.replicas\": must evaluate to bool but got dyn",
            ],
        ),
        (
            json!({"validations": [{"expression": "object.x &&"}]}),
            vec![
                "spec.validations[0].expression: Invalid value: \"object.x &&\": compilation failed: ERROR: <input>:1:12: Syntax error: \
                 mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
                 STRING, BYTES, IDENTIFIER}\n | object.x &&\n | ...........^",
            ],
        ),
        (
            json!({"validations": [{"expression": " "}]}),
            vec!["spec.validations[0].expression: Required value: expression is not specified"],
        ),
        (
            json!({"validations": [{"expression": "params.x == 1"}]}),
            vec![
                "spec.validations[0].expression: Invalid value: \"params.x == 1\": compilation failed: ERROR: <input>:1:1: undeclared \
                 reference to 'params' (in container '')\n | params.x == 1\n | ^",
            ],
        ),
        (
            json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "params.data.x == '1'"}]}),
            vec![],
        ),
        (
            json!({"validations": [{"expression": "true", "reason": "Foo"}]}),
            vec![
                "spec.validations[0].reason: Unsupported value: \"Foo\": supported values: \"Forbidden\", \"Invalid\", \
                 \"RequestEntityTooLarge\"",
            ],
        ),
        (
            json!({"variables": [{"name": "a", "expression": "1"}, {"name": "a", "expression": "'x'"}, {"name": "1b", "expression": "variables.a"}]}),
            vec!["spec.variables[2].name: Invalid value: \"1b\": must be a valid CEL identifier"],
        ),
        (
            json!({"variables": [{"name": "a", "expression": "1"}], "validations": [{"expression": "variables.a + 'x' == ''"}]}),
            vec![
                "spec.validations[0].expression: Invalid value: \"variables.a + 'x' == ''\": compilation failed: ERROR: <input>:1:13: found no \
                 matching overload for '_+_' applied to '(int, string)'\n | variables.a + 'x' == ''\n | ............^",
            ],
        ),
        (
            json!({"matchConditions": [{"name": "", "expression": "1"}]}),
            vec![
                "spec.matchConditions[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
                "spec.matchConditions[0].name: Required value",
            ],
        ),
        (
            json!({"failurePolicy": "Maybe"}),
            vec!["spec.failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\""],
        ),
    ] {
        assert_eq!(create("ValidatingAdmissionPolicy", spec(change.clone())), expected, "{change}");
    }
}

#[test]
fn expressions_are_held_to_the_types_they_are_about() {
    let kind = builtin().iter().find(|k| k.kind == "ValidatingAdmissionPolicy").expect("the kind");
    let spec = |expression: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "x", "generation": 1},
            "spec": {"matchConstraints": constraints(), "variables": [{"name": "n", "expression": "object.spec.replicas"}],
                "validations": [{"expression": expression}]}})
    };
    let status = |object: Result<Value, Rejection>| object.map(|object| object["status"].clone()).ok();
    let sound = spec(
        "variables.n > 1 && object.spec.template.spec.containers.all(c, c.image != '') && object.metadata.name != ''",
    );
    assert_eq!(
        status(kind.behaviour.create(sound.clone(), &mut Vec::new())),
        Some(json!({"observedGeneration": 1, "typeChecking": {}}))
    );
    let unsound = spec("object.spec.replica > 1");
    let warning = "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replica'\n | object.spec.replica > 1\n | ...........^\n";
    assert_eq!(
        status(kind.behaviour.update(unsound, &sound, &mut Vec::new())),
        Some(json!({"observedGeneration": 2, "typeChecking": {"expressionWarnings": [
            {"fieldRef": "spec.validations[0].expression", "warning": warning}]}}))
    );
}

#[test]
fn bindings_are_told_what_is_wrong() {
    let spec = |change: Value| with(json!({"policyName": "p", "validationActions": ["Deny"]}), change);
    for (change, expected) in [
        (json!({}), vec![]),
        (json!({"policyName": ""}), vec!["spec.policyName: Required value"]),
        (
            json!({"validationActions": []}),
            vec!["spec.validationActions: Required value: at least one validation action is required"],
        ),
        (
            json!({"validationActions": ["Deny", "Warn"]}),
            vec![
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn (repeating the same validation \
                 failure information in the API response and headers serves no purpose)",
            ],
        ),
        (
            json!({"paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Deny"}}),
            vec![
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            ],
        ),
        (json!({"paramRef": {"name": "a"}}), vec!["spec.paramRef.parameterNotFoundAction: Required value"]),
    ] {
        assert_eq!(create("ValidatingAdmissionPolicyBinding", spec(change.clone())), expected, "{change}");
    }
}

#[test]
fn a_mutating_policy_is_told_what_is_wrong() {
    let mutation = |expression: &str| json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]);
    let spec = |change: Value| {
        with(
            json!({"matchConstraints": constraints(), "reinvocationPolicy": "Never", "mutations": mutation("Object{spec: Object.spec{replicas: 1}}")}),
            change,
        )
    };
    for (change, expected) in [
        (json!({}), vec![]),
        (json!({"reinvocationPolicy": null}), vec!["spec.reinvocationPolicy: Required value"]),
        (
            json!({"mutations": []}),
            vec!["spec.mutations: Required value: mutations must contain at least one item"],
        ),
        (
            json!({"mutations": mutation("1")}),
            vec![
                "spec.mutations[0].applyConfiguration.expression: Invalid value: \"1\": must evaluate to Object but got int",
            ],
        ),
        (
            json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', foo: 1}]"}}]}),
            vec![
                "spec.mutations[0].jsonPatch.expression: Invalid value: \"[JSONPatch{op: 'add', foo: 1}]\": compilation failed: ERROR: \
                 <input>:1:26: undefined field 'foo'\n | [JSONPatch{op: 'add', foo: 1}]\n | .........................^",
            ],
        ),
        (
            json!({"mutations": [{"patchType": "JSONPatch"}]}),
            vec![
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
            ],
        ),
    ] {
        assert_eq!(create("MutatingAdmissionPolicy", spec(change.clone())), expected, "{change}");
    }
}

fn vars<'a>(object: &'a Value, params: &'a Value, request: &'a Value) -> AdmissionVars<'a> {
    AdmissionVars {
        object,
        old_object: &Value::Null,
        request,
        params,
        namespace: &Value::Null,
        authorizer: None,
        resource: Question::default(),
    }
}

fn judge(spec: Value) -> Verdict {
    let spec = with(json!({"matchConstraints": constraints()}), spec);
    let policy = ValidatingPolicy::compile(&serde_json::from_value(spec).expect("a policy"));
    let object = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"replicas": 7}});
    let (params, request) =
        (json!({"data": {"max": "5"}}), json!({"operation": "CREATE", "userInfo": {"username": "jane"}}));
    policy.judge(&vars(&object, &params, &request))
}

fn denial(message: &str, reason: &str) -> Denial {
    Denial { message: message.into(), reason: reason.into(), expression: 0 }
}

#[test]
fn validations_say_what_does_not_hold() {
    let params = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    for (spec, expected) in [
        (json!({"validations": [{"expression": "object.spec.replicas <= 10"}]}), vec![]),
        (
            json!({"validations": [{"expression": "object.spec.replicas <= 5"}]}),
            vec![denial("failed expression: object.spec.replicas <= 5", "Invalid")],
        ),
        (
            json!({"paramKind": params, "variables": [{"name": "max", "expression": "int(params.data.max)"}, {"name": "over", "expression": "object.spec.replicas - variables.max"}],
                "validations": [{"expression": "variables.over <= 0", "messageExpression": "'%d too many for %s'.format([variables.over, request.userInfo.username])", "reason": "Forbidden"}]}),
            vec![denial("2 too many for jane", "Forbidden")],
        ),
        (
            json!({"validations": [{"expression": "false", "message": " fixed ", "messageExpression": "'a\\nb'"}, {"expression": "false", "message": "second"}]}),
            vec![denial("fixed", "Invalid"), Denial { expression: 1, ..denial("second", "Invalid") }],
        ),
        (
            json!({"validations": [{"expression": "object.spec.nothing == 1"}]}),
            vec![denial(
                "expression 'object.spec.nothing == 1' resulted in error: no such key: nothing",
                "Invalid",
            )],
        ),
        (
            json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.spec.nothing == 1"}]}),
            vec![],
        ),
        (
            json!({"failurePolicy": "Ignore", "validations": [{"expression": "false"}]}),
            vec![denial("failed expression: false", "Invalid")],
        ),
        (
            json!({"matchConditions": [{"name": "c", "expression": "request.operation == 'DELETE'"}], "validations": [{"expression": "false"}]}),
            vec![],
        ),
        (
            json!({"variables": [{"name": "bad", "expression": "object.x"}], "validations": [{"expression": "variables.bad == 1"}, {"expression": "true || variables.bad"}]}),
            vec![denial(
                "expression 'variables.bad == 1' resulted in error: composited variable \"bad\" fails to evaluate: no such key: x",
                "Invalid",
            )],
        ),
        // Each within its own limit, and together too much.
        (
            json!({"validations": (0..20).map(|_| json!({"expression": "lists.range(500).all(a, lists.range(400).all(b, true))"})).collect::<Vec<_>>()}),
            vec![denial(
                "validation failed due to running out of cost budget, no further validation rules will be run",
                "Invalid",
            )],
        ),
    ] {
        assert_eq!(judge(spec.clone()).denials, expected, "{spec}");
    }
    let annotated = judge(
        json!({"auditAnnotations": [{"key": "replicas", "valueExpression": "'are ' + string(object.spec.replicas)"},
        {"key": "none", "valueExpression": "null"}, {"key": "bad", "valueExpression": "object.x"}]}),
    );
    assert_eq!(annotated.annotations, [("replicas".to_owned(), "are 7".to_owned())]);
    assert_eq!(annotated.annotation_faults, ["expression 'object.x' resulted in error: no such key: x"]);
}

fn mutate(mutations: Value) -> Result<Option<(Value, Vec<String>)>, String> {
    let spec = json!({"matchConstraints": constraints(), "reinvocationPolicy": "Never", "mutations": mutations,
        "variables": [{"name": "image", "expression": "'proxy:1'"}]});
    let policy = MutatingPolicy::compile(&serde_json::from_value(spec).expect("a policy"));
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
    let schema = api::schema::of_kind("", "v1", "Pod");
    policy.mutate(&vars(&object, &Value::Null, &json!({})), schema.as_ref())
}

#[test]
fn configurations_are_applied_and_patches_too() {
    let apply = |expression: &str| json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
    let patch = |expression: &str| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}});
    let (object, faults) = mutate(json!([
        apply("Object{spec: Object.spec{initContainers: [Object.spec.initContainers{name: 'proxy', image: variables.image, restartPolicy: 'Always'}], containers: [Object.spec.containers{name: 'web', imagePullPolicy: 'Always'}]}}"),
        patch("[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x/y'), value: string(size(object.spec.initContainers))}]"),
        patch("[JSONPatch{op: 'test', path: '/metadata/labels/a', value: 'z'}, JSONPatch{op: 'remove', path: '/spec'}]"),
        patch("has(object.metadata.annotations) ? [] : [JSONPatch{op: 'add', path: '/metadata/annotations', value: Object.metadata.annotations{k: 'v'}}]"),
    ]))
    .expect("matches")
    .expect("an object");
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(
        object,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"a": "b", "x/y": "1"}, "annotations": {"k": "v"}},
            "spec": {"initContainers": [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}],
                "containers": [{"name": "web", "image": "web:1", "imagePullPolicy": "Always"}]}})
    );
    for (mutation, expected) in [
        (
            apply("Object{spec: Object.wrong{nodeName: 'a'}}"),
            "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path from root Object type",
        ),
        (
            apply(
                "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'web', command: ['a']}]}}",
            ),
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers[0].command",
        ),
        (
            apply("Object{spec: object.spec.nothing}"),
            "expression 'Object{spec: object.spec.nothing}' resulted in error: no such key: nothing",
        ),
        (patch("[JSONPatch{op: 'remove', path: '/nothing'}]"), "JSON Patch: "),
    ] {
        let (_, faults) = mutate(json!([mutation])).expect("matches").expect("an object");
        assert!(faults.len() == 1 && faults[0].starts_with(expected), "{mutation}: {faults:?}");
    }
}

#[test]
fn long_chains_of_variables_fit_a_small_stack() {
    let chain = |length: usize, made: &dyn Fn(String) -> String, validation: String| {
        let mut variables = vec![json!({"name": "v0", "expression": "0"})];
        for at in 1..length {
            let expression = made(format!("variables.v{}", at - 1));
            variables.push(json!({"name": format!("v{at}"), "expression": expression}));
        }
        json!({"variables": variables, "validations": [{"expression": validation}]})
    };
    let sum = |before: String| format!("{before} {}", "+ 1".repeat(80));
    let list = |before: String| format!("[{before}]");
    let check = move || {
        let fitting = [
            chain(200, &|before| format!("{before} + 1"), "variables.v199 == 199".to_owned()),
            chain(10, &sum, "variables.v9 == 720".to_owned()),
            chain(
                400,
                &list,
                "variables.v199 == [variables.v198] && type(variables.v199) == list".to_owned(),
            ),
        ];
        for spec in fitting {
            assert_eq!(judge(spec).denials, []);
        }
        for spec in [
            chain(5000, &list, "variables.v4999 == [variables.v4998]".to_owned()),
            chain(100, &sum, "variables.v99 == 0".to_owned()),
        ] {
            let denials = judge(spec).denials;
            assert!(
                denials.iter().any(|denial| denial.message.contains("variables nest too deeply")),
                "{denials:?}"
            );
        }
    };
    let thread = std::thread::Builder::new().stack_size(3 << 19).spawn(check).expect("a thread");
    thread.join().expect("no overflow");
}
