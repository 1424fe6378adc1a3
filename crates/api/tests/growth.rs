//! Lists are as long as users make them: what is done with an object takes time in proportion to its length, whichever of
//! its lists is long. A loop within a loop takes sixty-four times as long for a list that is eight times as long; what is in
//! proportion eight times, and what sorts hardly more. Only processor time of the own thread is counted.
//!
//! `KEDGE_GROWTH=all` tries every list of every built-in kind, which takes minutes; otherwise those that have been
//! quadratic once.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use api::apply::{Writer, managed};
use api::kinds::{Kind, Rejection, builtin};
use api::schema::{self, Node, Schema, Shape};
use api::status::ApiError;
use api::{meta, patch, yaml};
use serde_json::{Value, json};

const FEW: usize = 1_000;
const MANY: usize = 8 * FEW;
/// Between what is in proportion (8) and what is not (64).
const MOST: f64 = 18.0;
/// What a quadratic loop over so many elements takes at the very least.
const NOTHING: Duration = Duration::from_millis(40);

/// Time that this thread has had on a processor.
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    let nanoseconds = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

fn time(work: impl Fn()) -> Duration {
    let before = spent();
    work();
    spent() - before
}

/// How much longer eight times as much takes; nothing where it takes next to nothing.
fn growth(work: impl Fn(usize)) -> f64 {
    let many = time(|| work(MANY));
    if many < NOTHING {
        return 0.0;
    }
    let few = (0..3).map(|_| time(|| work(FEW))).min().unwrap_or_default();
    many.as_secs_f64() / few.max(Duration::from_micros(500)).as_secs_f64()
}

/// What has not grown in proportion.
#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn check(&mut self, what: &str, work: impl Fn(usize)) {
        // Whoever is held up once by something else is asked again.
        let ratios: Vec<f64> = (0..3).map(|_| growth(&work)).take_while(|ratio| *ratio > MOST).collect();
        if ratios.len() == 3 {
            self.0.push(format!("{what}: eight times as many take {ratios:?} times as long"));
        }
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        assert!(self.0.is_empty() || std::thread::panicking(), "{}", self.0.join("\n"));
    }
}

fn example(kind: &Kind) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kinds/examples");
    let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
    let names =
        [format!("{}.{}{group}.yaml", kind.plural, kind.version), format!("{}{group}.yaml", kind.plural)];
    let text = names.iter().find_map(|name| std::fs::read_to_string(folder.join(name)).ok());
    let mut object = yaml::parse_one(&text.expect("an example")).expect("YAML")["object"].clone();
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.as_ref().into();
    meta::set(&mut object, "name", "example");
    object
}

/// Where a list is: fields from the root; through lists it is their first element that is meant.
type Steps<'a> = Vec<&'a str>;

/// The lists of a type, each of those in `seen` once.
fn lists<'a>(
    node: Node<'a>,
    at: &mut Steps<'a>,
    seen: &mut HashSet<(String, &'a str)>,
    out: &mut Vec<Steps<'a>>,
) {
    let Some(message) = node.message() else { return };
    if at.len() > 10 {
        return;
    }
    for field in &message.fields {
        let inner = node.at(&field.ty);
        let below = inner.item().filter(|item| item.message().is_some()).unwrap_or(inner);
        let fresh = seen.insert((message.name.to_string(), &field.name));
        if !fresh {
            continue;
        }
        at.push(&field.name);
        if matches!(inner.ty.shape, Shape::List(_)) {
            out.push(at.clone());
        }
        lists(below, at, seen, out);
        at.pop();
    }
}

fn scalar(shape: &Shape, number: usize) -> Option<Value> {
    Some(match shape {
        Shape::String => format!("x{number}").into(),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => (number + 1).into(),
        Shape::Bool => true.into(),
        Shape::Quantity => "1".into(),
        _ => return None,
    })
}

fn element(node: Node<'_>, number: usize) -> Value {
    match node.message() {
        Some(message) => {
            let fields = message.fields.iter();
            let fields = fields.filter_map(|f| Some((f.name.to_string(), scalar(&f.ty.shape, number)?)));
            Value::Object(fields.collect())
        }
        None => scalar(&node.ty.shape, number).unwrap_or(Value::Null),
    }
}

/// The object with a list of so many elements, all different or all alike.
fn stretched(object: &Value, schema: &Schema, steps: &[&str], count: usize, alike: bool) -> Value {
    let mut object = object.clone();
    let (mut place, mut node) = (&mut object, schema.node());
    for (at, step) in steps.iter().enumerate() {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[*step];
        node = node.member(step).expect("a field of the schema");
        let Some(item) = node.item() else { continue };
        if at + 1 == steps.len() {
            let elements = (0..count).map(|number| element(item, if alike { 0 } else { number }));
            *place = elements.collect();
            break;
        }
        if place.as_array().is_none_or(Vec::is_empty) {
            *place = json!([element(item, 0)]);
        }
        place = &mut place[0];
        node = item;
    }
    object
}

