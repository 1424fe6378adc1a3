//! Compares the table with the published JSON definitions: list types, map keys, merge keys, strategies.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

pub fn compare(table: &str, definitions: &Path) -> Result<String> {
    let text = std::fs::read_to_string(definitions).with_context(|| definitions.display().to_string())?;
    let root: Value = serde_json::from_str(&text)?;
    let definitions = ["definitions", "$defs"].iter().find_map(|key| root.get(key)?.as_object());
    let definitions = definitions.context("no definitions in the file")?;
    let ours = facts_of_table(table);
    let (mut compared, mut report) = (0, String::new());
    for (name, definition) in definitions {
        let Some(fields) = ours.get(name) else { continue };
        let properties = definition.get("properties").and_then(Value::as_object);
        for (field, schema) in properties.into_iter().flatten() {
            let published = facts_of_schema(schema);
            let own = fields.get(field).cloned().unwrap_or_else(|| "missing".into());
            compared += 1;
            if own != published {
                writeln!(report, "{name}.{field}: table {own:?}, published {published:?}")?;
            }
        }
    }
    writeln!(report, "{compared} published fields compared")?;
    Ok(report)
}

fn facts_of_schema(schema: &Value) -> String {
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    let keys: Vec<&str> = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .map(|keys| keys.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let list = match text("x-kubernetes-list-type") {
        "map" => format!("m{}", keys.join(",")),
        "set" => "s".to_owned(),
        "atomic" => "a".to_owned(),
        _ => String::new(),
    };
    format!("{list}|{}|{}", text("x-kubernetes-patch-strategy"), text("x-kubernetes-patch-merge-key"))
}

fn facts_of_table(table: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut messages: Vec<(String, BTreeMap<String, String>, Vec<usize>)> = Vec::new();
    for line in table.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let column = |at: usize| columns.get(at).copied().unwrap_or_default();
        match (column(0), messages.last_mut()) {
            ("M", _) => messages.push((column(1).to_owned(), BTreeMap::new(), Vec::new())),
            ("F", Some(message)) => {
                let facts = format!("{}|{}|{}", column(5), column(6), column(7));
                message.1.insert(column(1).to_owned(), facts);
            }
            ("I", Some(message)) => message.2.extend(column(2).parse::<usize>()),
            _ => {}
        }
    }
    let flat = |at: usize| {
        let mut fields = messages[at].1.clone();
        let mut inlined = messages[at].2.clone();
        while let Some(at) = inlined.pop() {
            fields.extend(messages[at].1.clone());
            inlined.extend(messages[at].2.clone());
        }
        (messages[at].0.clone(), fields)
    };
    (0..messages.len()).map(flat).collect()
}
