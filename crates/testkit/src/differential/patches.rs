//! Random patches: an object, and then patches of all four kinds by several managers, with values from small pools so that
//! they meet. A case is made from its seed alone.

use serde_json::{Map, Value, json};

use super::cases::{APPLY, Body, Case, JSON, JSON_PATCH, MERGE, NAMESPACE, STRATEGIC, Step, merge};

/// Patches of a case.
pub const STEPS: usize = 8;
const MANAGERS: &[&str] = &["a", "b", "c", "kubectl"];

/// The definition of the custom resource among the subjects; both servers need it first.
pub fn definition() -> Value {
    let part = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"},
        "kind": {"type": "string", "default": "x"}, "n": {"type": "integer"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}});
    let text = json!({"type": "string"});
    let spec = json!({"type": "object", "properties": {
        "size": {"type": "integer"}, "port": {"x-kubernetes-int-or-string": true},
        "color": {"type": "string", "default": "red"}, "none": {"type": "string", "nullable": true},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
        "plain": {"type": "array", "items": text},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "kind"], "items": part},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": text, "b": text}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "shapes.patches.example.com"}, "spec": {"group": "patches.example.com",
        "scope": "Namespaced", "names": {"plural": "shapes", "singular": "shape", "kind": "Shape"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Xorshift: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn chance(&mut self, in_hundred: usize) -> bool {
        self.below(100) < in_hundred
    }
}

struct Subject {
    label: &'static str,
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// What makes the skeleton a valid object.
    base: Value,
    /// Parts that patches are put together from.
    parts: Vec<Value>,
    /// Lists and maps of the object, for JSON patches and directives: pointer and a value of an element.
    places: Vec<(&'static str, Value)>,
    strategic: bool,
}

fn metadata_parts() -> Vec<Value> {
    let mut parts = Vec::new();
    for key in ["a", "b"] {
        for value in ["1", "2"] {
            parts.push(json!({"metadata": {"labels": {key: value}}}));
            parts.push(json!({"metadata": {"annotations": {key: value}}}));
        }
    }
    parts.push(json!({"metadata": {"finalizers": ["example.com/a"]}}));
    parts.push(json!({"metadata": {"finalizers": ["example.com/b", "example.com/a"]}}));
    parts
}

fn deployment() -> Subject {
    let container = |name: &str, more: Value| {
        let mut container = json!({"name": name, "image": "i1"});
        merge(&mut container, &more);
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    };
    let pod = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let mut parts = metadata_parts();
    parts.extend([
        json!({"spec": {"replicas": 1}}),
        json!({"spec": {"replicas": 0}}),
        json!({"spec": {"paused": true}}),
        json!({"spec": {"paused": false}}),
        json!({"spec": {"minReadySeconds": 3}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}}),
        json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": "30%", "maxUnavailable": 0}}}}),
        container("c", json!({"image": "i2"})),
        container("c", json!({"env": [{"name": "A", "value": "1"}]})),
        container("c", json!({"env": [{"name": "B", "value": "1"}, {"name": "A", "value": "2"}]})),
        container("c", json!({"ports": [{"containerPort": 80}]})),
        container("c", json!({"ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80, "name": "web"}]})),
        container("c", json!({"args": ["x", "y"]})),
        container("c", json!({"resources": {"limits": {"cpu": "1", "memory": "1024Mi"}}})),
        container("c", json!({"resources": {"limits": {"cpu": "1000m"}, "requests": {"cpu": "0.5"}}})),
        container("d", json!({"env": []})),
        container("d", json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/w"}]})),
        pod(json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
        pod(json!({"volumes": [{"name": "v", "configMap": {"name": "m"}}]})),
        pod(json!({"volumes": [{"name": "v", "emptyDir": null, "configMap": {"name": "n"}}]})),
        pod(json!({"tolerations": [{"key": "k", "operator": "Exists"}]})),
        pod(json!({"nodeSelector": {"n": "1"}})),
        pod(json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["h"]}]})),
        pod(json!({"imagePullSecrets": [{"name": "s"}, {"name": "t"}]})),
        pod(json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]})),
        pod(json!({"securityContext": {"runAsUser": 1, "sysctls": [{"name": "a", "value": "b"}]}})),
    ]);
    Subject {
        label: "deployment",
        api_version: "apps/v1",
        kind: "Deployment",
        plural: "deployments",
        base: json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "p"}}, "template": {"metadata": {"labels": {"app": "p"}},
            "spec": {"containers": [{"name": "c", "image": "i1"}]}}}}),
        parts,
        places: vec![
            ("/metadata/labels", json!("3")),
            ("/metadata/finalizers", json!("example.com/c")),
            ("/spec/template/spec/containers", json!({"name": "e", "image": "i3"})),
            ("/spec/template/spec/containers/0/env", json!({"name": "C", "value": "3"})),
            ("/spec/template/spec/containers/0/ports", json!({"containerPort": 81})),
            ("/spec/template/spec/volumes", json!({"name": "w", "emptyDir": {}})),
            ("/spec/template/spec/tolerations", json!({"key": "l", "operator": "Exists"})),
            ("/spec/strategy", json!({"type": "Recreate"})),
            ("/spec/replicas", json!(2)),
        ],
        strategic: true,
    }
}

