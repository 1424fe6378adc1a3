//! What the protocol promises beside the verbs on single kinds, compared with the original's answers: discovery, OpenAPI,
//! selectors, lists of some version, deletions, subresources, reviews, policies. Scripts lie in `suites/`, answers in
//! `recorded/`; what differs for a reason is in `known.txt` with the reason.
//!
//! With an original at hand (`KEDGE_ORIGINAL_URL`, `KEDGE_ORIGINAL_TOKEN`, `KEDGE_ORIGINAL_CA`) its answers are recorded
//! anew: `cargo test -p apiserver --test protocol`.

mod discovery;
mod fields;
mod known;
mod openapi;
mod probes;
mod script;
mod suites;
mod versions;
#[path = "../differential/world.rs"]
mod world;

use std::path::{Path, PathBuf};

use testkit::differential::original::Original;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol")
}

/// The original, if there is one to record.
fn original() -> Option<Original> {
    let variable = |name: &str| std::env::var(name).ok();
    let url = variable("KEDGE_ORIGINAL_URL")?;
    let token = variable("KEDGE_ORIGINAL_TOKEN").expect("KEDGE_ORIGINAL_TOKEN");
    let authority = variable("KEDGE_ORIGINAL_CA").expect("KEDGE_ORIGINAL_CA");
    Some(Original::new(&url, &token, Path::new(&authority)).expect("an original"))
}
