//! `cargo xtask generate <sources>`: writes the facts table of the built-in types that the `api` crate embeds.
//!
//! `<sources>` holds the published type definitions of Kubernetes v1.36 (release 0.36 of the repositories
//! `api`, `apimachinery`, `kube-aggregator`, `apiextensions-apiserver`, unpacked under these names). Only facts
//! are taken: names, types, tags, markers. Every later use (decoding, patches, ownership, protobuf, OpenAPI)
//! reads the table, so that a new release is one run of this command.
//!
//! A second argument names the release's published JSON definitions; they are then compared with the result.

mod emit;
mod published;
mod source;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

const TABLE: &str = "crates/api/src/schema/builtin.bin.gz";

/// Runs the command; returns what to tell the user.
pub fn run(args: &[String]) -> Result<String> {
    let sources = args.first().context("usage: cargo xtask generate <sources> [<definitions.json>]")?;
    let packages = source::read_packages(Path::new(sources))?;
    let table = emit::table(&packages)?;
    let mut report = String::new();
    if let Some(definitions) = args.get(1) {
        report = published::compare(&table, Path::new(definitions))?;
    }
    let file = std::fs::File::create(TABLE).with_context(|| format!("create {TABLE}"))?;
    let mut gz = flate2::GzBuilder::new().write(file, flate2::Compression::best());
    gz.write_all(table.as_bytes())?;
    let size = gz.finish()?.metadata()?.len();
    let messages = table.lines().filter(|line| line.starts_with("M\t")).count();
    let fields = table.lines().filter(|line| line.starts_with("F\t")).count();
    Ok(format!("{report}{TABLE}: {messages} messages, {fields} fields, {size} bytes"))
}
