//! What names, labels and annotations may look like (RFC 1123 and RFC 1035 as the API words them).

use super::Errors;
use crate::status::FieldError;

/// Which form a kind's names have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// RFC 1123 subdomain: most kinds.
    Subdomain,
    /// RFC 1123 label: namespaces.
    Label,
    /// RFC 1035 label: services.
    Label1035,
    /// Anything that fits in a path: RBAC kinds.
    PathSegment,
    /// An IP address in its canonical form.
    Address,
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
     alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
     with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and \
     end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
     character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
     with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

pub fn is_label(text: &str) -> bool {
    let b = text.as_bytes();
    (1..=63).contains(&b.len())
        && b.iter().all(|b| lower_or_digit(*b) || *b == b'-')
        && lower_or_digit(b[0])
        && lower_or_digit(b[b.len() - 1])
}

pub fn is_subdomain(text: &str) -> bool {
    // The parts have no length limit of their own, unlike a label.
    let is_part = |part: &str| {
        let b = part.as_bytes();
        !b.is_empty()
            && b.iter().all(|b| lower_or_digit(*b) || *b == b'-')
            && lower_or_digit(b[0])
            && lower_or_digit(b[b.len() - 1])
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// What is wrong with a name under a rule, if anything.
pub fn fault(rule: Rule, name: &str) -> Option<String> {
    let too_long =
        |limit: usize| (name.len() > limit).then(|| format!("must be no more than {limit} characters"));
    match rule {
        Rule::Subdomain => too_long(253).or_else(|| (!is_subdomain(name)).then(|| SUBDOMAIN.into())),
        Rule::Label => too_long(63).or_else(|| match (is_label(name), name.contains('.')) {
            (true, _) => None,
            (false, true) => Some("must not contain dots".into()),
            (false, false) => Some(LABEL.into()),
        }),
        Rule::Label1035 => too_long(63).or_else(|| {
            let letter_first = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
            (!(is_label(name) && letter_first)).then(|| LABEL_1035.into())
        }),
        Rule::Address => {
            let canonical = name.parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string());
            let plain = super::network::address_fault(name).map(str::to_owned);
            plain.or_else(|| {
                canonical
                    .filter(|form| form != name)
                    .map(|form| format!("must be in canonical form ({form:?})"))
            })
        }
        Rule::PathSegment => match name {
            "." | ".." => Some(format!("may not be '{name}'")),
            _ => ['/', '%'].into_iter().find(|c| name.contains(*c)).map(|c| format!("may not contain '{c}'")),
        },
    }
}

fn is_qualified_part(text: &str) -> bool {
    let b = text.as_bytes();
    (1..=63).contains(&b.len())
        && b.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && b[0].is_ascii_alphanumeric()
        && b[b.len() - 1].is_ascii_alphanumeric()
}

/// What is wrong with a label's (or annotation's) key.
pub fn key_fault(key: &str) -> Option<String> {
    if key.matches('/').count() > 1 {
        let form = QUALIFIED.trim_start_matches("name part");
        return Some(format!(
            "a valid label key{form} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ));
    }
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    if let Some(prefix) = prefix
        && !is_subdomain(prefix)
    {
        return Some(format!("prefix part {SUBDOMAIN}"));
    }
    match name {
        "" => Some("name part must be non-empty".into()),
        name if name.len() > 63 => Some("name part must be no more than 63 bytes".into()),
        name => (!is_qualified_part(name)).then(|| QUALIFIED.into()),
    }
}

/// All that is wrong with such a key.
pub fn key_faults(key: &str) -> Vec<String> {
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    let mut faults: Vec<String> = key_fault(key).into_iter().collect();
    // What is too short or too long has not the form either.
    if name.is_empty() || (name.len() > 63 && !is_qualified_bytes(name)) {
        faults.push(QUALIFIED.into());
    }
    faults
}

fn is_qualified_bytes(text: &str) -> bool {
    let b = text.as_bytes();
    b.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && b.first().is_some_and(u8::is_ascii_alphanumeric)
        && b.last().is_some_and(u8::is_ascii_alphanumeric)
}

pub fn label_value_fault(value: &str) -> Option<String> {
    match value {
        "" => None,
        value if value.len() > 63 => Some("must be no more than 63 bytes".into()),
        value => (!is_qualified_part(value)).then(|| LABEL_VALUE.into()),
    }
}

/// Checks labels given as pairs at `field`.
pub fn check_labels<'a>(field: &str, labels: impl Iterator<Item = (&'a str, &'a str)>, errors: &mut Errors) {
    for (key, value) in labels {
        for fault in key_faults(key) {
            errors.push(FieldError::invalid(field, key, fault));
        }
        if let Some(fault) = label_value_fault(value) {
            errors.push(FieldError::invalid(field, value, fault));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rule() {
        for good in ["a", "a-b", "a.b.c", "0a", &"x".repeat(253)] {
            assert_eq!(fault(Rule::Subdomain, good), None, "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", "a_b", &"x".repeat(254)] {
            assert!(fault(Rule::Subdomain, bad).is_some(), "{bad}");
        }
        assert!(fault(Rule::Label, "a.b").is_some());
        assert!(fault(Rule::Label1035, "0a").is_some());
        assert_eq!(fault(Rule::PathSegment, "system:node"), None);
        assert!(fault(Rule::PathSegment, "a/b").is_some());
        assert_eq!(key_fault("app.kubernetes.io/name"), None);
        assert!(key_fault("a/b/c").is_some());
        assert!(label_value_fault("-x").is_some());
    }
}