fn service() -> Subject {
    let ports = |ports: Value| json!({"spec": {"ports": ports}});
    let mut parts = metadata_parts();
    parts.extend([
        ports(json!([{"port": 80, "name": "web"}])),
        ports(json!([{"port": 80, "protocol": "UDP", "name": "dns"}])),
        ports(json!([{"port": 81, "name": "other", "targetPort": "web"}, {"port": 80, "name": "web", "targetPort": 8080}])),
        ports(json!([{"port": 80, "name": "again"}, {"port": 80, "name": "twice"}])),
        json!({"spec": {"selector": {"app": "x"}}}),
        json!({"spec": {"selector": {"app": null, "b": "1"}}}),
        json!({"spec": {"sessionAffinity": "ClientIP"}}),
        json!({"spec": {"sessionAffinity": "None", "sessionAffinityConfig": null}}),
        json!({"spec": {"externalIPs": ["10.9.9.9"]}}),
        json!({"spec": {"publishNotReadyAddresses": true}}),
    ]);
    Subject {
        label: "service",
        api_version: "v1",
        kind: "Service",
        plural: "services",
        base: json!({"spec": {"clusterIP": "None", "selector": {"app": "p"}, "ports": [{"port": 80, "name": "web"}]}}),
        parts,
        places: vec![
            ("/spec/ports", json!({"port": 90, "name": "more"})),
            ("/spec/selector", json!("z")),
            ("/metadata/annotations", json!("4")),
            ("/metadata/finalizers", json!("example.com/c")),
        ],
        strategic: true,
    }
}

fn config_map() -> Subject {
    let mut parts = metadata_parts();
    parts.extend([
        json!({"data": {"a": "1"}}),
        json!({"data": {"a": "2", "b": ""}}),
        json!({"data": {"a": null}}),
        json!({"data": {}}),
        json!({"data": null}),
        json!({"binaryData": {"c": "AAEC"}}),
        json!({"immutable": false}),
        json!({"data": {"a": 1}}),
        json!({"unknown": {"x": 1}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u1"}]}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o2", "uid": "u2"}]}}),
    ]);
    Subject {
        label: "configmap",
        api_version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        base: json!({"data": {"z": "0"}}),
        parts,
        places: vec![
            ("/data", json!("v")),
            ("/metadata/labels", json!("3")),
            (
                "/metadata/ownerReferences",
                json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "p", "uid": "u3"}),
            ),
            ("/data/a~1b", json!("w")),
            ("/data/a~0b", json!("w")),
        ],
        strategic: true,
    }
}

fn service_account() -> Subject {
    let mut parts = metadata_parts();
    parts.extend([
        json!({"secrets": [{"name": "s"}]}),
        json!({"secrets": [{"name": "t"}, {"name": "s"}]}),
        json!({"imagePullSecrets": [{"name": "s"}]}),
        json!({"imagePullSecrets": [{"name": "t"}]}),
        json!({"automountServiceAccountToken": false}),
        json!({"automountServiceAccountToken": null}),
    ]);
    Subject {
        label: "serviceaccount",
        api_version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        base: json!({}),
        parts,
        places: vec![
            ("/secrets", json!({"name": "u"})),
            ("/imagePullSecrets", json!({"name": "u"})),
            ("/metadata/labels", json!("3")),
        ],
        strategic: true,
    }
}

