//! YAML in and out, as kubectl and `sigs.k8s.io/yaml` read and write it. The only place that touches
//! the YAML crate, so that it can be replaced and so that every reader of manifests agrees: one set of
//! limits (alias bombs, depth, documents), octal modes such as `0644`, and only `true`/`false` as booleans.

mod emit;
mod twice;

use serde_json::{Map, Number, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Options, Spanned};

pub use emit::to_string;
pub use twice::Twice;

/// One document of a stream and the line (from 1) its content starts at.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub value: Value,
    pub line: usize,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("yaml: line {line}: {message}")]
pub struct YamlError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// What a text may say, apart from what its length allows it.
#[derive(Clone, Copy)]
struct Limits {
    duplicate_keys: DuplicateKeyPolicy,
    nodes: usize,
}

/// Manifests may be large; they are read by those who have them.
const NODES: usize = 4_000_000;

/// Reads every non-empty document. Of a key given twice the last one counts, as in `kubectl`.
pub fn parse_documents(text: &str) -> Result<Vec<Document>, YamlError> {
    parse(text, Limits { duplicate_keys: DuplicateKeyPolicy::LastWins, nodes: NODES })
}

/// As [`parse_documents`], but a key given twice is an error that names its line.
pub fn parse_documents_strict(text: &str) -> Result<Vec<Document>, YamlError> {
    parse(text, Limits { duplicate_keys: DuplicateKeyPolicy::Error, nodes: NODES })
}

/// Reads exactly one document; `null` where there is none.
pub fn parse_one(text: &str) -> Result<Value, YamlError> {
    only(parse_documents(text)?)
}

/// What a body says, and the keys that it names twice. It has no more than so many nodes.
pub fn parse_body(text: &str, nodes: usize) -> Result<(Value, Vec<Twice>), YamlError> {
    let read = |duplicate_keys| parse(text, Limits { duplicate_keys, nodes });
    match read(DuplicateKeyPolicy::Error) {
        Ok(documents) => Ok((only(documents)?, Vec::new())),
        Err(strict) if strict.message == TOO_MANY_NODES => Err(strict),
        // Not both at once: either may be large.
        Err(strict) => {
            let value = only(read(DuplicateKeyPolicy::LastWins)?)?;
            let limits = Limits { duplicate_keys: DuplicateKeyPolicy::LastWins, nodes };
            let twice =
                on_own_stack(|| Ok(twice::of(without_mark(text), options(text.len(), limits), strict)))?;
            Ok((value, twice))
        }
    }
}

fn only(mut documents: Vec<Document>) -> Result<Value, YamlError> {
    match documents.len() {
        0 => Ok(Value::Null),
        1 => Ok(documents.remove(0).value),
        _ => Err(YamlError {
            line: documents[1].line,
            column: 1,
            message: "expected a single document".into(),
        }),
    }
}

/// The reader calls itself for each level, and a level may take tens of kilobytes: as many as are allowed must fit,
/// whatever thread asks.
const STACK_BYTES: usize = 32 << 20;

fn parse(text: &str, limits: Limits) -> Result<Vec<Document>, YamlError> {
    on_own_stack(|| read(text, limits))
}

fn on_own_stack<T: Send>(read: impl FnOnce() -> Result<T, YamlError> + Send) -> Result<T, YamlError> {
    let failed = |message: &str| YamlError { line: 0, column: 0, message: message.into() };
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK_BYTES);
        let reader = reader.spawn_scoped(scope, read);
        let reader = reader.map_err(|error| failed(&format!("cannot be read now: {error}")))?;
        reader.join().unwrap_or_else(|_| Err(failed("cannot be read")))
    })
}