fn reversed(object: &Value, steps: &[&str]) -> Value {
    let mut object = object.clone();
    let mut place = &mut object;
    for step in steps {
        if place.is_array() {
            place = &mut place[0];
        }
        place = &mut place[*step];
    }
    place.as_array_mut().expect("the list").reverse();
    object
}

fn told(kind: &Kind, outcome: Result<Value, Rejection>) {
    if let Err(Rejection::Fields(errors)) = outcome {
        std::hint::black_box(ApiError::invalid(&kind.group, &kind.kind, "x", &errors));
    }
}

fn writer<'a>(schema: &'a Schema, version: &'a str) -> Writer<'a> {
    Writer {
        manager: "m",
        api_version: version,
        subresource: "",
        time: "2024-01-01T00:00:00Z",
        schema: Some(schema),
        reset: None,
        versions: None,
    }
}

/// Whatever is done with an object one of whose lists is long.
fn check_list(found: &mut Found, kind: &Kind, base: &Value, steps: &[&str], generic: bool) {
    let schema = &schema::of_kind(&kind.group, &kind.version, &kind.kind).expect("a schema");
    let version = kind.api_version();
    for alike in [false, true] {
        let made = |count| stretched(base, schema, steps, count, alike);
        let objects = [made(FEW), made(MANY)];
        let others = [reversed(&objects[0], steps), reversed(&objects[1], steps)];
        let object = |count: usize| &objects[usize::from(count == MANY)];
        let other = |count: usize| &others[usize::from(count == MANY)];
        let what = |verb: &str| {
            let form = if alike { "alike" } else { "different" };
            format!("{verb} {} with many {form} {}", kind.kind, steps.join("."))
        };
        found.check(&what("creating"), |n| {
            told(kind, kind.behaviour.create(object(n).clone(), &mut Vec::new()))
        });
        found.check(&what("updating"), |n| {
            told(kind, kind.behaviour.update(other(n).clone(), object(n), &mut Vec::new()));
        });
        if kind.has_status {
            found.check(&what("updating the status of"), |n| {
                told(kind, kind.behaviour.update_status(other(n).clone(), object(n)));
            });
        }
        for part in kind.subresources.iter().filter_map(|s| s.part) {
            found.check(&what(part.name), |n| {
                let mut whole = object(n).clone();
                part.copy(other(n), &mut whole);
                told(kind, kind.behaviour.update_part(part, whole, object(n)));
            });
        }
        found.check(&what("showing"), |n| drop(std::hint::black_box(kind.behaviour.row(object(n)))));
        if !generic {
            continue;
        }
        found.check(&what("settling"), |n| {
            let mut object = object(n).clone();
            std::hint::black_box(schema.check(&object));
            schema.prune(&mut object);
            schema.canonicalize(&mut object);
        });
        let writer = writer(schema, &version);
        found.check(&what("tracking"), |n| {
            let mut new = other(n).clone();
            managed::update(Some(object(n)), &mut new, &writer);
            let mut first = object(n).clone();
            managed::update(None, &mut first, &writer);
            std::hint::black_box(managed::apply(Some(&first), other(n), &writer, true)).ok();
        });
        found.check(&what("patching"), |n| {
            std::hint::black_box(patch::strategic::apply(object(n), other(n), schema)).ok();
        });
    }
}

/// Lists that were compared each element with each other once.
const ONCE: &[(&str, &str)] = &[
    ("Service", "spec.ports"),
    ("Pod", "spec.schedulingGates"),
    ("Pod", "spec.tolerations"),
    ("Pod", "spec.topologySpreadConstraints"),
    ("Pod", "spec.hostAliases"),
    ("Pod", "spec.imagePullSecrets"),
    ("Pod", "spec.containers.env"),
    ("Pod", "spec.containers.ports"),
    ("Pod", "spec.ephemeralContainers"),
    ("Pod", "status.conditions"),
    ("Pod", "metadata.managedFields"),
    ("Node", "spec.taints"),
    ("EndpointSlice", "ports"),
    ("CSINode", "spec.drivers"),
    ("CSIDriver", "spec.tokenRequests"),
    ("CertificateSigningRequest", "spec.usages"),
    ("CertificateSigningRequest", "status.conditions"),
    ("ResourceClaim", "spec.devices.requests"),
    ("ResourceSlice", "spec.devices"),
    ("FlowSchema", "status.conditions"),
    ("ResourceQuota", "spec.scopes"),
    ("ValidatingWebhookConfiguration", "webhooks"),
    ("CustomResourceDefinition", "spec.versions"),
];