fn shape() -> Subject {
    let spec = |spec: Value| json!({"spec": spec});
    let mut parts = metadata_parts();
    parts.extend([
        spec(json!({"size": 1})),
        spec(json!({"size": 2, "color": "blue"})),
        spec(json!({"color": null})),
        spec(json!({"none": null})),
        spec(json!({"none": "x"})),
        spec(json!({"port": "http"})),
        spec(json!({"port": 8})),
        spec(json!({"tags": ["a"]})),
        spec(json!({"tags": ["b", "a"]})),
        spec(json!({"tags": ["a", "a"]})),
        spec(json!({"tags": []})),
        spec(json!({"plain": ["a"]})),
        spec(json!({"plain": ["b", "a"]})),
        spec(json!({"parts": [{"name": "p"}]})),
        spec(json!({"parts": [{"name": "p", "n": 1}, {"name": "p", "kind": "y", "tags": ["t"]}]})),
        spec(json!({"parts": [{"name": "q", "n": 2}, {"name": "p", "kind": "x", "n": 3}]})),
        spec(json!({"parts": [{"name": "p"}, {"name": "p"}]})),
        spec(json!({"whole": {"a": "1"}})),
        spec(json!({"whole": {"b": "1", "a": "2"}})),
        spec(json!({"map": {"k": {"x": 1}}})),
        spec(json!({"map": {"k": {"y": 1}, "l": {}}})),
        spec(json!({"map": {"k": null}})),
        spec(json!({"open": {"any": {"thing": [1, {"a": "b"}]}}})),
        spec(json!({"open": {"any": {"other": null}}})),
        spec(json!({"bogus": 1})),
        spec(json!({"size": "text"})),
    ]);
    Subject {
        label: "shape",
        api_version: "patches.example.com/v1",
        kind: "Shape",
        plural: "shapes",
        base: json!({"spec": {"size": 0}}),
        parts,
        places: vec![
            ("/spec/tags", json!("c")),
            ("/spec/parts", json!({"name": "r"})),
            ("/spec/map", json!({"x": 5})),
            ("/spec/whole/a", json!("9")),
            ("/metadata/labels", json!("3")),
            ("/spec/plain", json!("c")),
        ],
        strategic: false,
    }
}

const SUBJECTS: &[fn() -> Subject] = &[deployment, service, config_map, service_account, shape];

struct Maker {
    random: Random,
    subject: Subject,
    name: String,
}

/// The case of a seed.
pub fn of(seed: u64) -> Case {
    let subject = SUBJECTS[seed as usize % SUBJECTS.len()]();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..8 {
        random.below(2);
    }
    let mut maker = Maker { random, name: format!("p-{seed}"), subject };
    let label = format!("{}-{seed:05}", maker.subject.label);
    let free = json!({"metadata": {"finalizers": null}});
    let mut steps = vec![
        maker.step("clear free".into(), "PATCH", "", Body::Patch(MERGE, free)),
        maker.step("clear".into(), "DELETE", "", Body::None),
    ];
    steps.iter_mut().for_each(|step| step.recorded = false);
    steps.push(maker.create());
    for at in 0..STEPS {
        steps.push(maker.patch(at));
    }
    // What it holds would outlive the case.
    let mut last =
        maker.step("free".into(), "PATCH", "", Body::Patch(MERGE, json!({"metadata": {"finalizers": null}})));
    last.recorded = false;
    steps.push(last);
    Case { name: label, steps }
}

impl Maker {
    fn step(&self, name: String, method: &'static str, query: &str, body: Body) -> Step {
        let root = if self.subject.api_version.contains('/') { "/apis" } else { "/api" };
        let collection =
            format!("{root}/{}/namespaces/{NAMESPACE}/{}", self.subject.api_version, self.subject.plural);
        let path = match method {
            "POST" => format!("{collection}{query}"),
            _ => format!("{collection}/{}{query}", self.name),
        };
        Step { name, method, path, accept: JSON, body, events: 0, recorded: true }
    }

    fn skeleton(&self) -> Value {
        json!({"apiVersion": self.subject.api_version, "kind": self.subject.kind, "metadata": {"name": self.name}})
    }

    /// Some parts put together; lists replace each other.
    fn parts(&mut self, most: usize) -> Value {
        let mut out = json!({});
        for _ in 0..=self.random.below(most) {
            let part = self.random.one(&self.subject.parts).clone();
            merge_keeping_nulls(&mut out, &part);
        }
        out
    }

    fn create(&mut self) -> Step {
        let mut object = self.skeleton();
        merge(&mut object, &self.subject.base);
        if self.random.chance(30) {
            return self.step(
                "create by apply".into(),
                "PATCH",
                "?fieldManager=a",
                Body::Patch(APPLY, object),
            );
        }
        self.step("create".into(), "POST", "?fieldManager=maker", Body::Json(object))
    }

    fn query(&mut self, apply: bool) -> String {
        let manager = *self.random.one(MANAGERS);
        let mut query = format!("?fieldManager={manager}");
        if apply && self.random.chance(40) {
            query.push_str("&force=true");
        }
        if self.random.chance(10) {
            query.push_str("&dryRun=All");
        }
        if self.random.chance(15) {
            query.push_str(self.random.one::<&str>(&["&fieldValidation=Strict", "&fieldValidation=Ignore"]));
        }
        query
    }

    fn patch(&mut self, at: usize) -> Step {
        let kind = self.random.below(100);
        let (name, body) = match kind {
            0..45 => ("apply", Body::Patch(APPLY, self.apply())),
            45..60 => ("merge", Body::Patch(MERGE, self.merge_patch())),
            60..75 => ("json", Body::Patch(JSON_PATCH, self.json_patch())),
            75..95 if self.subject.strategic => ("strategic", Body::Patch(STRATEGIC, self.strategic())),
            _ => {
                let change = self.parts(2);
                let query = self.query(false);
                return self.step(format!("{at} update"), "PUT", &query, Body::Held(change));
            }
        };
        let query = self.query(name == "apply");
        self.step(format!("{at} {name}"), "PATCH", &query, body)
    }

