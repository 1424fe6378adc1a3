//! Label selectors: the query-string syntax, `LabelSelector` objects, and matching; and beside them field selectors
//! (`fields.rs`). A parsed selector is kept by watches and caches, so that a label set is matched without reading text again.

mod fields;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub use fields::{FieldSelector, FieldTerm};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition; all of a selector must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

/// A label selector. Without conditions it matches everything; [`Selector::nothing`] matches nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    #[error("found '{found}'{comma} expected: {expected}", comma = if *expected == OPENING { "" } else { "," })]
    Unexpected { found: String, expected: &'static str },
    #[error("\"{0}\" is not a valid label selector operator")]
    Operator(String),
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    #[error("invalid field selector: unescaped character in value: {0}")]
    Unescaped(char),
    #[error("invalid selector: '{text}'; can't understand '{part}'")]
    Field { text: String, part: String },
}

impl Selector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// Equality with every given label, as in a Service's selector.
    pub fn from_labels<K: Into<String>, V: Into<String>>(labels: impl IntoIterator<Item = (K, V)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(key, value)| Requirement {
                key: key.into(),
                operator: Operator::In,
                values: vec![value.into()],
            })
            .collect();
        Self { requirements, nothing: false }
    }

    /// Reads `a=b,c!=d,e in (f,g),h,!i,j>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { rest: text.trim_start() };
        let mut requirements = Vec::new();
        if parser.rest.is_empty() {
            return Ok(Self::default());
        }
        if !parser.at_requirement() {
            return parser.unexpected("!, identifier, or 'end of string'");
        }
        loop {
            let requirement = parser.requirement().and_then(|found| check(&found).map(|()| found));
            requirements.push(requirement.map_err(|error| match error {
                SelectorError::Unexpected { .. } => SelectorError::Requirement(error.to_string()),
                // Of a key within text there is no field to name.
                SelectorError::Requirement(text) => {
                    SelectorError::Requirement(match text.strip_prefix("key: ") {
                        Some(rest) => format!("<nil>: {rest}"),
                        None => text,
                    })
                }
                other => other,
            })?);
            if parser.rest.is_empty() {
                break;
            }
            parser.expect(",", "',' or 'end of string'")?;
            if !parser.at_requirement() {
                return parser.unexpected("identifier after ','");
            }
        }
        Ok(Self { requirements, nothing: false })
    }

    /// The selector of a `LabelSelector` object; an empty object matches everything.
    pub fn from_object(object: &LabelSelector) -> Result<Self, SelectorError> {
        let mut selector = Self::from_labels(object.match_labels.iter().flatten());
        for expression in object.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            let values = expression.values.clone().unwrap_or_default();
            let requirement = Requirement { key: expression.key.clone(), operator, values };
            check(&requirement)?;
            selector.requirements.push(requirement);
        }
        Ok(selector)
    }

    /// As [`Selector::from_object`]; an absent object matches nothing, as the API documents for most fields.
    pub fn from_optional(object: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        object.map_or_else(|| Ok(Self::nothing()), Self::from_object)
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_by(|key| labels.get(key).map(String::as_str))
    }

    /// Matches labels held in any form.
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The labels that whatever matches has.
    pub fn equalities(&self) -> impl Iterator<Item = (&str, &str)> {
        self.requirements.iter().filter_map(|requirement| {
            match (&requirement.operator, &*requirement.values) {
                (Operator::In, [value]) => Some((requirement.key.as_str(), value.as_str())),
                _ => None,
            }
        })
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl Requirement {
    fn matches(&self, label: Option<&str>) -> bool {
        let number = || self.values.first()?.parse::<i64>().ok();
        let own = || label?.parse::<i64>().ok();
        match self.operator {
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::In => label.is_some_and(|label| self.values.iter().any(|value| value == label)),
            Operator::NotIn => label.is_none_or(|label| self.values.iter().all(|value| value != label)),
            Operator::GreaterThan => matches!((own(), number()), (Some(a), Some(b)) if a > b),
            Operator::LessThan => matches!((own(), number()), (Some(a), Some(b)) if a < b),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Requirement { key, operator, values }) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match (operator, values.as_slice()) {
                (Operator::Exists, _) => write!(f, "{key}")?,
                (Operator::DoesNotExist, _) => write!(f, "!{key}")?,
                (Operator::In, [value]) => write!(f, "{key}={value}")?,
                (Operator::NotIn, [value]) => write!(f, "{key}!={value}")?,
                (Operator::In, values) => write!(f, "{key} in ({})", values.join(","))?,
                (Operator::NotIn, values) => write!(f, "{key} notin ({})", values.join(","))?,
                (Operator::GreaterThan, values) => write!(f, "{key}>{}", values.join(","))?,
                (Operator::LessThan, values) => write!(f, "{key}<{}", values.join(","))?,
            }
        }
        Ok(())
    }
}

