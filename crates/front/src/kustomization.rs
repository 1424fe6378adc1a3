//! The files that a kustomization on disk is built from: all below its folder, and below those that it names beside or
//! above itself. Nothing else of the disk is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use gitops::files::Files;
use gitops::kustomize::NAMES;
use serde_json::Value;

/// A larger file is not a manifest.
const FILE_LIMIT_BYTES: u64 = 4 << 20;
const FILES_LIMIT: usize = 10_000;
/// Folders that nothing is deployed from.
const LEFT_OUT: [&str; 3] = [".git", "target", "node_modules"];

pub struct Tree {
    /// The folder that the files' paths begin at.
    pub top: PathBuf,
    pub files: Files,
}

/// `folder` is absolute and without links.
pub fn files(folder: &Path) -> anyhow::Result<Tree> {
    let mut found: BTreeMap<PathBuf, Arc<[u8]>> = BTreeMap::new();
    let mut asked = BTreeSet::from([folder.to_owned()]);
    let mut queue = vec![folder.to_owned()];
    while let Some(next) = queue.pop() {
        let mut new = Vec::new();
        gather(&next, &mut found, &mut new)?;
        for path in
            new.iter().filter(|path| path.file_name().is_some_and(|name| NAMES.iter().any(|n| name == *n)))
        {
            let (Some(parent), Some(bytes)) = (path.parent(), found.get(path)) else { continue };
            for other in named_outside(parent, bytes) {
                if !asked.iter().any(|root| other.starts_with(root)) {
                    asked.insert(other.clone());
                    queue.push(other);
                }
            }
        }
    }
    let mut top = folder.to_owned();
    while !asked.iter().all(|root| root.starts_with(&top)) && top.pop() {}
    let below = |path: &Path| path.strip_prefix(&top).unwrap_or(path).to_string_lossy().into_owned();
    let files = found.iter().map(|(path, bytes)| (below(path), Arc::clone(bytes))).collect();
    Ok(Tree { files: Files::new(files), top })
}

/// The folders with a kustomization, as seen from `top`; what cannot be read has none.
pub fn folders(top: &Path) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut queue = vec![top.to_owned()];
    let mut looked_at = 0;
    while let Some(folder) = queue.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            looked_at += 1;
            if looked_at > FILES_LIMIT {
                return found.into_iter().collect();
            }
            let left_out = LEFT_OUT.iter().any(|name| entry.file_name() == *name);
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && !left_out {
                queue.push(entry.path());
            } else if kind.is_file() && NAMES.iter().any(|name| entry.file_name() == *name) {
                found.insert(folder.strip_prefix(top).unwrap_or(&folder).to_string_lossy().into_owned());
            }
        }
    }
    found.into_iter().filter(|folder| !folder.is_empty()).collect()
}

/// What a kustomization names above itself and is there; what is not is missed by the build, with a better word.
fn named_outside(folder: &Path, kustomization: &[u8]) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(kustomization);
    let value = api::yaml::parse_one(&text).unwrap_or_default();
    let lists = ["resources", "bases", "components"]
        .map(|field| value[field].as_array().cloned().unwrap_or_default());
    let entries = lists.iter().flatten().filter_map(Value::as_str).filter(|entry| entry.starts_with(".."));
    entries.filter_map(|entry| std::fs::canonicalize(folder.join(entry)).ok()).collect()
}

fn gather(
    path: &Path,
    found: &mut BTreeMap<PathBuf, Arc<[u8]>>,
    new: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries.flatten() {
            let left_out = LEFT_OUT.iter().any(|name| entry.file_name() == *name);
            // A link may lead anywhere, round in a circle even.
            if !left_out && entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
                gather(&entry.path(), found, new)?;
            }
        }
    } else if path.metadata().is_ok_and(|m| m.is_file() && m.len() <= FILE_LIMIT_BYTES) {
        // What may not be read is missed only if it is needed, and then by name.
        let Ok(bytes) = std::fs::read(path) else { return Ok(()) };
        if found.insert(path.to_owned(), bytes.into()).is_none() {
            new.push(path.to_owned());
        }
        if found.len() > FILES_LIMIT {
            bail!("there are more than {FILES_LIMIT} files below {}; name a smaller folder", path.display());
        }
    }
    Ok(())
}
