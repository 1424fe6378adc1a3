//! What reads what others write, as functions of bytes: for fuzzers, and for the test that runs what they have kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::duration;
use crate::files::Files;
use crate::kustomize;

pub type Target = fn(&[u8]);

pub const TARGETS: &[(&str, Target)] = &[("kustomization", kustomization)];

/// A kustomization file, and after a zero byte the manifest beside it.
fn kustomization(data: &[u8]) {
    let at = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (file, manifest) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let files = BTreeMap::from([
        ("kustomization.yaml".to_owned(), Arc::from(file)),
        ("a.yaml".to_owned(), Arc::from(manifest)),
    ]);
    drop(kustomize::build(&Files::new(files), "", &Default::default()));
    if let Ok(text) = std::str::from_utf8(file) {
        duration::parse(text);
    }
}
