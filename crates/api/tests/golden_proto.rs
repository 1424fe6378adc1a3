//! Every object of Kubernetes' own serialization test data: the protobuf form decodes to the JSON form, and the JSON
//! form encodes to the very bytes of the protobuf form. The data is not part of the project; it is looked for
//! beside the checkout.

use std::path::{Path, PathBuf};

use serde_json::Value;

fn golden() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let mut versions: Vec<_> = std::fs::read_dir(root).ok()?.flatten().map(|entry| entry.path()).collect();
    versions.sort();
    versions.pop()
}

fn differs(path: &str, left: &Value, right: &Value, out: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let null = Value::Null;
                differs(
                    &format!("{path}.{key}"),
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                    out,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(at, (a, b))| differs(&format!("{path}[{at}]"), a, b, out));
        }
        (a, b) if a != b => out.push(format!("{path}: {a} and {b}")),
        _ => {}
    }
}

#[test]
fn golden_files() {
    let Some(folder) = golden() else {
        eprintln!("no golden files beside the checkout; the unit tests of `proto` hold vectors of their own");
        return;
    };
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "pb"));
    // Left out: what a later release makes of the data, and the one kind that names neither version nor kind.
    let other = |name: &str| name.contains(".after_roundtrip.") || name == "core.v1.WatchEvent.pb";
    files.retain(|path| !path.file_name().is_some_and(|name| other(&name.to_string_lossy())));
    files.sort();
    assert!(files.len() > 100, "{} files in {}", files.len(), folder.display());
    let mut failures = Vec::new();
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(file).unwrap();
        let json: Value =
            serde_json::from_slice(&std::fs::read(file.with_extension("json")).unwrap()).unwrap();
        match api::proto::decode(&bytes) {
            Ok(value) => {
                let mut found = Vec::new();
                differs("", &value, &json, &mut found);
                failures.extend(found.iter().take(3).map(|found| format!("{name} decoded{found}")));
            }
            Err(error) => failures.push(format!("{name}: {error}")),
        }
        match api::proto::encode(&json) {
            Ok(encoded) if encoded == bytes => {}
            Ok(encoded) => {
                let at = encoded.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
                failures.push(format!(
                    "{name}: encoded differs at byte {at} of {} ({})",
                    bytes.len(),
                    encoded.len()
                ));
            }
            Err(error) => failures.push(format!("{name}: {error}")),
        }
        let schema = api::schema::of_object(&json).unwrap();
        failures.extend(schema.check(&json).iter().map(|problem| format!("{name}: {problem}")));
        let mut canonical = json.clone();
        schema.canonicalize(&mut canonical);
        let mut found = Vec::new();
        differs("", &canonical, &json, &mut found);
        failures.extend(found.iter().take(3).map(|found| format!("{name} canonical{found}")));
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}
