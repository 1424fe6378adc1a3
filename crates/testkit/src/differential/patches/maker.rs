//! How a case of the first subjects is put together.

use serde_json::{Value, json};

use super::super::cases::{APPLY, Body, Case, JSON, JSON_PATCH, MERGE, NAMESPACE, STRATEGIC, Step, merge};
use super::directives::{directed, merge_keeping_nulls, nulled};
use super::random::Random;
use super::subjects::{SUBJECTS, Subject};
use super::{MANAGERS, STEPS};

struct Maker {
    random: Random,
    subject: Subject,
    name: String,
}

/// The case of a seed.
pub fn of(seed: u64) -> Case {
    let subject = SUBJECTS[seed as usize % SUBJECTS.len()]();
    let mut maker = Maker { random: Random::of(seed), name: format!("p-{seed}"), subject };
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
