//! Request bodies to values: JSON, YAML and protobuf, with every key that was given twice. Of such a key the last
//! one counts, as in the original; whether it is an error, a warning or nothing is the request's `fieldValidation`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::FieldProblem;
use crate::weight::{self, TooHeavy};

#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub value: Value,
    pub duplicates: Vec<FieldProblem>,
}

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(
        "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )]
    UnsupportedMediaType(String),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Yaml(crate::yaml::YamlError),
    #[error("the body is not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    #[error(transparent)]
    Protobuf(crate::proto::ProtoError),
    #[error(transparent)]
    TooHeavy(#[from] TooHeavy),
}

impl From<crate::yaml::YamlError> for DecodeError {
    fn from(error: crate::yaml::YamlError) -> Self {
        if error.message == crate::yaml::TOO_MANY_NODES {
            Self::TooHeavy(TooHeavy)
        } else {
            Self::Yaml(error)
        }
    }
}

impl From<crate::proto::ProtoError> for DecodeError {
    fn from(error: crate::proto::ProtoError) -> Self {
        match error {
            crate::proto::ProtoError::TooHeavy(fault) => Self::TooHeavy(fault),
            other => Self::Protobuf(other),
        }
    }
}

/// Reads a body; the media type's parameters are ignored, an empty one means JSON.
pub fn parse(bytes: &[u8], content_type: &str) -> Result<Decoded, DecodeError> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "" | "*/*" | "application/json" => parse_json(bytes),
        _ if media_type.ends_with("+json") => parse_json(bytes),
        "application/yaml" | "application/apply-patch+yaml" | "application/x-yaml" | "text/yaml" => {
            parse_yaml(bytes)
        }
        "application/vnd.kubernetes.protobuf" => {
            let value = crate::proto::decode_within(bytes, weight::LIMIT_BYTES)?;
            Ok(Decoded { value, duplicates: Vec::new() })
        }
        _ => Err(DecodeError::UnsupportedMediaType(media_type)),
    }
}

/// A fault of JSON in the words of the original's reader.
pub fn json_fault(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.classify() == serde_json::error::Category::Eof || bytes.iter().all(u8::is_ascii_whitespace) {
        return "unexpected end of JSON input".to_owned();
    }
    let line = bytes.split(|b| *b == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let letter = char::from(line.get(error.column().saturating_sub(1)).copied().unwrap_or(b' '));
    let text = error.to_string();
    let place = [
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("expected `:`", "after object key"),
        ("key must be a string", "looking for beginning of object key string"),
        ("trailing characters", "after top-level value"),
    ];
    let place = place.iter().find(|(ours, _)| text.starts_with(ours)).map(|(_, theirs)| *theirs);
    format!("invalid character {letter:?} {}", place.unwrap_or("looking for beginning of value"))
}

pub fn parse_json(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.len() > ALWAYS_LIGHT_BYTES {
        weight::bounded(weight::of_json(bytes))?;
    }
    let state = RefCell::new(State::default());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Seed { state: &state }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Decoded { value, duplicates: state.into_inner().duplicates.faults })
}

/// What is as short as this is never too heavy.
const ALWAYS_LIGHT_BYTES: usize = weight::LIMIT_BYTES / weight::MOST_OF_A_BYTE;
/// What is read of YAML takes more than what comes of it, so there are fewer values than would be allowed by weight.
const YAML_NODES: usize = 300_000;

/// YAML is a superset of JSON, but the JSON reader names paths and is faster.
pub fn parse_yaml(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
        match parse_json(bytes) {
            Err(DecodeError::Json(_)) => {}
            read => return read,
        }
    }
    let (value, twice) = crate::yaml::parse_body(std::str::from_utf8(bytes)?, YAML_NODES)?;
    weight::bounded(weight::of_value(&value))?;
    // One fault, however many there are.
    let lines = twice.iter().map(|twice| format!("\n  {twice}")).collect::<String>();
    let fault = (!twice.is_empty()).then(|| FieldProblem::Type { message: format!("{OF_YAML}{lines}") });
    Ok(Decoded { value, duplicates: fault.into_iter().collect() })
}

const OF_YAML: &str = "yaml: unmarshal errors:";

/// What a client is warned of by a fault: each key that YAML names twice on its own.
pub fn as_warnings(fault: String) -> Vec<String> {
    match fault.strip_prefix(OF_YAML) {
        Some(lines) => {
            lines.lines().map(str::trim_start).filter(|l| !l.is_empty()).map(str::to_owned).collect()
        }
        None => vec![fault],
    }
}

