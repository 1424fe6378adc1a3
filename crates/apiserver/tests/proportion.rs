//! What a request takes of memory, whatever its letters come to: measured by an allocator that counts, from before it is sent
//! until it is answered. `KEDGE_MEASURE=1` prints what each has taken.

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::{Value, json};
use world::World;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn more(bytes: usize) {
    MOST.fetch_max(HELD.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: all is the system's allocator's doing; beside it only numbers are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        more(bytes);
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const THINGS: &str = "/apis/x.io/v1/namespaces/default/things";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// As large as a body may be, less what is around it.
const BODY: usize = (3 << 20) - 4096;
/// As large as what can be stored.
const STORED: usize = (3 << 19) - 4096;

/// As many times a text as there is room for.
fn fill(text: &str, bytes: usize) -> String {
    text.repeat(bytes / text.len())
}

/// As many different fields.
fn fields(value: &str, bytes: usize) -> String {
    let mut out = String::new();
    for number in 0.. {
        let field = format!("\"{number:x}\":{value},");
        if out.len() + field.len() > bytes {
            break;
        }
        out.push_str(&field);
    }
    out.pop();
    out
}

fn thing(name: &str, data: &str) -> String {
    format!(r#"{{"apiVersion":"x.io/v1","kind":"Thing","metadata":{{"name":"{name}"}},"spec":{data}}}"#)
}

fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number > 127 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

fn message(tag: u8, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![tag << 3 | 2];
    varint(inner.len(), &mut out);
    out.extend_from_slice(inner);
    out
}

/// A pod of as many containers as there is room for, each of a probe.
fn pod(container: &[u8], bytes: usize) -> Vec<u8> {
    let kind = [message(1, b"v1"), message(2, b"Pod")].concat();
    let spec = container.repeat(bytes / container.len());
    let object = [message(1, &message(1, b"a")), message(2, &spec)].concat();
    [&b"k8s\0"[..], &message(1, &kind), &message(2, &object)].concat()
}

/// What a request took at most, and its code.
async fn taken(
    world: &World,
    method: &str,
    path: &str,
    form: &str,
    body: impl Into<bytes::Bytes>,
) -> (usize, u16) {
    let body = body.into();
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    let (code, _, answer) = world.send(method, path, &[("content-type", form)], body).await;
    let most = MOST.load(Relaxed) - before;
    if code >= 500 {
        panic!("{code}: {}", String::from_utf8_lossy(&answer[..answer.len().min(500)]));
    }
    (most, code)
}

async fn world() -> World {
    let world = World::new().await;
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.x.io"},
        "spec": {"group": "x.io", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"x-kubernetes-preserve-unknown-fields": true}}}}}]}});
    world.grant("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    world
}

/// What a body of many elements may take: this many times what the heaviest body comes to.
const TREES: usize = 2;

