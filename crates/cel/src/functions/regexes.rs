//! Regular expressions: RE2's, in time that the meter knows of before it is spent.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use regex::{Regex, RegexBuilder};

use super::Row;
use super::patterns::translate;
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

const MAX_PATTERN_BYTES: usize = 16 << 10;
const MAX_NESTING: u32 = 100;
/// Compiled patterns that are kept; when they are so many, all are let go.
const MAX_KEPT: usize = 256;
/// What a pattern takes to compile, in steps of work.
const COMPILE_STEPS: usize = 100_000;
/// How large a pattern may be when compiled, in bytes, and the steps that each byte of a text then takes.
const SIZES: [(usize, usize); 3] = [(16 << 10, 4), (64 << 10, 32), (256 << 10, 250)];

/// A compiled pattern.
#[derive(Debug)]
pub struct Pattern {
    regex: Regex,
    steps_per_byte: usize,
}

impl Pattern {
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

type Kept = Mutex<HashMap<String, Arc<Pattern>>>;
static KEPT: LazyLock<Kept> = LazyLock::new(Mutex::default);

fn kept() -> std::sync::MutexGuard<'static, HashMap<String, Arc<Pattern>>> {
    KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Compiles a pattern, or finds it among those compiled before.
pub fn compile(pattern: &str) -> Result<Arc<Pattern>, String> {
    if let Some(found) = kept().get(pattern) {
        return Ok(Arc::clone(found));
    }
    let compiled = Arc::new(build(pattern)?);
    let mut kept = kept();
    if kept.len() >= MAX_KEPT {
        kept.clear();
    }
    kept.insert(pattern.to_owned(), Arc::clone(&compiled));
    Ok(compiled)
}

fn build(pattern: &str) -> Result<Pattern, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err("error parsing regexp: expression too large".to_owned());
    }
    let translated = translate(pattern)?;
    for (size, steps_per_byte) in SIZES {
        let built = RegexBuilder::new(&translated).size_limit(size).nest_limit(MAX_NESTING).build();
        match built {
            Ok(regex) => return Ok(Pattern { regex, steps_per_byte }),
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(error) => {
                let text = error.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                return Err(format!("error parsing regexp: {why}: `{pattern}`"));
            }
        }
    }
    Err("error parsing regexp: expression too large".to_owned())
}

/// The text and the pattern, with the work of both put on the meter.
fn parts<'t, 'a>(
    meter: &mut Meter,
    args: &'t [Value<'a>],
    prefix: &str,
) -> Result<(&'t str, Arc<Pattern>), Fault> {
    let [Value::String(text), Value::String(pattern), ..] = args else { return Err(Fault::no_overload()) };
    if !kept().contains_key(&**pattern) {
        meter.work(COMPILE_STEPS)?;
    }
    let pattern = compile(pattern).map_err(|why| Fault::failed(format!("{prefix}{why}")))?;
    meter.work(text.len().saturating_mul(pattern.steps_per_byte))?;
    Ok((text, pattern))
}

fn matches<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, pattern) = parts(meter, args, "")?;
    Ok(Value::Bool(pattern.is_match(text)))
}

fn find<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, pattern) = parts(meter, args, "Illegal regex: ")?;
    Ok(Value::text(pattern.regex.find(text).map_or("", |found| found.as_str())))
}

fn find_all<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, pattern) = parts(meter, args, "Illegal regex: ")?;
    let count = match args.get(2) {
        Some(Value::Int(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let mut out = Vec::new();
    for found in pattern.regex.find_iter(text).take(count) {
        // Each search may look at all that is left.
        meter.work(1 + (text.len() - found.end()) * pattern.steps_per_byte / 64)?;
        out.push(Value::String(Text::from(found.as_str().to_owned())));
    }
    Ok(Value::list(out))
}
