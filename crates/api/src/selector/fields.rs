//! Field selectors: the query-string syntax and matching.

use std::fmt;

use super::SelectorError;

/// A field selector: `metadata.name=x,status.phase!=Running`. Which fields a kind offers is the caller's business.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_unescaped(text).iter().filter(|part| !part.is_empty()) {
            let error = || SelectorError::Field { text: text.to_owned(), part: part.clone() };
            let at = part.find(['=', '!']).ok_or_else(error)?;
            let (field, rest) = part.split_at(at);
            let (equal, value) = match rest.strip_prefix("!=") {
                Some(value) => (false, value),
                None => (true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).ok_or_else(error)?),
            };
            if field.is_empty() && value.is_empty() {
                continue;
            }
            terms.push(FieldTerm { field: field.to_owned(), equal, value: unescape(value)? });
        }
        Ok(Self { terms })
    }

    /// `field` yields a field's value; a field that is not set counts as empty text.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| (field(&term.field).unwrap_or_default() == term.value) == term.equal)
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value a field must have, where the selector demands one.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{}{}{value}", term.field, if term.equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

fn split_unescaped(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    return Err(SelectorError::Escape(
                        other.map_or_else(|| "\\".into(), |c| format!("\\{c}")),
                    ));
                }
            },
            '=' => return Err(SelectorError::Unescaped('=')),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors() {
        let selector = FieldSelector::parse(r"metadata.name=x,status.phase!=Running,a==b\,c").unwrap();
        let fields = |phase: &'static str| {
            move |field: &str| match field {
                "metadata.name" => Some("x"),
                "status.phase" => Some(phase),
                "a" => Some("b,c"),
                _ => None,
            }
        };
        assert!(selector.matches(fields("Pending")));
        assert!(!selector.matches(fields("Running")));
        assert_eq!(selector.required_value("metadata.name"), Some("x"));
        assert_eq!(selector.to_string(), r"metadata.name=x,status.phase!=Running,a=b\,c");
        assert!(FieldSelector::parse("spec.nodeName=").unwrap().matches(|_| None));
        assert!(FieldSelector::parse("").unwrap().is_everything());
        assert!(FieldSelector::parse("a").is_err());
        assert!(FieldSelector::parse("a=b=c").is_err());
    }
}
