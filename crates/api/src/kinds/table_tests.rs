//! What holds of every entry of the table: its data fit together, and its example is created, changed, shown and carried
//! in both wire forms.

use std::path::Path;

use serde_json::{Value, json};

use super::*;

#[test]
fn the_table_is_consistent() {
    let mut seen = std::collections::HashSet::new();
    for kind in builtin() {
        let label = label(kind);
        assert!(
            seen.insert((kind.group.clone(), kind.version.clone(), kind.plural.clone())),
            "{label} twice"
        );
        assert_eq!(kind.has_status, kind.subresource("status").is_some(), "{label}: status");
        assert_eq!(kind.scale.is_some(), kind.subresource("scale").is_some(), "{label}: scale");
        assert!(kind.verbs == CREATE_ONLY || !kind.columns.is_empty(), "{label}: no columns");
        let object =
            json!({"apiVersion": kind.api_version(), "kind": &*kind.kind, "metadata": {"name": "a"}});
        assert_eq!(kind.behaviour.row(&object).len(), kind.columns.len(), "{label}: a cell for each column");
        let schema = crate::schema::of_kind(&kind.group, &kind.version, &kind.kind);
        assert!(schema.is_some(), "{label}: no schema");
    }
}

fn label(kind: &Kind) -> String {
    format!("{} {}", kind.api_version(), kind.kind)
}

/// The example of a kind; that of an older version lies beside the stored one's.
fn example(kind: &Kind) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kinds/examples");
    let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
    let names =
        [format!("{}.{}{group}.yaml", kind.plural, kind.version), format!("{}{group}.yaml", kind.plural)];
    let text = names.iter().find_map(|name| std::fs::read_to_string(folder.join(name)).ok());
    let text = text.unwrap_or_else(|| panic!("{}: no example in {}", label(kind), folder.display()));
    let example = crate::yaml::parse_one(&text).unwrap_or_else(|e| panic!("{}: {e}", label(kind)));
    let mut object = example["object"].clone();
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.as_ref().into();
    let name = example["name"].as_str().unwrap_or("example");
    crate::meta::set(&mut object, "name", name);
    crate::meta::set(&mut object, "uid", "u");
    if kind.namespaced {
        crate::meta::set(&mut object, "namespace", "@");
    }
    object
}

#[test]
fn each_example_is_created_and_kept_whole() {
    for kind in builtin().iter().filter(|k| !k.is_virtual()) {
        let label = label(kind);
        let created = kind
            .behaviour
            .create(example(kind), &mut Vec::new())
            .unwrap_or_else(|e| panic!("{label}: {e:?}"));
        let mut served = kind.to_served(kind.to_stored(&created));
        assert_eq!(served["apiVersion"], kind.api_version(), "{label}");
        assert_eq!(kind.behaviour.row(&served).len(), kind.columns.len(), "{label}: a cell for each column");
        let fields = kind.behaviour.fields(&served);
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, kind.selectable, "{label}: a value for each selectable field");
        let again = kind.behaviour.update(served.clone(), &served, &mut Vec::new());
        let mut again = again.unwrap_or_else(|e| panic!("{label}: an update that changes nothing: {e:?}"));
        let schema = crate::schema::of_kind(&kind.group, &kind.version, &kind.kind);
        let schema = schema.unwrap_or_else(|| panic!("{label}: no schema"));
        schema.canonicalize(&mut again);
        schema.canonicalize(&mut served);
        assert_eq!(again, served, "{label}: an update that changes nothing");
        let bytes = crate::proto::encode(&served).unwrap_or_else(|e| panic!("{label}: {e:?}"));
        let back = crate::proto::decode(&bytes).unwrap_or_else(|e| panic!("{label}: {e:?}"));
        // Types of objects within objects are not on the wire: whoever decodes fills them in.
        let mut back = kind
            .behaviour
            .update(back, &served, &mut Vec::new())
            .unwrap_or_else(|e| panic!("{label}: {e:?}"));
        schema.canonicalize(&mut back);
        assert_eq!(back, served, "{label}: in protobuf and back");
    }
}

#[test]
fn each_fault_of_an_example_is_told_apart_from_the_example() {
    // What the schema or the server finds is not the kind's to find; the kinds that find most are held to it here.
    for plural in ["pods", "deployments", "services", "networkpolicies", "ingresses", "limitranges"] {
        let kind = builtin().iter().find(|k| k.plural == plural).unwrap_or_else(|| panic!("{plural}"));
        assert!(kind.behaviour.create(example(kind), &mut Vec::new()).is_ok(), "{plural}");
        let empty = json!({"apiVersion": kind.api_version(), "kind": &*kind.kind, "metadata": {"name": "a"},
            "spec": {"limits": [{"type": "PersistentVolumeClaim"}], "policyTypes": ["Bogus"]}});
        assert!(kind.behaviour.create(empty, &mut Vec::new()).is_err(), "{plural}: nothing in its spec");
    }
}