#[tokio::test]
async fn no_body_takes_more_than_a_few_times_what_is_allowed() {
    let world = world().await;
    let data = |inner: String| format!(r#"{{"metadata":{{"name":"a"}},"data":{inner}}}"#);
    let list = |item: &str, bytes| format!("[{}1]", fill(&format!("{item},"), bytes));
    let yaml = |inner: String| {
        format!("apiVersion: x.io/v1\nkind: Thing\nmetadata: {{generateName: a}}\nspec:\n{inner}")
    };
    let patch = |count: usize| {
        let patches = vec![json!({"op": "add", "path": "/data/a", "value": "b"}); count];
        Value::from(patches).to_string()
    };
    let container = message(2, &message(10, &message(1, &message(2, b""))));
    let bodies: Vec<(&str, &str, &str, &str, Vec<u8>)> = vec![
        ("a text", "POST", MAPS, JSON, data(format!(r#"{{"a":"{}"}}"#, "x".repeat(1 << 20))).into()),
        ("numbers of a known kind", "POST", MAPS, JSON, data(list("1", BODY)).into()),
        ("empty objects of a known kind", "POST", MAPS, JSON, data(list("{}", BODY)).into()),
        ("keys of a ConfigMap", "POST", MAPS, JSON, data(format!("{{{}}}", fields("\"\"", STORED))).into()),
        ("unknown fields", "POST", MAPS, JSON, format!("{{{}}}", fields("1", STORED)).into()),
        ("numbers", "POST", THINGS, JSON, thing("a", &list("1", STORED)).into()),
        ("lists", "POST", THINGS, JSON, thing("b", &list("[]", STORED)).into()),
        ("lists of one", "POST", THINGS, JSON, thing("c", &list("[1]", BODY)).into()),
        ("objects", "POST", THINGS, JSON, thing("d", &list("{}", STORED)).into()),
        ("objects of one", "POST", THINGS, JSON, thing("e", &list(r#"{"":0}"#, BODY)).into()),
        ("some objects of one", "POST", THINGS, JSON, thing("f", &list(r#"{"":0}"#, 450 << 10)).into()),
        ("fields", "POST", THINGS, JSON, thing("g", &format!("{{{}}}", fields("0", STORED / 3))).into()),
        (
            "deep objects",
            "POST",
            THINGS,
            JSON,
            thing("h", &list(&[r#"{"":"#.repeat(50), "1".into(), "}".repeat(50)].concat(), BODY)).into(),
        ),
        ("lines of YAML", "POST", THINGS, YAML, yaml(fill("- 1\n", 200 << 10)).into()),
        ("objects of YAML", "POST", THINGS, YAML, yaml(fill("- a: 1\n", BODY)).into()),
        (
            "some objects in a line",
            "POST",
            THINGS,
            YAML,
            yaml(format!(" [{}]", fill("{a},", 100 << 10))).into(),
        ),
        (
            "applied",
            "PATCH",
            "/apis/x.io/v1/namespaces/default/things/i?fieldManager=a",
            APPLY,
            thing("i", &format!("{{{}}}", fields("0", STORED / 4))).into(),
        ),
        (
            "applied lists",
            "PATCH",
            "/apis/x.io/v1/namespaces/default/things/j?fieldManager=a",
            APPLY,
            thing("j", &list(r#"{"":0}"#, BODY)).into(),
        ),
        (
            "a merge patch",
            "PATCH",
            "/apis/x.io/v1/namespaces/default/things/f",
            MERGE,
            thing("f", &format!("{{{}}}", fields("[1]", STORED / 4))).into(),
        ),
        (
            "a small change of a heavy object",
            "PATCH",
            "/apis/x.io/v1/namespaces/default/things/f",
            MERGE,
            r#"{"metadata":{"labels":{"a":"b"}}}"#.into(),
        ),
        (
            "a JSON patch",
            "PATCH",
            "/apis/x.io/v1/namespaces/default/things/a",
            JSON_PATCH,
            patch(50_000).into(),
        ),
        (
            "containers of protobuf",
            "POST",
            "/api/v1/namespaces/default/pods",
            PROTOBUF,
            pod(&container, BODY),
        ),
        (
            "empty containers of protobuf",
            "POST",
            "/api/v1/namespaces/default/pods",
            PROTOBUF,
            pod(&message(2, b""), BODY),
        ),
        (
            "some containers of protobuf",
            "POST",
            "/api/v1/namespaces/default/pods",
            PROTOBUF,
            pod(&container, 60 << 10),
        ),
    ];
    let mut told = Vec::new();
    for (what, method, path, form, body) in bodies {
        let length = body.len();
        let began = std::time::Instant::now();
        let (most, code) = taken(&world, method, path, form, body).await;
        let line =
            format!("{what}: {most} bytes for a body of {length}, answered {code} in {:?}", began.elapsed());
        if std::env::var_os("KEDGE_MEASURE").is_some() {
            println!("{line}");
        }
        if most > TREES * api::weight::LIMIT_BYTES {
            told.push(line);
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}
