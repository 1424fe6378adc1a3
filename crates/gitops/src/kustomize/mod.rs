//! Kustomize: from a folder with a `kustomization.yaml` to a list of objects, as `kustomize build` makes it. Pure; the
//! order of the steps is the original's: accumulate, generate, patch, transform, hash names, fix references.

mod file;
mod generate;
mod images;
mod labels;
mod names;
mod object;
mod order;
mod patch;
mod references;

use base::constants::PROJECT_FILE;
use serde_json::Value;

use crate::files::{Files, resolve};
use file::KustomizationFile;
pub use file::{Image, NAMES, PatchEntry, Target};
pub use object::Object;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BuildError {
    #[error("{path}: no such file or folder (named in {by})")]
    Missing { path: String, by: String },
    #[error("{path}: line {line}: {message}")]
    Yaml { path: String, line: usize, message: String },
    #[error("{path}: {message}")]
    Kustomization { path: String, message: String },
    #[error("{path}: object {index} has no {field}")]
    NotAnObject { path: String, index: usize, field: &'static str },
    #[error("{path}: {object} is there twice; rename one, or change it with a patch")]
    Duplicate { path: String, object: String },
    #[error("{path}: the patch{target} matches no object")]
    NoTarget { path: String, target: String },
    #[error("{path}: the patch cannot be applied to {object}: {message}")]
    Patch { path: String, object: String, message: String },
    #[error("{path}: its folders include themselves")]
    Cycle { path: String },
    /// Taken at its word, it would prune all that runs.
    #[error("./{path} has neither a kustomization.yaml nor a manifest in or below it")]
    Empty { path: String },
}

/// What a Flux Kustomization adds to what the files say.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub namespace: Option<String>,
    pub name_prefix: Option<String>,
    pub name_suffix: Option<String>,
    pub patches: Vec<PatchEntry>,
    pub images: Vec<Image>,
}

/// Folders that may include one another, at most.
const DEPTH_LIMIT: usize = 32;

/// Builds a folder. One without a kustomization file stands for all manifests in and below it.
pub fn build(files: &Files, folder: &str, overrides: &Overrides) -> Result<Vec<Value>, BuildError> {
    Ok(build_from(files, folder, overrides)?.into_iter().map(|(object, _)| object).collect())
}

/// The same, each object with the file that it is from (which those that patch it may not be); none for what is generated.
pub fn build_from(
    files: &Files,
    folder: &str,
    overrides: &Overrides,
) -> Result<Vec<(Value, String)>, BuildError> {
    let folder = resolve("", folder).unwrap_or_default();
    let mut objects = match file::find(files, &folder) {
        Some(_) => folder_objects(files, &folder, &mut Vec::new())?,
        None if files.is_folder(&folder) || folder.is_empty() => all_manifests(files, &folder)?,
        None => return Err(BuildError::Missing { path: folder, by: "spec.path".into() }),
    };
    let path = format!("{folder}/(spec)");
    let spec = KustomizationFile {
        namespace: overrides.namespace.clone(),
        name_prefix: overrides.name_prefix.clone(),
        name_suffix: overrides.name_suffix.clone(),
        patches: overrides.patches.clone(),
        images: overrides.images.clone(),
        ..Default::default()
    };
    transform(&spec, files, &folder, &path, &mut objects)?;
    names::add_hashes(&mut objects);
    references::fix(&mut objects);
    let mut values: Vec<(Value, String)> = objects.into_iter().map(|o| (o.value, o.origin)).collect();
    values.sort_by_cached_key(|(object, _)| order::place(object));
    Ok(values)
}

fn folder_objects(
    files: &Files,
    folder: &str,
    visiting: &mut Vec<String>,
) -> Result<Vec<Object>, BuildError> {
    if visiting.iter().any(|v| v == folder) || visiting.len() >= DEPTH_LIMIT {
        return Err(BuildError::Cycle { path: folder.to_owned() });
    }
    visiting.push(folder.to_owned());
    let path = file::find(files, folder).ok_or_else(|| BuildError::Missing {
        path: format!("{folder}/kustomization.yaml"),
        by: visiting.iter().rev().nth(1).cloned().unwrap_or_else(|| "spec.path".into()),
    })?;
    let spec = file::read(files, &path)?;
    let mut objects = Vec::new();
    for entry in spec.resources.iter().chain(&spec.bases) {
        add_entry(files, folder, &path, entry, &mut objects, visiting)?;
    }
    for entry in &spec.components {
        let component = resolve(folder, entry).ok_or_else(|| outside(entry, &path))?;
        component_objects(files, &component, &path, &mut objects, visiting)?;
    }
    generate::run(&spec, files, folder, &path, &mut objects)?;
    transform(&spec, files, folder, &path, &mut objects)?;
    visiting.pop();
    Ok(objects)
}

