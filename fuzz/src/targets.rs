//! One function a target. Each takes any bytes, must not panic or hang, and asserts what must hold of whatever it could
//! read.

use std::collections::BTreeMap;

use api::apply::{Writer, managed};
use api::jsonpath::JsonPath;
use api::quantity::Quantity;
use api::schema::{self, Schema, decode};
use api::selector::{FieldSelector, Selector};
use api::{meta, patch, proto, yaml};
use serde_json::Value;

pub type Target = fn(&[u8]);

pub const TARGETS: &[(&str, Target)] = &[
    ("json", json),
    ("yaml", yaml_document),
    ("protobuf", protobuf),
    ("json_patch", json_patch),
    ("merge_patch", merge_patch),
    ("strategic_patch", strategic_patch),
    ("apply", apply),
    ("selector", selector),
    ("jsonpath", jsonpath),
    ("quantity", quantity),
    ("definition", definition),
    ("expression", expression),
    ("certificate_request", certificate_request),
    ("stored", stored),
    ("owners", owners),
];

/// Those of all crates.
pub fn all() -> Vec<(&'static str, Target)> {
    let others = [
        apiserver::fuzzed::TARGETS,
        node::fuzzed::TARGETS,
        store::fuzzed::TARGETS,
        image::fuzzed::TARGETS,
        gitops::fuzzed::TARGETS,
    ];
    TARGETS.iter().chain(others.into_iter().flatten()).copied().collect()
}

/// Runs the target of a name.
pub fn run(name: &str, data: &[u8]) {
    let target = all().into_iter().find(|(own, _)| *own == name);
    target.unwrap_or_else(|| panic!("there is no target {name}")).1(data);
}

/// Inputs of several parts are separated by a zero byte.
fn parts(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    (&data[..at], data.get(at + 1..).unwrap_or_default())
}

fn two_values(data: &[u8]) -> Option<(Value, Value)> {
    let (first, second) = parts(data);
    Some((serde_json::from_slice(first).ok()?, serde_json::from_slice(second).ok()?))
}

/// A kind with every form of list and map that the patches tell apart.
fn deployment() -> Schema {
    schema::of_kind("apps", "v1", "Deployment").expect("a built-in kind")
}

/// Decodes JSON as a Pod: faults are reported, the rest is kept, and doing it again changes nothing.
pub fn json(data: &[u8]) {
    let Ok(decoded) = decode::parse_json(data) else { return };
    for (group, version, kind) in [("", "v1", "Pod"), ("apps", "v1", "Deployment")] {
        let schema = schema::of_kind(group, version, kind).expect("a built-in kind");
        let mut value = decoded.value.clone();
        let faults = schema.check(&value);
        schema.prune(&mut value);
        schema.canonicalize(&mut value);
        // What does not fit the schema has no canonical form, but must be borne.
        if faults.is_empty() {
            assert!(schema.check(&value).is_empty(), "the canonical form has faults that the given had not");
            let once = value.clone();
            schema.canonicalize(&mut value);
            assert_eq!(value, once, "canonical twice is canonical once");
        }
    }
    let stored = meta::to_stored(&decoded.value);
    if decoded.value.is_object() {
        meta::from_stored(&stored, 7).expect("what was stored can be read");
    }
}

/// Reads YAML; what it meant is written so that it means the same.
pub fn yaml_document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(decode::parse_yaml(data));
    let Ok(value) = yaml::parse_one(text) else { return };
    let written = yaml::to_string(&value);
    let again = yaml::parse_one(&written).unwrap_or_else(|e| panic!("{e}\n{written}"));
    assert_eq!(again, value, "\n{written}");
}

/// Reads protobuf; what it meant can be written and read again.
pub fn protobuf(data: &[u8]) {
    let Ok(value) = proto::decode(data) else { return };
    let Ok(bytes) = proto::encode(&value) else { return };
    let again = proto::decode(&bytes).expect("what was written can be read");
    assert_eq!(again, value);
}

pub fn json_patch(data: &[u8]) {
    let Some((object, patch)) = two_values(data) else { return };
    drop(patch::json(&object, &patch));
}

/// RFC 7396: merging the same patch twice is merging it once.
pub fn merge_patch(data: &[u8]) {
    let Some((object, patch)) = two_values(data) else { return };
    let once = patch::merge(&object, &patch);
    assert_eq!(patch::merge(&once, &patch), once);
}

pub fn strategic_patch(data: &[u8]) {
    let Some((object, patch)) = two_values(data) else { return };
    if object.is_object() && patch.is_object() {
        drop(patch::strategic::apply(&object, &patch, &deployment()));
    }
}

