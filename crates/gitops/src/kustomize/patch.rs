//! Patches: strategic merge or JSON 6902, from files or in line, for one object or all that a target selects.

use api::selector::Selector;
use regex::Regex;
use serde_json::Value;

use super::file::{KustomizationFile, PatchEntry, Target};
use super::{BuildError, Object};
use crate::files::{Files, resolve};

pub fn run(
    spec: &KustomizationFile,
    files: &Files,
    folder: &str,
    path: &str,
    objects: &mut Vec<Object>,
) -> Result<(), BuildError> {
    // An entry of `patchesStrategicMerge` is a file or the patch itself.
    let merges = spec.patches_strategic_merge.iter().map(|entry| match entry.contains('\n') {
        true => PatchEntry { patch: Some(entry.clone()), ..Default::default() },
        false => PatchEntry { path: Some(entry.clone()), ..Default::default() },
    });
    let merges: Vec<PatchEntry> = merges.collect();
    for entry in merges.iter().chain(&spec.patches).chain(&spec.patches_json6902) {
        apply(entry, files, folder, path, objects)?;
    }
    Ok(())
}

fn apply(
    entry: &PatchEntry,
    files: &Files,
    folder: &str,
    by: &str,
    objects: &mut Vec<Object>,
) -> Result<(), BuildError> {
    let (text, path) = match (&entry.path, &entry.patch) {
        (Some(file), _) => {
            let at = resolve(folder, file).unwrap_or_default();
            let bytes =
                files.get(&at).ok_or_else(|| BuildError::Missing { path: at.clone(), by: by.to_owned() })?;
            (String::from_utf8_lossy(bytes).into_owned(), at)
        }
        (None, Some(text)) => (text.clone(), by.to_owned()),
        (None, None) => {
            let message = "a patch has neither `path` nor `patch`".into();
            return Err(BuildError::Kustomization { path: by.to_owned(), message });
        }
    };
    let yaml =
        |e: api::yaml::YamlError| BuildError::Yaml { path: path.clone(), line: e.line, message: e.message };
    for document in api::yaml::parse_documents(&text).map_err(yaml)? {
        let patch = document.value;
        let targets = targets(entry.target.as_ref(), &patch, &path, objects)?;
        let mut removed = Vec::new();
        for at in targets {
            let new = patched(&objects[at].value, &patch).map_err(|message| BuildError::Patch {
                path: path.clone(),
                object: objects[at].label(),
                message,
            })?;
            match new {
                Some(new) => replace(&mut objects[at], new, entry),
                None => removed.push(at),
            }
        }
        for at in removed.into_iter().rev() {
            objects.remove(at);
        }
    }
    Ok(())
}

/// A patch changes neither name nor kind, unless its options say so.
fn replace(object: &mut Object, new: Value, entry: &PatchEntry) {
    let allowed = |option: &str| entry.options.as_ref().is_some_and(|o| o[option] == true);
    let mut new = new;
    if !allowed("allowKindChange") {
        new["kind"] = object.value["kind"].clone();
        new["apiVersion"] = object.value["apiVersion"].clone();
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    new["metadata"]["name"] = object.value["metadata"]["name"].clone();
    object.value = new;
    if allowed("allowNameChange") && !name.is_empty() {
        object.rename(name);
    }
}

/// The new object, or `None` when the patch deletes it.
fn patched(object: &Value, patch: &Value) -> Result<Option<Value>, String> {
    if patch.is_array() {
        return api::patch::json(object, patch).map(Some).map_err(|e| e.to_string());
    }
    if patch["$patch"] == "delete" {
        return Ok(None);
    }
    match api::schema::of_object(object) {
        Some(schema) => {
            api::patch::strategic::apply(object, patch, &schema).map(Some).map_err(|e| e.to_string())
        }
        None => Ok(Some(api::patch::merge(object, patch))),
    }
}

fn targets(
    target: Option<&Target>,
    patch: &Value,
    path: &str,
    objects: &[Object],
) -> Result<Vec<usize>, BuildError> {
    if let Some(target) = target {
        let matcher = Matcher::new(target)
            .map_err(|message| BuildError::Kustomization { path: path.to_owned(), message })?;
        // As in the original, a target that selects nothing is not an error.
        return Ok((0..objects.len()).filter(|at| matcher.matches(&objects[*at])).collect());
    }
    let subject = Object::new(patch.clone());
    let described = || format!(" for {} {:?}", subject.kind(), subject.name());
    if subject.kind().is_empty() || subject.name().is_empty() {
        let message = "a patch without `target` must have apiVersion, kind and metadata.name".into();
        return Err(BuildError::Kustomization { path: path.to_owned(), message });
    }
    let namespace = Some(subject.namespace()).filter(|n| !n.is_empty());
    let found = (0..objects.len()).find(|at| {
        let object = &objects[*at];
        object.kind() == subject.kind()
            && object.group() == subject.group()
            && object.is_known_as(subject.name(), namespace)
    });
    found
        .map(|at| vec![at])
        .ok_or_else(|| BuildError::NoTarget { path: path.to_owned(), target: described() })
}

struct Matcher<'a> {
    target: &'a Target,
    name: Option<Regex>,
    namespace: Option<Regex>,
    kind: Option<Regex>,
    labels: Selector,
    annotations: Selector,
}

impl<'a> Matcher<'a> {
    fn new(target: &'a Target) -> Result<Self, String> {
        let whole = |pattern: &Option<String>| {
            let pattern = pattern.as_deref().filter(|p| !p.is_empty());
            pattern
                .map(|p| Regex::new(&format!("^(?:{p})$")).map_err(|e| format!("target {p:?}: {e}")))
                .transpose()
        };
        let selector = |text: &Option<String>| {
            Selector::parse(text.as_deref().unwrap_or_default()).map_err(|e| e.to_string())
        };
        Ok(Self {
            target,
            name: whole(&target.name)?,
            namespace: whole(&target.namespace)?,
            kind: whole(&target.kind)?,
            labels: selector(&target.label_selector)?,
            annotations: selector(&target.annotation_selector)?,
        })
    }

    fn matches(&self, object: &Object) -> bool {
        let is = |wanted: &Option<String>, actual: &str| {
            wanted.as_deref().is_none_or(|w| w.is_empty() || w == actual)
        };
        let names = |pattern: &Option<Regex>, now: &str, former: Vec<&String>| {
            pattern.as_ref().is_none_or(|p| p.is_match(now) || former.iter().any(|f| p.is_match(f)))
        };
        let pairs = |field: &str, selector: &Selector| {
            selector.matches_by(|key| object.value["metadata"].get(field)?.get(key)?.as_str())
        };
        is(&self.target.group, object.group())
            && is(&self.target.version, object.version())
            && self.kind.as_ref().is_none_or(|p| p.is_match(object.kind()))
            && names(&self.name, object.name(), object.former.iter().map(|(name, _)| name).collect())
            && names(
                &self.namespace,
                object.namespace(),
                object.former.iter().map(|(_, namespace)| namespace).collect(),
            )
            && pairs("labels", &self.labels)
            && pairs("annotations", &self.annotations)
    }
}