    fn apply(&mut self) -> Value {
        let mut object = self.skeleton();
        let parts = self.parts(4);
        merge_keeping_nulls(&mut object, &parts);
        object
    }

    fn merge_patch(&mut self) -> Value {
        let mut patch = self.parts(2);
        if self.random.chance(30) {
            nulled(&mut patch, &mut self.random);
        }
        patch
    }

    fn json_patch(&mut self) -> Value {
        let count = self.random.below(3) + 1;
        let operations = (0..count).map(|_| self.operation());
        Value::Array(operations.collect())
    }

    fn operation(&mut self) -> Value {
        let (place, element) = self.random.one(&self.subject.places).clone();
        let below = *self.random.one(&["/-", "/0", "/1", "/7", "/x", ""]);
        let path = format!("{place}{below}");
        let (from, _) = self.random.one(&self.subject.places).clone();
        let whole =
            if element.is_string() || element.is_object() { json!([element]) } else { element.clone() };
        let value = if below.is_empty() && self.random.chance(70) { whole } else { element };
        match self.random.below(8) {
            0..3 => json!({"op": "add", "path": path, "value": value}),
            3 => json!({"op": "replace", "path": path, "value": value}),
            4 => json!({"op": "remove", "path": path}),
            5 => json!({"op": "test", "path": path, "value": value}),
            6 => json!({"op": "copy", "from": format!("{from}/0"), "path": path}),
            _ => json!({"op": "move", "from": from, "path": path}),
        }
    }

    fn strategic(&mut self) -> Value {
        let mut patch = self.parts(2);
        if self.random.chance(60) {
            directed(&mut patch, &mut self.random);
        }
        if self.random.chance(10) {
            patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!(["example.com/a"]);
        }
        patch
    }
}

/// As a merge, but what is null stays and is sent.
fn merge_keeping_nulls(into: &mut Value, part: &Value) {
    match (into, part) {
        (Value::Object(into), Value::Object(part)) => {
            for (key, value) in part {
                merge_keeping_nulls(into.entry(key.clone()).or_insert_with(|| json!({})), value);
            }
        }
        (into, part) => into.clone_from(part),
    }
}

/// Some member anywhere becomes null.
fn nulled(value: &mut Value, random: &mut Random) {
    let Value::Object(map) = value else { return };
    let at = random.below(map.len());
    let Some((_, inner)) = map.iter_mut().nth(at) else { return };
    match inner.is_object() && random.chance(70) {
        true => nulled(inner, random),
        false => *inner = Value::Null,
    }
}

/// Some object anywhere gets a directive.
fn directed(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(map) => {
            if map.is_empty() || random.chance(20) {
                direct(map, random);
                return;
            }
            let at = random.below(map.len());
            if let Some((_, inner)) = map.iter_mut().nth(at) {
                directed(inner, random);
            }
        }
        Value::Array(items) => match items.first().is_some_and(Value::is_object) {
            true if random.chance(25) => items.push(json!({"$patch": "replace"})),
            true => {
                let at = random.below(items.len());
                if let Some(item) = items.get_mut(at) {
                    directed(item, random);
                }
            }
            false => {}
        },
        _ => {}
    }
}

fn direct(map: &mut Map<String, Value>, random: &mut Random) {
    match random.below(6) {
        0 | 1 => drop(map.insert("$patch".into(), "delete".into())),
        2 => drop(map.insert("$patch".into(), "replace".into())),
        3 => drop(map.insert("$patch".into(), "merge".into())),
        4 => {
            let keys: Vec<Value> = map.keys().map(|key| key.as_str().into()).collect();
            map.insert("$retainKeys".into(), keys.into());
        }
        _ => {
            let lists: Vec<(String, Value)> = map
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), order(value.as_array()?)?)))
                .collect();
            for (key, order) in lists {
                map.insert(format!("$setElementOrder/{key}"), order);
            }
        }
    }
}

/// The elements by what they are known by, the other way round.
fn order(items: &[Value]) -> Option<Value> {
    let known = |item: &Value| {
        ["name", "port", "containerPort", "uid", "ip", "topologyKey", "key"]
            .iter()
            .find_map(|key| Some(json!({*key: item.get(*key)?})))
    };
    let named: Option<Vec<Value>> = items
        .iter()
        .rev()
        .map(|item| if item.is_object() { known(item) } else { Some(item.clone()) })
        .collect();
    named.map(Value::Array)
}
