//! The cases of a kind, made from its example: what is done to every kind, in the words of its own table entry. The
//! example says what a good object is, a change to it, what is refused at creation, what may not change later, a status
//! and what is none, what else is asked of an object (`also`: where, how, with which body), and which other objects are
//! worth a look (`more`: how they differ, and the same lists).

use serde_json::{Map, Value, json};

pub const NAMESPACE: &str = "differential";
pub(super) const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";
pub(super) const MERGE: &str = "application/merge-patch+json";
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";
/// Finds what a case made among what a server has of its own.
const SELECT: &str = "labelSelector=differential%3Dyes";

pub enum Body {
    None,
    Json(Value),
    Patch(&'static str, Value),
    /// The object as it was last answered, with this merged into it.
    Held(Value),
}

pub struct Step {
    pub name: String,
    pub method: &'static str,
    pub path: String,
    pub accept: &'static str,
    pub body: Body,
    /// Events of a watch to read; 0 for any other request.
    pub events: usize,
    /// Whether the answer is compared.
    pub recorded: bool,
}

pub struct Case {
    pub name: String,
    pub steps: Vec<Step>,
}

/// What the cases need to know of a kind.
pub struct Subject {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    /// Each with its verbs.
    pub subresources: Vec<(String, Vec<String>)>,
}

impl Subject {
    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// What files and cases of it are called.
    pub fn label(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        format!("{}.{}{group}", self.plural, self.version)
    }

    /// The path of all of them in the namespace of the cases.
    pub fn collection(&self) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let place = if self.namespaced { format!("/namespaces/{NAMESPACE}") } else { String::new() };
        format!("{root}/{}{place}/{}", self.api_version(), self.plural)
    }

    fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    fn has_part(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|(name, _)| name == subresource)
    }
}