#[derive(Default)]
struct State {
    path: super::check::Path,
    duplicates: super::check::Told,
    /// Those that are told of already: a field may come a hundred times.
    told: HashSet<String>,
    /// Where each of the fields that are asked for was last seen.
    places: Option<HashMap<String, usize>>,
    /// How many fields there were so far.
    fields: usize,
}

/// Puts fields of a JSON document into the order in which it names them, a field that comes twice where it comes again;
/// `path` reads the field out of an item.
pub fn in_order<T>(bytes: &[u8], items: &mut [T], path: impl Fn(&T) -> &str) {
    let places = items.iter().map(|item| (path(item).to_owned(), usize::MAX)).collect();
    let state = RefCell::new(State { places: Some(places), ..State::default() });
    let read = Seed { state: &state }.deserialize(&mut serde_json::Deserializer::from_slice(bytes));
    let places = state.into_inner().places.filter(|_| read.is_ok()).unwrap_or_default();
    items.sort_by_key(|item| places.get(path(item)).copied().unwrap_or(usize::MAX));
}

#[derive(Clone, Copy)]
struct Seed<'s> {
    state: &'s RefCell<State>,
}

impl Seed<'_> {
    fn note_place(&self) {
        let State { path, places, fields, .. } = &mut *self.state.borrow_mut();
        if let Some(places) = places {
            *fields += 1;
            if let Some(place) = places.get_mut(path.text()) {
                *place = *fields;
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let before = self.state.borrow_mut().path.index(items.len());
            let item = access.next_element_seed(self);
            self.state.borrow_mut().path.cut(before);
            match item? {
                Some(item) => items.push(item),
                None => {
                    // Most lists are short, and there may be many: room for what does not come is dear.
                    items.shrink_to_fit();
                    return Ok(Value::Array(items));
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let before = self.state.borrow_mut().path.field(&key);
            self.note_place();
            if map.contains_key(&key) {
                let mut state = self.state.borrow_mut();
                let path = state.path.text().to_owned();
                if !state.told.contains(&path)
                    && state.duplicates.push(FieldProblem::Duplicate { path: path.clone() })
                {
                    state.told.insert(path);
                }
            }
            let value = access.next_value_seed(self);
            self.state.borrow_mut().path.cut(before);
            map.insert(key, value?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_named() {
        let decoded =
            parse(br#"{"a":{"b":[{"c":1,"c":2,"c":2}]},"d":1,"d":null}"#, "application/json; charset=utf-8")
                .unwrap();
        assert_eq!(decoded.value, json!({"a": {"b": [{"c": 2}]}, "d": null}));
        let texts: Vec<_> = decoded.duplicates.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["duplicate field \"a.b[0].c\"", "duplicate field \"d\""]);
    }

    #[test]
    fn fields_are_told_in_the_order_of_the_document() {
        let text = br#"{"a":1,"b":{"d":1,"c":2},"a":2}"#;
        let mut paths = ["a", "b.c", "b.d", "elsewhere"];
        in_order(text, &mut paths, |path| path);
        assert_eq!(paths, ["b.d", "b.c", "a", "elsewhere"]);
    }

    #[test]
    fn faults_of_json_in_known_words() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            ("xx", "invalid character 'x' looking for beginning of value"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
        ] {
            let Err(DecodeError::Json(error)) = parse_json(text.as_bytes()) else { panic!("{text} is JSON") };
            assert_eq!(json_fault(text.as_bytes(), &error), expected, "{text}");
        }
    }

    #[test]
    fn media_types() {
        assert_eq!(parse(b"a: 1\n", "application/yaml").unwrap().value, json!({"a": 1}));
        assert_eq!(parse(b"[1]", "application/json-patch+json").unwrap().value, json!([1]));
        assert!(matches!(parse(b"", "text/html"), Err(DecodeError::UnsupportedMediaType(_))));
        assert!(parse(b"{} x", "application/json").is_err());
        assert!(parse("[".repeat(200).as_bytes(), "application/json").is_err());
        let decoded = parse(b"a: 1\na: 2\n", "application/yaml").unwrap();
        assert_eq!(decoded.value, json!({"a": 2}));
        assert_eq!(
            decoded.duplicates[0].to_string(),
            "yaml: unmarshal errors:\n  line 2: key \"a\" already set in map"
        );
    }
}