fn check(requirement: &Requirement) -> Result<(), SelectorError> {
    let fail = |text: String| Err(SelectorError::Requirement(text));
    let Requirement { key, operator, values } = requirement;
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
    if !is_label_value(name)
        || name.is_empty()
        || prefix.contains('/')
        || (key.contains('/') && prefix.is_empty())
    {
        return fail(format!(
            "key: Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', '_' or '.', and must start \
             and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation \
             is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        ));
    }
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            return fail(
                "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into(),
            );
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            return fail(
                "values: Invalid value: values set must be empty for exists and does not exist".into(),
            );
        }
        Operator::GreaterThan | Operator::LessThan => {
            if let Some((i, value)) = values.iter().enumerate().find(|(_, v)| v.parse::<i64>().is_err()) {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                return fail(format!("values[{i}]: Invalid value: {value:?}: {why}"));
            }
        }
        _ => {}
    }
    match values.iter().enumerate().find(|(_, value)| !is_label_value(value)) {
        Some((_, value)) if value.len() > 63 => {
            fail(format!("values[0][{key}]: Invalid value: {value:?}: must be no more than 63 bytes"))
        }
        Some((at, value)) => fail(format!(
            "values[{at}][{key}]: Invalid value: {value:?}: a valid label must be an empty string or consist of alphanumeric \
             characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
             'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )),
        None => Ok(()),
    }
}

fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && edge(text.chars().next())
        && edge(text.chars().next_back())
}

/// The one expectation that is told without a comma.
const OPENING: &str = "'('";
/// So much of a faulty text is repeated.
const FOUND_MAX: usize = 256;

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), SelectorError> {
        if self.take(token) {
            return Ok(());
        }
        self.unexpected(expected)
    }

    /// Whether a requirement can begin here.
    fn at_requirement(&self) -> bool {
        self.rest.chars().next().is_some_and(|c| !matches!(c, '=' | '(' | ')' | ',' | '<' | '>'))
            && !self.rest.starts_with("!=")
    }

    /// What stands here is not what was expected: a word, an operator, or the end.
    fn unexpected<T>(&self, expected: &'static str) -> Result<T, SelectorError> {
        let operator = |c: char| matches!(c, '=' | '!' | '<' | '>');
        let word = |c: char| !c.is_whitespace() && !operator(c) && !matches!(c, '(' | ')' | ',');
        let end = match self.rest.chars().next() {
            Some(first) if word(first) => self.rest.find(|c| !word(c)).unwrap_or(self.rest.len()),
            Some(first) if operator(first) => self.rest.find(|c| !operator(c)).unwrap_or(self.rest.len()),
            Some(first) => first.len_utf8(),
            None => 0,
        };
        let found = self.rest[..end].chars().take(FOUND_MAX).collect();
        Err(SelectorError::Unexpected { found, expected })
    }

    fn word(&mut self) -> &'a str {
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || matches!(c, '=' | '!' | '(' | ')' | ',' | '<' | '>'))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = self.take("!");
        let key = self.word().to_owned();
        if key.is_empty() {
            return self.unexpected("identifier");
        }
        if absent {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() });
        }
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Requirement { key, operator: Operator::Exists, values: Vec::new() });
        }
        for (token, operator) in [
            ("==", Operator::In),
            ("=", Operator::In),
            ("!=", Operator::NotIn),
            (">", Operator::GreaterThan),
            ("<", Operator::LessThan),
        ] {
            if self.take(token) {
                return Ok(Requirement { key, operator, values: vec![self.word().to_owned()] });
            }
        }
        let operator = match self.word() {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            other => {
                let expected = "in, notin, =, ==, !=, gt, lt";
                return Err(SelectorError::Unexpected { found: other.to_owned(), expected });
            }
        };
        self.expect("(", OPENING)?;
        let mut values = Vec::new();
        loop {
            values.push(self.word().to_owned());
            if self.take(")") {
                break;
            }
            self.expect(",", "',' or ')'")?;
        }
        values.sort();
        values.dedup();
        Ok(Requirement { key, operator, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn label_selectors() {
        for (selector, set, expected) in [
            ("", "a=b", true),
            ("a=b", "a=b", true),
            ("a==b", "a=b", true),
            ("a = b , c != d", "a=b", true),
            ("a=b,c!=d", "a=b,c=d", false),
            ("e in (f,g)", "e=g", true),
            ("e in (f, g)", "e=h", false),
            ("e notin (f,g)", "x=1", true),
            ("e notin (f,g)", "e=f", false),
            ("h", "h=", true),
            ("h", "x=", false),
            ("!i", "h=", true),
            ("!i", "i=1", false),
            ("n>5", "n=6", true),
            ("n>5", "n=5", false),
            ("n<5", "n=x", false),
            ("a=", "a=", true),
            ("a in ()", "a=", true),
            ("app.kubernetes.io/name=x,env in (a),!z", "app.kubernetes.io/name=x,env=a", true),
        ] {
            assert_eq!(
                Selector::parse(selector).unwrap().matches(&labels(set)),
                expected,
                "{selector} on {set}"
            );
        }
        assert!(!Selector::nothing().matches(&BTreeMap::new()));
    }

    #[test]
    fn label_selectors_refused() {
        for text in
            ["=a", "a,,b", "a in b", "a in (b", "a=b c", "!", "a b", "a=-", "/a=b", "a/b/c=d", "n>x", "a=b,"]
        {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn label_selectors_print_as_written() {
        let text = "a=b,c!=d,e in (f,g),h,!i,j>1,k notin (l,m)";
        assert_eq!(Selector::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn label_selector_objects() {
        let object: LabelSelector = serde_json::from_str(
            r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"NotIn","values":["d"]}]}"#,
        )
        .unwrap();
        let selector = Selector::from_object(&object).unwrap();
        assert!(selector.matches(&labels("a=b,c=e")));
        assert!(!selector.matches(&labels("a=b,c=d")));
        assert!(Selector::from_object(&LabelSelector::default()).unwrap().is_everything());
        assert_eq!(Selector::from_optional(None).unwrap(), Selector::nothing());
    }
}