/// Two managers apply; applying the same again changes nothing.
pub fn apply(data: &[u8]) {
    let Some((first, second)) = two_values(data) else { return };
    let schema = deployment();
    let fits = |value: &Value| value.is_object() && schema.check(value).is_empty();
    if !fits(&first) || !fits(&second) {
        return;
    }
    let writer = |manager| Writer {
        manager,
        api_version: "apps/v1",
        subresource: "",
        time: "2026-01-01T00:00:00Z",
        schema: Some(&schema),
        reset: None,
        versions: None,
    };
    let Ok(one) = managed::apply(None, &first, &writer("one"), false) else { return };
    let Ok(two) = managed::apply(Some(&one), &second, &writer("two"), true) else { return };
    let Ok(again) = managed::apply(Some(&two), &second, &writer("two"), true) else {
        panic!("what was applied once is refused the second time")
    };
    assert_eq!(again, two, "applied twice is applied once");
}

pub fn selector(data: &[u8]) {
    let (labels, fields) = parts(data);
    let (Ok(labels), Ok(fields)) = (std::str::from_utf8(labels), std::str::from_utf8(fields)) else { return };
    if let Ok(selector) = Selector::parse(labels) {
        selector.matches(&BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        let again = Selector::parse(&selector.to_string()).expect("what is shown can be read");
        assert_eq!(again.to_string(), selector.to_string());
    }
    if let Ok(selector) = FieldSelector::parse(fields) {
        selector.matches(|_| Some("b"));
    }
}

pub fn jsonpath(data: &[u8]) {
    let (path, value) = parts(data);
    let Ok(text) = std::str::from_utf8(path) else { return };
    let Ok(path) = JsonPath::parse(text) else { return };
    let value: Value = serde_json::from_slice(value).unwrap_or_default();
    path.find(&value).into_iter().for_each(|found| drop(api::jsonpath::text(found)));
}

/// A quantity that can be read is written so that it is equal.
pub fn quantity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(quantity) = Quantity::parse(text) else { return };
    let again = Quantity::parse(&quantity.to_string()).expect("what is shown can be read");
    assert_eq!(again.to_milli(), quantity.to_milli(), "{text} became {quantity}");
}

/// The schema of a CustomResourceDefinition, and an object of it.
pub fn definition(data: &[u8]) {
    let Some((document, mut object)) = two_values(data) else { return };
    let Ok(schema) = schema::from_crd(&document) else { return };
    drop(schema.check(&object));
    schema.prune(&mut object);
    schema.apply_defaults(&mut object);
    drop(schema.validate(&object));
}

/// An expression: compiled against a custom resource's schema, as a definition's rules are, and evaluated.
pub fn expression(data: &[u8]) {
    let (rule, object) = parts(data);
    let Ok(rule) = std::str::from_utf8(rule) else { return };
    let object: Value = serde_json::from_slice(object).unwrap_or_default();
    let conditions = api::policy::MatchConditions::compile(&[("c", rule)]);
    let Ok(conditions) = conditions else { return };
    let none = Value::Null;
    let variables = api::policy::AdmissionVars {
        object: &object,
        old_object: &none,
        request: &none,
        params: &none,
        namespace: &none,
        authorizer: None,
        resource: Default::default(),
    };
    drop(conditions.matches(&variables));
}

/// A request for a certificate, and whether each signer would sign it.
pub fn certificate_request(data: &[u8]) {
    let Ok(request) = api::csr::Request::parse(data) else { return };
    let usages = ["client auth".to_owned(), "digital signature".to_owned()];
    for signer in
        ["kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown"]
    {
        drop(api::csr::objection(&format!("kubernetes.io/{signer}"), &request, &usages));
    }
}

/// What another server of the API has stored.
pub fn stored(data: &[u8]) {
    let Ok(ours) = api::stored::ours(&data.to_vec().into()) else { return };
    // What has our form already is taken as it is, also where it is damaged.
    if !data.starts_with(b"{\"apiVersion\":") {
        meta::from_stored(&ours, 7).expect("what is stored can be read");
    }
}

/// Who owns which field, as a client claims it, when somebody else writes.
pub fn owners(data: &[u8]) {
    let Some((claimed, next)) = two_values(data) else { return };
    let schema = deployment();
    let object =
        |value: Value| serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": value});
    let metadata = |value: &Value| serde_json::json!({"name": "a", "managedFields": value});
    let (old, mut new) = (object(metadata(&claimed)), object(metadata(&next)));
    if !schema.check(&old).is_empty() || !schema.check(&new).is_empty() {
        return;
    }
    let writer = Writer {
        manager: "m",
        api_version: "apps/v1",
        subresource: "",
        time: "2026-01-01T00:00:00Z",
        schema: Some(&schema),
        reset: None,
        versions: None,
    };
    managed::update(Some(&old), &mut new, &writer);
}