/// RFC 7386.
pub fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        into.clone_from(patch);
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Value::Object(map) = into else { return };
    for (key, value) in patch {
        match value {
            Value::Null => drop(map.remove(key)),
            value => merge(map.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

/// Texts that are `@` stand for the namespace.
fn placed(value: &mut Value) {
    match value {
        Value::String(text) if text == "@" => *text = NAMESPACE.into(),
        Value::Object(map) => map.values_mut().for_each(placed),
        Value::Array(items) => items.iter_mut().for_each(placed),
        _ => {}
    }
}

/// One fault of each sort that metadata can have: the original goes through its maps in no order.
fn faulty_metadata() -> Value {
    json!({"metadata": {"labels": {"-x": "y"}, "annotations": {"a/b/c": ""}, "finalizers": ["a/b/c"],
        "ownerReferences": [{"apiVersion": "", "kind": "", "name": "", "uid": ""}]}})
}

struct Maker<'a> {
    subject: &'a Subject,
    name: String,
    object: Value,
    example: Value,
    steps: Vec<Step>,
}

/// All cases of a kind.
pub fn of(subject: &Subject, example: &Value) -> Vec<Case> {
    let mut example = example.clone();
    placed(&mut example);
    let name = example["name"].as_str().unwrap_or("example").to_owned();
    let mut object = json!({"apiVersion": subject.api_version(), "kind": subject.kind,
        "metadata": {"name": name, "labels": {"differential": "yes"}}});
    merge(&mut object, &example["object"]);
    let mut maker = Maker { subject, name, object, example, steps: Vec::new() };
    let mut cases = Vec::new();
    maker.life();
    cases.push(maker.done("life"));
    maker.refusals();
    cases.push(maker.done("refused"));
    for (i, other) in maker.listed("more").into_iter().enumerate() {
        let mut another = maker.another(i, other);
        another.short_life();
        cases.push(another.done(&format!("more {i}")));
    }
    cases
}

impl Maker<'_> {
    fn done(&mut self, name: &str) -> Case {
        Case { name: format!("{}/{name}", self.subject.label()), steps: std::mem::take(&mut self.steps) }
    }

    /// A maker of cases of an object that differs from the example as `other` says.
    fn another(&self, i: usize, other: Value) -> Self {
        let name = format!("{}-{i}", self.name);
        let mut object = self.object_with(other.get("object").unwrap_or(&json!({})));
        object["metadata"]["name"] = name.as_str().into();
        Maker { subject: self.subject, name, object, example: other, steps: Vec::new() }
    }

    fn step(&mut self, name: &str, method: &'static str, path: String, body: Body) -> &mut Step {
        self.steps.push(Step {
            name: name.into(),
            method,
            path,
            accept: JSON,
            body,
            events: 0,
            recorded: true,
        });
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }

    fn item(&self, rest: &str) -> String {
        format!("{}/{}{rest}", self.subject.collection(), self.name)
    }

    fn all(&self, query: &str) -> String {
        format!("{}?{query}", self.subject.collection())
    }

    fn object_with(&self, patch: &Value) -> Value {
        let mut object = self.object.clone();
        merge(&mut object, patch);
        object
    }

    fn life(&mut self) {
        // Whatever an earlier run left, and where the watch begins.
        self.clear();
        self.step("begin", "GET", self.all(SELECT), Body::None).recorded = false;
        self.step("create", "POST", self.all("fieldManager=maker"), Body::Json(self.object.clone()));
        self.step("create again", "POST", self.subject.collection(), Body::Json(self.object.clone()));
        self.reads();
        self.writes();
        self.patches();
        self.immutable();
        self.subresources();
        self.end();
    }

    /// What may not change of an object, before and after it has a status.
    fn short_life(&mut self) {
        self.clear();
        self.step("create", "POST", self.subject.collection(), Body::Json(self.object.clone()));
        self.changes("immutable");
        if let Some(status) = self.example.get("status").cloned() {
            self.step("status patch", "PATCH", self.item("/status"), Body::Patch(MERGE, status));
            self.invalid_status();
        }
        self.changes("late");
        // A deletion may put a finalizer there that nobody takes away.
        self.clear();
        self.clear();
    }

    /// Takes away what an earlier run left, and what holds it.
    fn clear(&mut self) {
        let free = json!({"metadata": {"finalizers": null}});
        self.step("clear free", "PATCH", self.item(""), Body::Patch(MERGE, free)).recorded = false;
        self.step("clear", "DELETE", self.item("?gracePeriodSeconds=0"), Body::None).recorded = false;
        if self.subject.has_part("finalize") {
            self.step("clear held", "GET", self.item(""), Body::None).recorded = false;
            let done = Body::Held(json!({"spec": {"finalizers": null}}));
            self.step("clear done", "PUT", self.item("/finalize"), done).recorded = false;
        }
    }

    fn reads(&mut self) {
        self.step("get", "GET", self.item(""), Body::None);
        self.step("get table", "GET", self.item(""), Body::None).accept = TABLE;
        self.step("get metadata", "GET", self.item(""), Body::None).accept = PARTIAL;
        self.step("list", "GET", self.all(SELECT), Body::None);
        self.step("list table", "GET", self.all(SELECT), Body::None).accept = TABLE;
        let by_name = format!("fieldSelector=metadata.name%3D{}", self.name);
        self.step("list by name", "GET", self.all(&by_name), Body::None).accept = PARTIAL;
        self.step("list by unknown field", "GET", self.all("fieldSelector=spec.bogus%3Dx"), Body::None);
        self.step("get nothing", "GET", format!("{}/nobody", self.subject.collection()), Body::None);
    }

    fn writes(&mut self) {
        let change = self.example["change"].clone();
        self.step("held", "GET", self.item(""), Body::None).recorded = false;
        self.step("update dry run", "PUT", self.item("?dryRun=All"), Body::Held(change.clone()));
        self.step("held again", "GET", self.item(""), Body::None).recorded = false;
        self.step("update", "PUT", self.item("?fieldManager=updater"), Body::Held(change.clone()));
        let blind = self.object_with(&change);
        self.step("update without version", "PUT", self.item("?dryRun=All"), Body::Json(blind.clone()));
        let mut stale = blind.clone();
        stale["metadata"]["resourceVersion"] = "1".into();
        self.step("update of a stale version", "PUT", self.item(""), Body::Json(stale));
        let mut other = blind;
        other["metadata"]["name"] = "another".into();
        self.step("update under another name", "PUT", self.item(""), Body::Json(other));
    }

    fn patches(&mut self) {
        let labelled = json!({"metadata": {"labels": {"merged": "yes"}}});
        let path = self.item("?fieldManager=merger");
        self.step("patch merge", "PATCH", path.clone(), Body::Patch(MERGE, labelled));
        let annotated = json!({"metadata": {"annotations": {"strategic": "yes"}}});
        self.step("patch strategic", "PATCH", path.clone(), Body::Patch(STRATEGIC, annotated));
        let added = json!([{"op": "add", "path": "/metadata/labels/added", "value": "yes"}]);
        self.step("patch json", "PATCH", path.clone(), Body::Patch(JSON_PATCH, added));
        let failed = json!([{"op": "test", "path": "/metadata/name", "value": "nobody"}]);
        self.step("patch json that fails", "PATCH", path.clone(), Body::Patch(JSON_PATCH, failed));
        let unknown = json!({"bogus": true});
        let strict = self.item("?fieldManager=merger&fieldValidation=Strict");
        self.step("patch with an unknown field", "PATCH", strict, Body::Patch(MERGE, unknown));
        let mut applied = json!({"apiVersion": self.subject.api_version(), "kind": self.subject.kind,
            "metadata": {"name": self.name, "labels": {"applied": "yes"}}});
        let apply = self.item("?fieldManager=applier");
        self.step("apply", "PATCH", apply, Body::Patch(APPLY, applied.clone()));
        applied["metadata"]["labels"] = json!({"applied": "no"});
        let conflict = self.item("?fieldManager=other");
        self.step("apply over another", "PATCH", conflict, Body::Patch(APPLY, applied.clone()));
        let forced = self.item("?fieldManager=other&force=true");
        self.step("apply by force", "PATCH", forced, Body::Patch(APPLY, applied.clone()));
        self.step("apply without manager", "PATCH", self.item(""), Body::Patch(APPLY, applied));
    }

    /// What the example lists under a name.
    fn listed(&self, name: &str) -> Vec<Value> {
        self.example[name].as_array().cloned().unwrap_or_default()
    }

    /// Changes that are listed, each tried.
    fn changes(&mut self, listed: &str) {
        for (i, patch) in self.listed(listed).into_iter().enumerate() {
            let path = self.item("?dryRun=All");
            self.step(&format!("{listed} {i:02}"), "PATCH", path, Body::Patch(MERGE, patch));
        }
    }

    fn immutable(&mut self) {
        self.changes("immutable");
        let path = self.item("?dryRun=All");
        self.step("update with faulty metadata", "PATCH", path, Body::Patch(MERGE, faulty_metadata()));
    }

    /// A status that is none. Each is tried on the object as the good status left it.
    fn invalid_status(&mut self) {
        for (i, patch) in self.listed("invalidStatus").into_iter().enumerate() {
            let path = self.item("/status?dryRun=All");
            self.step(&format!("status invalid {i:02}"), "PATCH", path, Body::Patch(MERGE, patch));
        }
    }

    fn status_with_faulty_metadata(&mut self) {
        let path = self.item("/status?dryRun=All");
        self.step("status with faulty metadata", "PATCH", path, Body::Patch(MERGE, faulty_metadata()));
    }

    /// What is asked of this kind alone.
    fn also(&mut self) {
        for (i, asked) in self.listed("also").into_iter().enumerate() {
            let path = self.item(asked["at"].as_str().unwrap_or_default());
            let body = asked["body"].clone();
            let (method, body) = match (asked["method"].as_str().unwrap_or("GET"), body) {
                ("POST", body) => ("POST", Body::Json(body)),
                ("PUT", body) => ("PUT", Body::Held(body)),
                ("PATCH", body) => ("PATCH", Body::Patch(MERGE, body)),
                ("DELETE", _) => ("DELETE", Body::None),
                _ => ("GET", Body::None),
            };
            self.step(&format!("also {i:02}"), method, path, body);
        }
    }

    fn subresources(&mut self) {
        if self.subject.has_part("status") {
            let status = self.example.get("status").cloned().unwrap_or_else(|| json!({"status": {}}));
            self.step("status held", "GET", self.item("/status"), Body::None).recorded = false;
            let body = Body::Held(status.clone());
            self.step("status update", "PUT", self.item("/status?fieldManager=reporter"), body);
            let path = self.item("/status?fieldManager=reporter");
            self.step("status patch", "PATCH", path, Body::Patch(MERGE, status));
            self.step("status get", "GET", self.item("/status"), Body::None);
            self.step("status table", "GET", self.item(""), Body::None).accept = TABLE;
            self.invalid_status();
            self.status_with_faulty_metadata();
        }
        if self.subject.has_part("scale") {
            self.step("scale get", "GET", self.item("/scale"), Body::None);
            let more = json!({"spec": {"replicas": 4}});
            self.step("scale patch", "PATCH", self.item("/scale"), Body::Patch(MERGE, more));
            let less = json!({"spec": {"replicas": -1}});
            self.step("scale below nothing", "PATCH", self.item("/scale"), Body::Patch(MERGE, less));
            let update = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
                "metadata": {"name": self.name, "namespace": NAMESPACE}, "spec": {"replicas": 5}});
            self.step("scale update", "PUT", self.item("/scale"), Body::Json(update));
        }
        self.also();
        self.step("unknown subresource", "GET", self.item("/bogus"), Body::None);
    }

    fn end(&mut self) {
        let watch = format!("{SELECT}&watch=true&resourceVersion={{revision}}");
        // The object's birth, and the first change of it.
        let events = 2;
        self.step("watch", "GET", self.all(&watch), Body::None).events = events;
        self.step("delete dry run", "DELETE", self.item("?dryRun=All"), Body::None);
        let wrong = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "nobody"}});
        self.step("delete of another uid", "DELETE", self.item(""), Body::Json(wrong));
        self.step("delete", "DELETE", self.item(""), Body::None);
        self.step("delete again", "DELETE", self.item(""), Body::None);
        if self.subject.has("deletecollection") {
            self.step("delete all", "DELETE", self.all(SELECT), Body::None);
        }
        self.clear();
    }

    fn refusals(&mut self) {
        let trial = "dryRun=All&fieldManager=maker";
        let unknown = self.object_with(&json!({"bogus": 1, "metadata": {"bogus": 2}}));
        for how in ["Strict", "Warn", "Ignore"] {
            let path = self.all(&format!("{trial}&fieldValidation={how}"));
            self.step(&format!("unknown fields {how}"), "POST", path, Body::Json(unknown.clone()));
        }
        let path = self.all(trial);
        for (i, patch) in self.listed("invalid").iter().enumerate() {
            let object = self.object_with(patch);
            self.step(&format!("invalid {i:03}"), "POST", path.clone(), Body::Json(object));
        }
        let faulty = self.object_with(&faulty_metadata());
        self.step("with faulty metadata", "POST", path.clone(), Body::Json(faulty));
        let nameless = self.object_with(&json!({"metadata": {"name": null}}));
        self.step("without name", "POST", path.clone(), Body::Json(nameless));
        let other = self.object_with(&json!({"kind": "Bogus"}));
        self.step("of another kind", "POST", path.clone(), Body::Json(other));
        let other = self.object_with(&json!({"apiVersion": "bogus/v1"}));
        self.step("of another version", "POST", path.clone(), Body::Json(other));
        let versioned = self.object_with(&json!({"metadata": {"resourceVersion": "5"}}));
        self.step("with a version", "POST", path.clone(), Body::Json(versioned));
        let elsewhere = self.object_with(&json!({"metadata": {"namespace": "elsewhere"}}));
        self.step("in another namespace", "POST", path.clone(), Body::Json(elsewhere));
        self.step("no object", "POST", path, Body::Json(json!([1])));
        self.step("post to an item", "POST", self.item(""), Body::Json(self.object.clone()));
        self.step("put to all", "PUT", self.subject.collection(), Body::Json(self.object.clone()));
    }
}
