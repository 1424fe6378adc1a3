//! Regular expressions: in linear time, of bounded size.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use regex::{Regex, RegexBuilder};

use super::Row;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::value::{Text, Value};

pub const ROWS: &[Row] = &[
    Row("matches(string, string): bool", Cost::Matches, matches),
    Row("string::matches(string): bool", Cost::Matches, matches),
    Row("string::find(string): string", Cost::Find, find),
    Row("string::findAll(string): list<string>", Cost::Find, find_all),
    Row("string::findAll(string, int): list<string>", Cost::Find, find_all),
];

const MAX_COMPILED_BYTES: usize = 1 << 20;
const MAX_NESTING: u32 = 100;
/// Compiled patterns that are kept; when they are so many, all are let go.
const MAX_KEPT: usize = 256;

/// Compiles a pattern, or finds it among those compiled before.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    static KEPT: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(regex) = kept.get(pattern) {
        return Ok(regex.clone());
    }
    let regex = RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .nest_limit(MAX_NESTING)
        .build()
        .map_err(|error| {
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("error parsing regexp: {why}: `{pattern}`")
        })?;
    if kept.len() >= MAX_KEPT {
        kept.clear();
    }
    kept.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

fn parts<'t, 'a>(args: &'t [Value<'a>], prefix: &str) -> Result<(&'t str, Regex), Fault> {
    let [Value::String(text), Value::String(pattern), ..] = args else { return Err(Fault::no_overload()) };
    let regex = compile(pattern).map_err(|why| Fault::failed(format!("{prefix}{why}")))?;
    Ok((text, regex))
}

fn matches<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, regex) = parts(args, "")?;
    Ok(Value::Bool(regex.is_match(text)))
}

fn find<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, regex) = parts(args, "Illegal regex: ")?;
    Ok(Value::text(regex.find(text).map_or("", |found| found.as_str())))
}

fn find_all<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, regex) = parts(args, "Illegal regex: ")?;
    let count = match args.get(2) {
        Some(Value::Int(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    meter.text(text.len())?;
    let mut out = Vec::new();
    for found in regex.find_iter(text).take(count) {
        meter.work(1)?;
        out.push(Value::String(Text::from(found.as_str().to_owned())));
    }
    Ok(Value::list(out))
}