/// A component works on what has been gathered so far, not on resources of its own only.
fn component_objects(
    files: &Files,
    folder: &str,
    by: &str,
    objects: &mut Vec<Object>,
    visiting: &mut Vec<String>,
) -> Result<(), BuildError> {
    if visiting.iter().any(|v| v == folder) || visiting.len() >= DEPTH_LIMIT {
        return Err(BuildError::Cycle { path: folder.to_owned() });
    }
    visiting.push(folder.to_owned());
    let missing = || BuildError::Missing { path: format!("{folder}/kustomization.yaml"), by: by.to_owned() };
    let path = file::find(files, folder).ok_or_else(missing)?;
    let spec = file::read(files, &path)?;
    for entry in spec.resources.iter().chain(&spec.bases) {
        add_entry(files, folder, &path, entry, objects, visiting)?;
    }
    for entry in &spec.components {
        let component = resolve(folder, entry).ok_or_else(|| outside(entry, &path))?;
        component_objects(files, &component, &path, objects, visiting)?;
    }
    generate::run(&spec, files, folder, &path, objects)?;
    transform(&spec, files, folder, &path, objects)?;
    visiting.pop();
    Ok(())
}

fn outside(entry: &str, by: &str) -> BuildError {
    BuildError::Missing { path: format!("{entry} (outside of the repository)"), by: by.to_owned() }
}

fn add_entry(
    files: &Files,
    folder: &str,
    by: &str,
    entry: &str,
    objects: &mut Vec<Object>,
    visiting: &mut Vec<String>,
) -> Result<(), BuildError> {
    if entry.contains("://") || entry.starts_with("github.com/") {
        let message = format!("remote resource {entry:?} is not fetched; make it a GitRepository of its own");
        return Err(BuildError::Kustomization { path: by.to_owned(), message });
    }
    let at = resolve(folder, entry).ok_or_else(|| outside(entry, by))?;
    let added = match files.get(&at) {
        Some(bytes) => object::parse(&at, bytes)?,
        None if files.is_folder(&at) => folder_objects(files, &at, visiting)?,
        None => return Err(BuildError::Missing { path: at, by: by.to_owned() }),
    };
    for object in added {
        object::add(objects, object, by)?;
    }
    Ok(())
}

fn all_manifests(files: &Files, folder: &str) -> Result<Vec<Object>, BuildError> {
    let mut objects = Vec::new();
    for path in files.below(folder).filter(|p| p.ends_with(".yaml") || p.ends_with(".yml")) {
        let parsed = object::parse(path, files.get(path).unwrap_or_default());
        // What says how the repository is deployed is none of what is deployed.
        if path == PROJECT_FILE && matches!(parsed, Err(BuildError::NotAnObject { .. })) {
            continue;
        }
        for object in parsed? {
            object::add(&mut objects, object, path)?;
        }
    }
    if objects.is_empty() {
        return Err(BuildError::Empty { path: folder.to_owned() });
    }
    Ok(objects)
}

/// The transformations of one kustomization file, in the original's order.
fn transform(
    spec: &KustomizationFile,
    files: &Files,
    folder: &str,
    path: &str,
    objects: &mut Vec<Object>,
) -> Result<(), BuildError> {
    patch::run(spec, files, folder, path, objects)?;
    if let Some(namespace) = &spec.namespace {
        names::set_namespace(objects, namespace);
    }
    names::add_affixes(
        objects,
        spec.name_prefix.as_deref().unwrap_or_default(),
        spec.name_suffix.as_deref().unwrap_or_default(),
    );
    labels::run(spec, objects);
    images::run(&spec.images, objects);
    labels::set_replicas(&spec.replicas, path, objects)?;
    // References follow names as they are now, so that an outer file's patch sees a consistent whole.
    references::fix(objects);
    Ok(())
}

#[cfg(test)]
mod tests;
