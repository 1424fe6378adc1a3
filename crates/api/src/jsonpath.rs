//! The part of JSONPath that printer columns and selectable fields use: `.a.b`, `.a\.b`, `['a']`, `[0]`, `[*]` and
//! `[?(@.a=="b")]`.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    Filter { path: Vec<String>, equals: String, negated: bool },
}

#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads a path; braces around it are allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
        let mut steps = Vec::new();
        let mut rest = inner;
        while !rest.is_empty() {
            let (step, after) = match rest.strip_prefix('[') {
                Some(inside) => {
                    bracket(inside).ok_or_else(|| format!("cannot read {rest:?} in JSONPath {text:?}"))?
                }
                None => dotted(rest.strip_prefix('.').unwrap_or(rest)),
            };
            if let Some(step) = step {
                steps.push(step);
            }
            rest = after;
        }
        Ok(Self(steps))
    }

    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut current = vec![value];
        for step in &self.0 {
            current = current.into_iter().flat_map(|value| apply(step, value)).collect();
        }
        current
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
        let (path, equals, negated) = match (body.split_once("=="), body.split_once("!=")) {
            (Some((path, value)), _) => (path, value, false),
            (None, Some((path, value))) => (path, value, true),
            (None, None) => return None,
        };
        let path = path.trim().split('.').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        let equals = equals.trim().trim_matches(|c| c == '"' || c == '\'').to_owned();
        return Some((Some(Step::Filter { path, equals, negated }), after));
    }
    let (body, after) = inside.split_once(']')?;
    let step = match body {
        "*" => Step::All,
        quoted if quoted.starts_with(['\'', '"']) => Step::Field(quoted.trim_matches(['\'', '"']).to_owned()),
        index => Step::Index(index.parse().ok()?),
    };
    Some((Some(step), after))
}

fn apply<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
        (Step::Index(index), Value::Array(list)) => list.get(*index).into_iter().collect(),
        (Step::All, Value::Array(list)) => list.iter().collect(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (Step::Filter { path, equals, negated }, Value::Array(list)) => {
            let matches = |item: &&Value| {
                let mut at = *item;
                for part in path {
                    at = at.get(part).unwrap_or(&Value::Null);
                }
                (text(at) == *equals) != *negated
            };
            list.iter().filter(matches).collect()
        }
        _ => Vec::new(),
    }
}

/// A scalar as text, structures as JSON.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
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
            (".metadata.labels['a.b/c']", "d"),
        ] {
            let path = JsonPath::parse(path).expect("a path");
            assert_eq!(path.first(&object).map(text).as_deref(), Some(found), "{path:?}");
        }
        assert!(JsonPath::parse(".a[?(x)]").is_err());
        assert_eq!(JsonPath::parse(".nothing.here").expect("a path").first(&object), None);
    }
}
