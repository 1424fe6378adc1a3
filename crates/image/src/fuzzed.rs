//! What reads what others write, as functions of bytes: for fuzzers, and for the test that runs what they have kept.

use crate::Reference;
use crate::builder::parse;
use crate::manifest::{Configuration, Index, Manifest};

pub type Target = fn(&[u8]);

pub const TARGETS: &[(&str, Target)] = &[("dockerfile", dockerfile), ("manifest", manifest)];

fn dockerfile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(parse::parse(text));
}

/// What a registry answers, and a name of an image.
fn manifest(data: &[u8]) {
    drop(serde_json::from_slice::<Index>(data));
    drop(serde_json::from_slice::<Manifest>(data));
    drop(serde_json::from_slice::<Configuration>(data));
    if let Ok(reference) = std::str::from_utf8(data).unwrap_or_default().parse::<Reference>() {
        let again: Reference = reference.to_string().parse().expect("what is shown can be read");
        assert_eq!(again, reference);
    }
}
