//! What earlier builds have made: a step's key is everything its result depends on.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::content::{digest_of, write_atomically};
use crate::error::{ImageError, Result, failed};
use crate::manifest::Descriptor;
use crate::store::ImageStore;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// `None`: the step changed no file.
    pub layer: Option<Layer>,
    pub created: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Layer {
    pub descriptor: Descriptor,
    pub diff_id: String,
    pub chain_id: String,
}

/// The key of a step after another.
pub fn key(parent: &str, parts: &[&str]) -> String {
    let mut text = parent.to_owned();
    for part in parts {
        text += &format!("\n{}:{part}", part.len());
    }
    digest_of(text.as_bytes())
}

/// `None`: never done, or what it made is gone.
pub fn find(store: &ImageStore, key: &str) -> Option<Entry> {
    let bytes = fs::read(path(store, key)).ok()?;
    let entry: Entry = serde_json::from_slice(&bytes).ok()?;
    let is_here = |layer: &Layer| {
        store.content().contains(&layer.descriptor.digest) && store.snapshots().contains(&layer.chain_id)
    };
    entry.layer.as_ref().is_none_or(is_here).then_some(entry)
}

pub fn keep(store: &ImageStore, key: &str, entry: &Entry) -> Result<()> {
    let path = path(store, key);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed("create", directory))?;
    }
    let bytes = serde_json::to_vec(entry)
        .map_err(|source| ImageError::Decode { what: "cache entry".into(), source })?;
    write_atomically(&path, &bytes)
}

fn path(store: &ImageStore, key: &str) -> PathBuf {
    store.root().join("build-cache").join(key.trim_start_matches("sha256:")).with_extension("json")
}
