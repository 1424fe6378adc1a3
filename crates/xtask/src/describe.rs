//! `cargo xtask describe`: writes what the published documents say of the built-in types in words, and which values their
//! fields may have, from the recorded answers of the original (`crates/apiserver/tests/protocol`). The `api` crate embeds
//! it beside the facts table, which holds everything else.

use std::io::{Read, Write};

use anyhow::{Context, Result};
use serde_json::Value;

const RECORDED: &str = "crates/apiserver/tests/protocol/recorded/openapi.json.gz";
const TABLE: &str = "crates/api/src/openapi/descriptions.tsv.gz";

/// Runs the command; returns what to tell the user.
pub fn run() -> Result<String> {
    let file = std::fs::File::open(RECORDED).with_context(|| format!("open {RECORDED}"))?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text)?;
    let recorded: Value = serde_json::from_str(&text)?;
    let table = table(&recorded);
    let file = std::fs::File::create(TABLE).with_context(|| format!("create {TABLE}"))?;
    let mut gz = flate2::GzBuilder::new().write(file, flate2::Compression::best());
    gz.write_all(table.as_bytes())?;
    let size = gz.finish()?.metadata()?.len();
    Ok(format!("{TABLE}: {} lines, {size} bytes", table.lines().count()))
}

fn table(recorded: &Value) -> String {
    let mut out = String::new();
    for (part, hash) in recorded["parts"].as_object().into_iter().flatten() {
        let Some(name) = part.strip_prefix("v2 definition ") else { continue };
        let schema = &recorded["texts"][hash.as_str().unwrap_or_default()];
        out += &format!("M\t{name}\t{}\n", text(schema));
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            let of_elements = ["items", "additionalProperties"].iter().find_map(|k| schema[k].get("enum"));
            let values = [schema.get("enum"), of_elements].map(|v| v.map_or(String::new(), Value::to_string));
            let line = format!("F\t{field}\t{}\t{}\t{}", text(schema), values[0], values[1]);
            out += line.trim_end();
            out.push('\n');
        }
    }
    out
}

/// A description as JSON, which has neither tabs nor ends of lines; nothing where there is none.
fn text(schema: &Value) -> String {
    schema.get("description").map_or(String::new(), Value::to_string)
}