#[test]
fn lists_of_any_length_are_dealt_with_in_proportion() {
    let all = std::env::var("KEDGE_GROWTH").is_ok_and(|which| which == "all");
    let (mut outcome, mut seen, mut tried) = (Found::default(), HashSet::new(), HashSet::new());
    for kind in builtin().iter().filter(|kind| !kind.is_virtual()) {
        let schema = schema::of_kind(&kind.group, &kind.version, &kind.kind).expect("a schema");
        let mut found = Vec::new();
        lists(schema.node(), &mut Vec::new(), &mut HashSet::new(), &mut found);
        for steps in found {
            let path = steps.join(".");
            let chosen = ONCE.contains(&(&kind.kind, &path)) && tried.insert((kind.kind.clone(), path));
            // What types have in common is tried once.
            let last = steps[steps.len().saturating_sub(2)..].join(".");
            if chosen || all && seen.insert(last) {
                // What treats all kinds alike is tried with one of each form.
                let generic = all || matches!(steps[steps.len() - 1], "env" | "conditions" | "managedFields");
                check_list(&mut outcome, kind, &example(kind), &steps, generic);
            }
        }
    }
    assert_eq!(tried.len(), ONCE.len(), "{tried:?}");
}

/// A definition whose spec is this.
fn custom(spec: Value) -> Schema {
    let spec = json!({"type": "object", "properties": {"spec": spec}});
    schema::from_crd(&spec).expect("structural")
}

#[test]
fn lists_of_custom_resources_too() {
    let mut found = Found::default();
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string"}}}});
    // An order in which most of what comes stands before what is there.
    let key = |number: usize| format!("{:08}", (4 * MANY - number) * 7919 % 99_991);
    for (what, schema, made) in [
        ("set", set, (&|n: usize| key(n).into()) as &dyn Fn(usize) -> Value),
        ("map", map, &|n: usize| json!({"k": key(n), "v": "x"})),
    ] {
        let schema = custom(schema);
        let object = |count: usize, from: usize| {
            let items: Vec<Value> = (from..from + count).map(made).collect();
            json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "spec": items})
        };
        let writer = writer(&schema, "g/v1");
        found.check(&format!("a {what} is validated"), |n| drop(schema.validate(&object(n, 0))));
        found.check(&format!("a {what} is applied"), |n| {
            let first = managed::apply(None, &object(n, 0), &writer, false).expect("applies");
            let other = Writer { manager: "other", ..writer };
            let second = managed::apply(Some(&first), &object(n, n / 2), &other, true).expect("applies");
            managed::apply(Some(&second), &object(n, n), &writer, true).expect("applies");
        });
        found.check(&format!("a {what} is updated"), |n| {
            let mut first = object(n, 0);
            managed::update(None, &mut first, &writer);
            let mut second = object(n, n / 2);
            managed::update(Some(&first), &mut second, &writer);
        });
    }
    let choice = custom(json!({"type": "array", "items": {"type": "string",
        "enum": (0..MANY).map(|n| format!("x{n}")).collect::<Vec<_>>()}}));
    found.check("values are chosen from many", |n| {
        let items: Vec<String> = (0..n).map(|n| format!("x{}", MANY - 1 - n)).collect();
        assert!(choice.validate(&json!({"spec": items})).is_empty());
    });
}

#[test]
fn who_owns_what_is_told_in_proportion() {
    let mut found = Found::default();
    let schema = schema::of_kind("", "v1", "ConfigMap").expect("built in");
    let writer = writer(&schema, "v1");
    for operation in ["Apply", "Update"] {
        let owned = |count: usize| {
            let entry = |number: usize| {
                json!({"manager": format!("m{number}"), "operation": operation, "apiVersion": "v1",
                    "fieldsType": "FieldsV1", "time": "2024-01-01T00:00:00Z",
                    "fieldsV1": {"f:data": {format!("f:k{number}"): {}}}})
            };
            let data: serde_json::Map<_, _> = (0..count).map(|n| (format!("k{n}"), "x".into())).collect();
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
                "metadata": {"name": "x", "managedFields": (0..count).map(entry).collect::<Vec<_>>()}})
        };
        found.check(&format!("many have done {operation}"), |n| {
            let held = owned(n);
            let mut new = held.clone();
            new["data"] = json!({"k0": "y"});
            managed::update(Some(&held), &mut new, &writer);
            let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"k1": "z"}});
            std::hint::black_box(managed::apply(Some(&held), &config, &writer, true)).ok();
        });
    }
}
