//! Rules of the repository that no compiler checks. Each says what to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

const LINES_LIMIT: usize = 800;
/// Texts that may not stand in a Rust file, and why.
const BANNED: &[(&str, &str)] = &[
    ("#[ignore", "an ignored test proves nothing: mend it or delete it"),
    ("thread::sleep(", "wait for a condition with a deadline"),
    ("todo!(", "finish it, or open an issue"),
    ("unimplemented!(", "finish it, or open an issue"),
    ("dbg!(", "use tracing"),
];

pub fn run() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("the repository")?;
    let mut faults = Vec::new();
    let mut files = Vec::new();
    for folder in ["crates", "examples"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    for file in &files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let shown = file.strip_prefix(root).unwrap_or(file).display().to_string();
        check_file(&shown, &text, &mut faults);
    }
    check_edges(root, &mut faults)?;
    check_documents(root, &mut faults);
    crate::named::check(root, &mut faults)?;
    if !faults.is_empty() {
        bail!("tidy found {} fault(s):\n  {}", faults.len(), faults.join("\n  "));
    }
    println!("── tidy: {} files in order", files.len());
    Ok(())
}

pub fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

fn check_file(shown: &str, text: &str, faults: &mut Vec<String>) {
    if !text.starts_with("//!") {
        faults.push(format!(
            "{shown}: begin the file with `//!` and say what it is for and why it is as it is"
        ));
    }
    let lines = text.lines().count();
    if lines > LINES_LIMIT {
        faults.push(format!("{shown}: {lines} lines; past {LINES_LIMIT} the shape is wrong, part it"));
    }
    if shown.ends_with("xtask/src/tidy.rs") {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        for (banned, why) in BANNED {
            if line.contains(banned) && !line.trim_start().starts_with("//") {
                faults.push(format!("{shown}:{}: `{banned}` is not allowed: {why}", number + 1));
            }
        }
    }
}

/// Which crate may depend on which is written down in `edges.txt`: `crate: dependency dependency …`.
fn check_edges(root: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let listed =
        std::fs::read_to_string(root.join("crates/xtask/edges.txt")).context("crates/xtask/edges.txt")?;
    let allowed: BTreeMap<&str, Vec<&str>> = listed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, rest)| (name.trim(), rest.split_whitespace().collect()))
        .collect();
    let ours: Vec<&str> = allowed.keys().copied().collect();
    for entry in std::fs::read_dir(root.join("crates"))? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let Some(allowed) = allowed.get(name.as_str()) else {
            faults.push(format!(
                "crates/{name}: a new crate is an architectural decision: list it in crates/xtask/edges.txt"
            ));
            continue;
        };
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
        let shipped = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for dependency in shipped.lines().filter_map(|line| line.split(['.', ' ', '=']).next()) {
            if ours.contains(&dependency) && dependency != name && !allowed.contains(&dependency) {
                faults.push(format!(
                    "crates/{name}: may not depend on `{dependency}`; see crates/xtask/edges.txt"
                ));
            }
        }
    }
    Ok(())
}

fn check_documents(root: &Path, faults: &mut Vec<String>) {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", ".ci/run"] {
        if !root.join(name).exists() {
            faults.push(format!("{name} is missing"));
        }
    }
    // Every crate has its paragraph on the map.
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    for entry in std::fs::read_dir(root.join("crates")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !map.contains(&format!("`{name}`")) {
            faults.push(format!("ARCHITECTURE.md does not mention the crate `{name}`"));
        }
    }
}