fn read(text: &str, limits: Limits) -> Result<Vec<Document>, YamlError> {
    let text = without_mark(text);
    let options = options(text.len(), limits);
    let parsed: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let location = error.location();
            let line = location.map_or(0, |l| l.line()) as usize;
            let column = location.map_or(0, |l| l.column()) as usize;
            YamlError { line, column, message: message_of(&error) }
        })?;
    Ok(parsed
        .into_iter()
        .map(|document| Document {
            line: document.referenced.line() as usize,
            value: whole_numbers(document.value),
        })
        .filter(|document| !document.value.is_null())
        .collect())
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn message_of(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("key \"{key}\" already set in map")
        }
        serde_saphyr::Error::Budget { breach: BudgetBreach::Nodes { .. }, .. } => TOO_MANY_NODES.to_owned(),
        other => other.to_string(),
    }
}

/// What is said of a text of more values than may be.
pub(crate) const TOO_MANY_NODES: &str = "too many elements";

/// What a text of no length may come to. Aliases stand for what they do not hold, in manifests that people write.
const FREE_EVENTS: usize = 10_000;
const FREE_BYTES: usize = 4 << 20;
/// What each byte may come to.
const EVENTS_PER_BYTE: usize = 3;

/// The limits follow from the text's length: nobody makes much of little.
fn options(bytes: usize, limits: Limits) -> Options {
    let events = bytes.saturating_mul(EVENTS_PER_BYTE).saturating_add(FREE_EVENTS);
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 128,
            max_documents: 50_000,
            max_events: events.min(8_000_000),
            max_nodes: events.min(limits.nodes),
            max_total_scalar_bytes: bytes.saturating_mul(2).saturating_add(FREE_BYTES),
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: events.min(1_000_000),
        },
        duplicate_keys: limits.duplicate_keys,
        legacy_octal_numbers: true,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
        emit_comments: false,
    }
}

/// JSON made from YAML by the original has no `3.0`: a whole float is written as an integer.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole_number(number)),
        Value::Array(items) => Value::Array(items.into_iter().map(whole_numbers).collect()),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(k, v)| (k, whole_numbers(v))).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn whole_number(number: Number) -> Number {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
            (float as i64).into()
        }
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Value {
        parse_one(text).unwrap()
    }

    #[test]
    fn documents_and_lines() {
        let documents =
            parse_documents("# head\n---\na: 1\n---\n# nothing\n---\n\nb: x\n...\n---\n").unwrap();
        assert_eq!(
            documents,
            vec![
                Document { value: json!({"a": 1}), line: 3 },
                Document { value: json!({"b": "x"}), line: 8 }
            ]
        );
    }

    #[test]
    fn scalars_as_kubectl_reads_them() {
        assert_eq!(
            one("a: 0644\nb: yes\nc: True\nd: 1.0\ne: 1.5\nf: ~\ng: '1'\nh: 2001-01-01\ni: 1:30\nj: 12e3\n"),
            json!({"a": 420, "b": "yes", "c": true, "d": 1, "e": 1.5, "f": null, "g": "1",
                   "h": "2001-01-01", "i": "1:30", "j": 12000})
        );
        assert_eq!(one("1: a\ntrue: b\n"), json!({"1": "a", "true": "b"}));
        assert_eq!(one("{\"a\": [1, \"x\"]}"), json!({"a": [1, "x"]}));
        assert_eq!(one("big: 18446744073709551615\n"), json!({"big": 18446744073709551615u64}));
    }

    #[test]
    fn anchors_and_merge_keys() {
        assert_eq!(
            one("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\nsame: *b\n"),
            json!({"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}, "same": {"x": 1, "y": 2}})
        );
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..10 {
            let before = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(","));
        }
        assert!(parse_documents(&text).is_err());
    }

    #[test]
    fn duplicates() {
        assert_eq!(one("a: 1\nb: 2\na: 3\n"), json!({"a": 3, "b": 2}));
        let error = parse_documents_strict("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!((error.line, error.message.as_str()), (3, "key \"a\" already set in map"));
    }

    #[test]
    fn errors_carry_a_line() {
        assert!(parse_documents("a: 1\nb: [1\nc: d\n").unwrap_err().line >= 2);
    }
}
