//! The part of JSONPath that printer columns and selectable fields use: `.a.b`, `.a\.b`, `['a']`, `[0]`, `[-1:]`, `[*]`, `..a` and
//! `[?(@.a=="b")]`.

use std::cmp::Ordering;

use serde_json::Value;

use crate::schema::numbers::go_float;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Counted from the end if it is negative.
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    /// The value itself and everything in it.
    Within,
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    path: Vec<String>,
    /// What it is compared with, and how; without that it has to be there.
    compared: Option<(Operator, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// The longer ones first: they begin as the others.
const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("<", Operator::Less),
    (">", Operator::More),
];

#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads a path; braces around it are allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
        let mut steps = Vec::new();
        let mut rest = inner;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Within);
                rest = after;
                continue;
            }
            let (step, after) = match rest.strip_prefix('[') {
                Some(inside) => {
                    bracket(inside).ok_or_else(|| format!("cannot read {rest:?} in JSONPath {text:?}"))?
                }
                None => dotted(rest.strip_prefix('.').unwrap_or(rest)),
            };
            steps.extend(step);
            rest = after;
        }
        Ok(Self(steps))
    }

    /// Nothing where a filter compares what cannot be compared.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let step = |current: Vec<&'a Value>, step: &Step| {
            let found: Option<Vec<Vec<&'a Value>>> =
                current.into_iter().map(|value| apply(step, value)).collect();
            found.map(|found| found.into_iter().flatten().collect())
        };
        self.0.iter().try_fold(vec![value], step).unwrap_or_default()
    }

    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next()
    }
}

/// A field's name up to the next dot or bracket; `\.` is a dot of the name.
fn dotted(text: &str) -> (Option<Step>, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (field(name), &text[at..]),
            c => name.push(c),
        }
    }
    (field(name), "")
}

fn field(name: String) -> Option<Step> {
    match name.as_str() {
        "" => None,
        "*" => Some(Step::All),
        _ => Some(Step::Field(name)),
    }
}

fn bracket(inside: &str) -> Option<(Option<Step>, &str)> {
    if let Some(filter) = inside.strip_prefix("?(@") {
        let (body, after) = filter.split_once(")]")?;
        return Some((Some(Step::Filter(filter_of(body)?)), after));
    }
    let (body, after) = inside.split_once(']')?;
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        digits => digits.parse().ok().map(Some),
    };
    let step = match body {
        "*" => Step::All,
        // What is in quotes is read as if it stood behind a dot, in the original as well.
        quoted if quoted.starts_with(['\'', '"']) => {
            let (name, rest) = dotted(unquoted(quoted));
            return rest.is_empty().then_some((name, after));
        }
        slice if slice.contains(':') => {
            let (start, end) = slice.split_once(':')?;
            Step::Slice(number(start)?, number(end)?)
        }
        index => Step::Index(index.trim().parse().ok()?),
    };
    Some((Some(step), after))
}

fn unquoted(text: &str) -> &str {
    text.trim_matches(['\'', '"'])
}

fn filter_of(body: &str) -> Option<Filter> {
    let found = OPERATORS.iter().filter_map(|(text, operator)| Some((body.find(text)?, text, *operator)));
    // Of those at the same place the longer one.
    let found = found.min_by_key(|(at, text, _)| (*at, std::cmp::Reverse(text.len())));
    let path = |text: &str| text.trim().split('.').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    let Some((at, text, operator)) = found else { return Some(Filter { path: path(body), compared: None }) };
    let wanted = body[at + text.len()..].trim();
    let wanted = match wanted.starts_with(['\'', '"']) {
        true => unquoted(wanted).into(),
        false => serde_json::from_str(wanted).ok()?,
    };
    Some(Filter { path: path(&body[..at]), compared: Some((operator, wanted)) })
}

impl Filter {
    /// Nothing where the two cannot be compared.
    fn holds(&self, item: &Value) -> Option<bool> {
        let held = self.path.iter().try_fold(item, |at, part| at.get(part));
        let (Some(held), Some((operator, wanted))) = (held, &self.compared) else {
            return Some(held.is_some() && self.compared.is_none());
        };
        let order = match (held, wanted) {
            (Value::String(held), Value::String(wanted)) => held.cmp(wanted),
            (Value::Bool(held), Value::Bool(wanted)) => held.cmp(wanted),
            (Value::Number(held), Value::Number(wanted)) if held.is_f64() == wanted.is_f64() => {
                held.as_f64()?.partial_cmp(&wanted.as_f64()?)?
            }
            _ => return None,
        };
        Some(match operator {
            Operator::Equal => order == Ordering::Equal,
            Operator::Unequal => order != Ordering::Equal,
            Operator::Less => order == Ordering::Less,
            Operator::AtMost => order != Ordering::Greater,
            Operator::More => order == Ordering::Greater,
            Operator::AtLeast => order != Ordering::Less,
        })
    }
}

fn apply<'a>(step: &Step, value: &'a Value) -> Option<Vec<&'a Value>> {
    Some(match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
        (Step::Index(index), Value::Array(list)) => vec![list.get(place(*index, list.len()))?],
        (Step::Slice(start, end), Value::Array(list)) => {
            let start = start.map_or(0, |start| place(start, list.len()));
            let end = end.map_or(list.len(), |end| place(end, list.len()));
            list.get(start..end)?.iter().collect()
        }
        (Step::All, Value::Array(list)) => list.iter().collect(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (Step::Within, _) => within(value),
        (Step::Filter(filter), Value::Array(list)) => {
            let mut found = Vec::new();
            for item in list {
                if filter.holds(item)? {
                    found.push(item);
                }
            }
            found
        }
        _ => Vec::new(),
    })
}

/// Beyond all of them where it is before the first.
fn place(index: i64, length: usize) -> usize {
    let counted = if index < 0 { index.saturating_add(length as i64) } else { index };
    usize::try_from(counted).unwrap_or(usize::MAX)
}

/// A value and everything in it, each before what it holds.
fn within(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    let mut at = 0;
    while at < found.len() {
        let inner: Vec<&Value> = match found[at] {
            Value::Object(map) => map.values().collect(),
            Value::Array(list) => list.iter().collect(),
            _ => Vec::new(),
        };
        found.splice(at + 1..at + 1, inner);
        at += 1;
    }
    found
}

/// A scalar as text, structures as JSON.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Number(number) if number.is_f64() => go_float(number.as_f64().unwrap_or(0.0)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_what_printer_columns_name() {
        let object = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "F"}],
            "list": [1, 2]}, "metadata": {"labels": {"a.b/c": "d"}}});
        for (path, found) in [
            (".status.conditions[?(@.type==\"Ready\")].status", "True"),
            ("{.status.conditions[?(@.type!='Ready')].status}", "F"),
            (".status.list[1]", "2"),
            (".status.list[*]", "1"),
            (r".metadata.labels.a\.b/c", "d"),
            (r".metadata.labels['a\.b/c']", "d"),
            (".status.list[-1:]", "2"),
            (".status.list[-1]", "2"),
            (".status.list[0:1]", "1"),
            (
                "..status",
                r#"{"conditions":[{"status":"True","type":"Ready"},{"status":"F","type":"X"}],"list":[1,2]}"#,
            ),
            (".status.conditions[?(@.type>='X')].status", "F"),
        ] {
            let path = JsonPath::parse(path).expect("a path");
            assert_eq!(path.first(&object).map(text).as_deref(), Some(found), "{path:?}");
        }
        assert!(JsonPath::parse(".a[?(x)]").is_err());
        assert_eq!(JsonPath::parse(".nothing.here").expect("a path").first(&object), None);
    }
}
