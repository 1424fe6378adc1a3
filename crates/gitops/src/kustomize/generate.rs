//! ConfigMaps and Secrets made from literals, files and env files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::file::{Generator, GeneratorOptions, KustomizationFile};
use super::{BuildError, Object};
use crate::files::{Files, resolve};

pub fn run(
    spec: &KustomizationFile,
    files: &Files,
    folder: &str,
    path: &str,
    objects: &mut Vec<Object>,
) -> Result<(), BuildError> {
    let maps = spec.config_map_generator.iter().map(|g| ("ConfigMap", g));
    let secrets = spec.secret_generator.iter().map(|g| ("Secret", g));
    for (kind, generator) in maps.chain(secrets) {
        let made = make(kind, generator, &spec.generator_options, files, folder, path)?;
        place(made, generator, path, objects)?;
    }
    Ok(())
}

fn make(
    kind: &str,
    generator: &Generator,
    defaults: &GeneratorOptions,
    files: &Files,
    folder: &str,
    path: &str,
) -> Result<Object, BuildError> {
    let fault = |message: String| BuildError::Kustomization { path: path.to_owned(), message };
    if generator.name.is_empty() {
        return Err(fault("a generator has no name".into()));
    }
    let read = |file: &str| {
        let at = resolve(folder, file).unwrap_or_default();
        files.get(&at).ok_or_else(|| BuildError::Missing { path: at.clone(), by: path.to_owned() })
    };
    let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
    for literal in &generator.literals {
        let (key, value) = literal
            .split_once('=')
            .ok_or_else(|| fault(format!("literal {literal:?} is not of the form key=value")))?;
        let quoted = |q: char| value.len() >= 2 && value.starts_with(q) && value.ends_with(q);
        let value = if quoted('"') || quoted('\'') { &value[1..value.len() - 1] } else { value };
        entries.push((key.to_owned(), value.as_bytes().to_vec()));
    }
    for file in &generator.files {
        let (key, file) = match file.split_once('=') {
            Some((key, file)) => (key, file),
            None => (file.rsplit('/').next().unwrap_or(file), file.as_str()),
        };
        entries.push((key.to_owned(), read(file)?.to_vec()));
    }
    for file in generator.envs.iter().chain(&generator.env) {
        for line in String::from_utf8_lossy(read(file)?).lines().map(str::trim_start) {
            if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                entries.push((key.to_owned(), value.as_bytes().to_vec()));
            }
        }
    }
    let mut value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": generator.name}});
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, bytes) in entries {
        if data.contains_key(&key) || binary.contains_key(&key) {
            return Err(fault(format!("generator {:?} has the key {key:?} twice", generator.name)));
        }
        match (kind, String::from_utf8(bytes)) {
            ("Secret", text) => {
                let bytes = text.map_or_else(std::string::FromUtf8Error::into_bytes, String::into_bytes);
                data.insert(key, STANDARD.encode(bytes).into());
            }
            (_, Ok(text)) => drop(data.insert(key, text.into())),
            (_, Err(raw)) => drop(binary.insert(key, STANDARD.encode(raw.into_bytes()).into())),
        }
    }
    if !data.is_empty() {
        value["data"] = Value::Object(data);
    }
    if !binary.is_empty() {
        value["binaryData"] = Value::Object(binary);
    }
    if kind == "Secret" {
        value["type"] = generator.type_.as_deref().unwrap_or("Opaque").into();
    }
    if let Some(namespace) = &generator.namespace {
        value["metadata"]["namespace"] = namespace.as_str().into();
    }
    let options = &generator.options;
    for (field, pairs) in [
        ("labels", [&defaults.labels, &options.labels]),
        ("annotations", [&defaults.annotations, &options.annotations]),
    ] {
        for (key, text) in pairs.into_iter().flatten() {
            value["metadata"][field][key] = text.as_str().into();
        }
    }
    if options.immutable.or(defaults.immutable) == Some(true) {
        value["immutable"] = true.into();
    }
    let mut object = Object::new(value);
    object.needs_hash = options.disable_name_suffix_hash.or(defaults.disable_name_suffix_hash) != Some(true);
    Ok(object)
}

/// Adds the object, or folds it into the one it is to replace or be merged with.
fn place(
    made: Object,
    generator: &Generator,
    path: &str,
    objects: &mut Vec<Object>,
) -> Result<(), BuildError> {
    let behavior = generator.behavior.as_deref().unwrap_or("create");
    if behavior == "create" {
        return super::object::add(objects, made, path);
    }
    let found = objects.iter_mut().find(|o| {
        o.kind() == made.kind()
            && o.group().is_empty()
            && o.is_known_as(made.name(), generator.namespace.as_deref())
    });
    let target = || format!(" ({} {}, behavior {behavior})", made.kind(), made.name());
    let existing = found.ok_or_else(|| BuildError::NoTarget { path: path.to_owned(), target: target() })?;
    match behavior {
        "merge" => {
            for field in ["data", "binaryData"] {
                for (key, value) in made.value[field].as_object().into_iter().flatten() {
                    existing.value[field][key] = value.clone();
                }
            }
            for field in ["labels", "annotations"] {
                for (key, value) in made.value["metadata"][field].as_object().into_iter().flatten() {
                    existing.value["metadata"][field][key] = value.clone();
                }
            }
        }
        "replace" => {
            for field in ["data", "binaryData"] {
                match made.value.get(field) {
                    Some(value) => existing.value[field] = value.clone(),
                    None => drop(existing.value.as_object_mut().and_then(|o| o.remove(field))),
                }
            }
        }
        other => {
            let message = format!("generator behavior {other:?} is not one of create, merge, replace");
            return Err(BuildError::Kustomization { path: path.to_owned(), message });
        }
    }
    existing.needs_hash |= made.needs_hash;
    Ok(())
}
