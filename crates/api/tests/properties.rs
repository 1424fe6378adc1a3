//! What holds of patches and of field ownership whatever is applied, by whom and in which order.

use std::collections::BTreeMap;

use api::apply::{FieldSet, Writer, managed};
use api::patch;
use api::schema::{self, Schema};
use proptest::prelude::*;
use serde_json::{Value, json};

type Data = BTreeMap<String, String>;

/// What happens to an object: somebody applies a configuration, or changes it otherwise.
#[derive(Clone, Debug)]
enum Step {
    Apply { manager: usize, data: Data, force: bool },
    Update { manager: usize, data: Data },
}

fn data() -> impl Strategy<Value = Data> {
    proptest::collection::btree_map("[a-d]", "[0-2]", 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3usize, data(), any::<bool>())
            .prop_map(|(manager, data, force)| Step::Apply { manager, data, force }),
        1 => (0..3usize, data()).prop_map(|(manager, data)| Step::Update { manager, data }),
    ]
}

fn schema() -> Schema {
    schema::of_kind("", "v1", "ConfigMap").expect("built in")
}

fn writer<'a>(manager: &'a str, schema: &'a Schema) -> Writer<'a> {
    let time = "2024-01-01T00:00:00Z";
    Writer {
        manager,
        api_version: "v1",
        subresource: "",
        time,
        schema: Some(schema),
        reset: None,
        versions: None,
    }
}

fn config(data: &Data) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
}

/// The keys of `data` that an entry of `managedFields` holds.
fn owned(object: &Value, manager: &str, operation: &str) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let own = entries.iter().filter(|e| e["manager"] == manager && e["operation"] == operation);
    let sets = own.filter_map(|e| FieldSet::from_fields_v1(&e["fieldsV1"]).ok());
    let keys =
        sets.flat_map(|set| set.paths()).filter_map(|path| path.strip_prefix(".data.").map(str::to_owned));
    keys.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn ownership_holds_whatever_comes(steps in proptest::collection::vec(step(), 1..12)) {
        let schema = schema();
        let mut live: Option<Value> = None;
        for step in steps {
            match step {
                Step::Apply { manager, data, force } => {
                    let manager = format!("m{manager}");
                    let writer = writer(&manager, &schema);
                    let before = live.clone();
                    let Ok(new) = managed::apply(live.as_ref(), &config(&data), &writer, force) else {
                        prop_assert!(!force, "whoever forces has no conflicts");
                        continue;
                    };
                    // What was applied is so, and is its manager's: all of it and nothing else.
                    for (key, value) in &data {
                        prop_assert_eq!(new["data"][key].as_str(), Some(value.as_str()));
                    }
                    prop_assert_eq!(owned(&new, &manager, "Apply"), data.keys().cloned().collect::<Vec<_>>());
                    // The same again is the same.
                    let again = managed::apply(Some(&new), &config(&data), &writer, force);
                    prop_assert_eq!(again.as_ref(), Ok(&new));
                    // Nobody loses what somebody else did not want otherwise.
                    for other in (0..3).map(|n| format!("m{n}")).filter(|other| *other != manager) {
                        for key in before.iter().flat_map(|before| owned(before, &other, "Apply")) {
                            let kept = new["data"].get(&key) == before.as_ref().and_then(|b| b["data"].get(&key));
                            prop_assert!(kept || data.contains_key(&key), "{} of {}", key, other);
                        }
                    }
                    live = Some(new);
                }
                Step::Update { manager, data } => {
                    let mut new = config(&data);
                    if let Some(fields) = live.as_ref().and_then(|l| l["metadata"].get("managedFields")) {
                        new["metadata"]["managedFields"] = fields.clone();
                    }
                    managed::update(live.as_ref(), &mut new, &writer(&format!("m{manager}"), &schema));
                    live = Some(new);
                }
            }
            // Everything that is owned is there.
            for manager in ["m0", "m1", "m2"] {
                for operation in ["Apply", "Update"] {
                    for key in live.iter().flat_map(|live| owned(live, manager, operation)) {
                        prop_assert!(live.as_ref().is_some_and(|l| l["data"].get(&key).is_some()), "{} of {}", key, manager);
                    }
                }
            }
        }
    }

    #[test]
    fn a_merge_patch_twice_is_once(original in tree(), patch in tree()) {
        let once = patch::merge(&original, &patch);
        prop_assert_eq!(patch::merge(&once, &patch), once);
    }

    #[test]
    fn a_strategic_patch_twice_is_once(original in containers(), patch in containers()) {
        let schema = schema::of_kind("", "v1", "Pod").expect("built in");
        let once = patch::strategic::apply(&original, &patch, &schema).expect("applies");
        // Every container is there once, and those of the patch are as it says.
        let names = |pod: &Value| -> Vec<String> {
            let all = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
            all.iter().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
        };
        let mut unique = names(&once);
        unique.sort();
        unique.dedup();
        prop_assert_eq!(unique.len(), names(&once).len());
        for name in names(&original).iter().chain(&names(&patch)) {
            prop_assert!(names(&once).contains(name), "{} is gone", name);
        }
        prop_assert_eq!(patch::strategic::apply(&once, &patch, &schema).expect("applies"), once);
    }
}

/// JSON that is two levels deep, with nulls.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), (0..3i64).prop_map(Value::from), "[xy]".prop_map(Value::from)];
    leaf.prop_recursive(2, 12, 3, |inner| {
        proptest::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| json!(map))
    })
}

/// A pod's containers, each name once.
fn containers() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", "[0-2]", 0..4).prop_map(|map| {
        let all: Vec<Value> = map.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        json!({"spec": {"containers": all}})
    })
}
