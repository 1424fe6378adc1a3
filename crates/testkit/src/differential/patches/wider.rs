//! Cases that go through more than one face of an object: its status, its scale, other versions of it; kinds of which
//! little may be changed; and objects that come from client-side apply. Their seeds begin at [`FIRST`].

use serde_json::{Value, json};

use super::super::cases::{APPLY, Body, Case, JSON, JSON_PATCH, MERGE, NAMESPACE, STRATEGIC, Step, merge};
use super::directives::{merge_keeping_nulls, misdirected, nulled};
use super::random::Random;
use super::{MANAGERS, STEPS, objects, workloads};

pub const FIRST: u64 = 1_000_000;

/// How an object is spoken to.
#[derive(Clone)]
pub(super) struct Face {
    /// What bodies say they are.
    pub api_version: &'static str,
    pub kind: &'static str,
    /// The version in the path.
    pub served: &'static str,
    pub subresource: &'static str,
    /// How often it is chosen, beside the others.
    pub weight: usize,
    /// Parts that patches are put together from.
    pub parts: Vec<Value>,
    /// Lists and maps, for JSON patches: pointer and a value of an element.
    pub places: Vec<(&'static str, Value)>,
}

impl Face {
    /// The object itself.
    pub fn main(
        api_version: &'static str,
        kind: &'static str,
        parts: Vec<Value>,
        places: Vec<(&'static str, Value)>,
    ) -> Self {
        Self { api_version, kind, served: api_version, subresource: "", weight: 6, parts, places }
    }

    pub fn status(&self, parts: Vec<Value>, places: Vec<(&'static str, Value)>) -> Self {
        Self { subresource: "status", weight: 3, parts, places, ..self.clone() }
    }

    pub fn scale(&self) -> Self {
        let parts = vec![
            json!({"spec": {"replicas": 1}}),
            json!({"spec": {"replicas": 2}}),
            json!({"spec": {"replicas": 0}}),
            json!({"spec": {"replicas": -1}}),
            json!({"spec": {"replicas": 3}, "status": {"replicas": 9}}),
            json!({"metadata": {"labels": {"a": "1"}}}),
        ];
        let (api_version, kind) = ("autoscaling/v1", "Scale");
        Self {
            api_version,
            kind,
            subresource: "scale",
            weight: 3,
            parts,
            places: vec![("/spec/replicas", json!(2))],
            ..self.clone()
        }
    }
}

pub(super) struct Wide {
    pub label: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
    /// What makes the skeleton of the first face a valid object.
    pub base: Value,
    pub faces: Vec<Face>,
    /// Whether it begins as what `kubectl apply` made.
    pub client_side: bool,
}

const SUBJECTS: &[fn() -> Wide] = &[
    workloads::pod,
    workloads::stateful_set,
    workloads::job,
    workloads::cron_job,
    workloads::scaled,
    workloads::migrated,
    objects::node,
    objects::ingress,
    objects::network_policy,
    objects::autoscaler,
];

const CLIENT: &str = "kubectl-client-side-apply";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

struct Maker {
    random: Random,
    subject: Wide,
    name: String,
    /// What client-side apply was last given.
    applied: Value,
}

pub(super) fn of(seed: u64) -> Case {
    let subject = SUBJECTS[(seed - FIRST) as usize % SUBJECTS.len()]();
    let label = format!("{}-{:05}", subject.label, seed - FIRST);
    let name = format!("w-{}", seed - FIRST);
    let mut maker = Maker { random: Random::of(seed), subject, name, applied: Value::Null };
    let free = |name: &str, maker: &Maker| {
        let patch = json!({"metadata": {"finalizers": null}});
        maker.step(&maker.subject.faces[0], name.into(), "PATCH", "", Body::Patch(MERGE, patch))
    };
    let gone = maker.step(
        &maker.subject.faces[0],
        "clear".into(),
        "DELETE",
        "?gracePeriodSeconds=0&propagationPolicy=Background",
        Body::None,
    );
    let mut steps = vec![free("clear free", &maker), gone];
    let last = free("free", &maker);
    steps.push(maker.create());
    for at in 0..STEPS {
        maker.patch(at, &mut steps);
    }
    // What it holds would outlive the case.
    steps.push(last);
    for step in &mut steps {
        step.recorded = !["clear", "free", "read"].iter().any(|word| step.name.contains(word));
    }
    Case { name: label, steps }
}

impl Maker {
    fn step(&self, face: &Face, name: String, method: &'static str, query: &str, body: Body) -> Step {
        let root = if face.served.contains('/') { "/apis" } else { "/api" };
        let place = if self.subject.namespaced { format!("/namespaces/{NAMESPACE}") } else { String::new() };
        let mut path = format!("{root}/{}{place}/{}", face.served, self.subject.plural);
        if method != "POST" {
            path = format!("{path}/{}", self.name);
            if !face.subresource.is_empty() {
                path = format!("{path}/{}", face.subresource);
            }
        }
        Step { name, method, path: path + query, accept: JSON, body, events: 0, recorded: true }
    }

    fn skeleton(&self, face: &Face) -> Value {
        json!({"apiVersion": face.api_version, "kind": face.kind, "metadata": {"name": self.name}})
    }

    fn face(&mut self) -> Face {
        let all: Vec<&Face> =
            self.subject.faces.iter().flat_map(|face| std::iter::repeat_n(face, face.weight)).collect();
        (*self.random.one(&all)).clone()
    }

    fn parts(&mut self, face: &Face, most: usize) -> Value {
        let mut out = json!({});
        for _ in 0..=self.random.below(most) {
            merge_keeping_nulls(&mut out, self.random.one(&face.parts));
        }
        out
    }

    fn create(&mut self) -> Step {
        let face = self.subject.faces[0].clone();
        let mut object = self.skeleton(&face);
        merge(&mut object, &self.subject.base);
        let body = |kind, object| Body::Patch(kind, object);
        if self.subject.client_side {
            self.applied = object.clone();
            object["metadata"]["annotations"] = json!({LAST_APPLIED: format!("{object}\n")});
            let query = format!("?fieldManager={CLIENT}");
            return self.step(&face, "create".into(), "POST", &query, Body::Json(object));
        }
        match self.random.chance(30) {
            true => {
                self.step(&face, "create by apply".into(), "PATCH", "?fieldManager=a", body(APPLY, object))
            }
            false => self.step(&face, "create".into(), "POST", "?fieldManager=maker", Body::Json(object)),
        }
    }

    fn query(&mut self, apply: bool) -> String {
        let mut query = format!("?fieldManager={}", self.random.one(MANAGERS));
        if apply && self.random.chance(40) {
            query.push_str("&force=true");
        }
        if self.random.chance(8) {
            query.push_str("&dryRun=All");
        }
        if self.random.chance(12) {
            query.push_str(self.random.one::<&str>(&["&fieldValidation=Strict", "&fieldValidation=Ignore"]));
        }
        query
    }

    fn patch(&mut self, at: usize, steps: &mut Vec<Step>) {
        if self.subject.client_side && (at == 0 || self.random.chance(35)) {
            let step = self.client_side(at);
            steps.push(step);
            return;
        }
        let face = self.face();
        let (name, body) = match self.random.below(100) {
            0..45 => ("apply", Body::Patch(APPLY, self.apply(&face))),
            45..60 => ("merge", Body::Patch(MERGE, self.merge_patch(&face))),
            60..75 => ("json", Body::Patch(JSON_PATCH, self.json_patch(&face))),
            75..90 => ("strategic", Body::Patch(STRATEGIC, self.strategic(&face))),
            _ => {
                // As it is there, and not as another face has answered.
                steps.push(self.step(&face, format!("{at} read"), "GET", "", Body::None));
                ("update", Body::Held(self.parts(&face, 2)))
            }
        };
        let query = self.query(name == "apply");
        let label = [&format!("{at} {name}"), face.subresource].join(" ");
        let method = if name == "update" { "PUT" } else { "PATCH" };
        steps.push(self.step(&face, label.trim_end().to_owned(), method, &query, body));
    }

    /// What `kubectl apply` sends, or, at first, what `kubectl apply --server-side` does to who owns what.
    fn client_side(&mut self, at: usize) -> Step {
        let face = self.subject.faces[0].clone();
        if at == 0 && self.random.chance(30) {
            let patch = json!([{"op": "test", "path": "/metadata/managedFields/0/manager", "value": CLIENT},
                {"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "kubectl"},
                {"op": "replace", "path": "/metadata/managedFields/0/operation", "value": "Apply"}]);
            return self.step(
                &face,
                format!("{at} json migration"),
                "PATCH",
                "",
                Body::Patch(JSON_PATCH, patch),
            );
        }
        let mut patch = self.parts(&face, 3);
        merge_keeping_nulls(&mut self.applied, &patch);
        let text = format!("{}\n", self.applied);
        merge_keeping_nulls(&mut patch, &json!({"metadata": {"annotations": {LAST_APPLIED: text}}}));
        let query = format!("?fieldManager={CLIENT}");
        self.step(
            &face,
            format!("{at} strategic client-side"),
            "PATCH",
            &query,
            Body::Patch(STRATEGIC, patch),
        )
    }

    fn apply(&mut self, face: &Face) -> Value {
        let mut object = self.skeleton(face);
        if self.random.chance(3) {
            object["apiVersion"] =
                self.random.one(&["v1", "apps/v1beta1", "autoscaling/v1", "batch/v1"]).to_owned().into();
        }
        let parts = self.parts(face, 4);
        merge_keeping_nulls(&mut object, &parts);
        object
    }

    fn merge_patch(&mut self, face: &Face) -> Value {
        let mut patch = self.parts(face, 2);
        if self.random.chance(30) {
            nulled(&mut patch, &mut self.random);
        }
        patch
    }

    fn strategic(&mut self, face: &Face) -> Value {
        let mut patch = self.parts(face, 2);
        if self.random.chance(60) {
            misdirected(&mut patch, &mut self.random);
        }
        patch
    }

    fn json_patch(&mut self, face: &Face) -> Value {
        let count = self.random.below(3) + 1;
        (0..count).map(|_| self.operation(face)).collect()
    }

    fn operation(&mut self, face: &Face) -> Value {
        let (place, element) = self.random.one(&face.places).clone();
        let below = *self.random.one(&["/-", "/0", "/1", "/-1", "/01", "/7", "/x", "", ""]);
        let path = format!("{place}{below}");
        let (from, _) = self.random.one(&face.places).clone();
        let from = format!("{from}{}", self.random.one(&["", "/0", "/-1", "/x"]));
        let whole =
            if element.is_string() || element.is_object() { json!([element]) } else { element.clone() };
        let value = if below.is_empty() && self.random.chance(70) { whole } else { element };
        match self.random.below(12) {
            0..4 => json!({"op": "add", "path": path, "value": value}),
            4 => json!({"op": "replace", "path": path, "value": value}),
            5 => json!({"op": "remove", "path": path}),
            6 => json!({"op": "test", "path": "/metadata/name", "value": self.name}),
            7 => json!({"op": "test", "path": path, "value": null}),
            8 => json!({"op": "copy", "from": from, "path": path}),
            9 => json!({"op": "move", "from": from, "path": path}),
            10 => json!({"op": "replace", "path": path, "value": null}),
            _ => self
                .random
                .one(&[
                    json!({"op": "add", "path": place}),
                    json!({"op": "add", "path": "", "value": {}}),
                    json!({"op": "test", "path": ""}),
                    json!({"op": "add", "path": "metadata/labels", "value": {}}),
                    json!({"op": "remove", "path": "/metadata/labels/none"}),
                    json!({"op": "copy", "from": "/metadata/labels/none", "path": "/metadata/labels/x"}),
                    json!({"op": "replace", "path": "/metadata/labels/a", "value": "1", "more": true}),
                    json!({"op": "unknown", "path": place}),
                ])
                .clone(),
        }
    }
}
