//! Block-style YAML as `kubectl -o yaml` prints it: list dashes at the indentation of their key, literal
//! blocks for text of several lines, and quotes exactly where a plain scalar would be read as something else.

use std::fmt::Write;

use serde_json::Value;

/// The value as one YAML document, ending in a line break.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        scalar => {
            // A block of several lines is indented also where nothing is around it.
            inline(&mut out, scalar, 2);
            out.push('\n');
        }
    }
    out
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn mapping(out: &mut String, map: &serde_json::Map<String, Value>, indent: usize) {
    for (position, (key, value)) in map.iter().enumerate() {
        // The first key of a list's element stands behind the dash.
        if position > 0 || out.is_empty() || out.ends_with('\n') {
            pad(out, indent);
        }
        scalar_string(out, key, None);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(out, inner, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                sequence(out, items, indent);
            }
            scalar => {
                out.push(' ');
                inline(out, scalar, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for (position, item) in items.iter().enumerate() {
        if position > 0 || out.is_empty() || out.ends_with('\n') {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => mapping(out, inner, indent + 2),
            Value::Array(inner) if !inner.is_empty() => sequence(out, inner, indent + 2),
            scalar => {
                inline(out, scalar, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn inline(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => scalar_string(out, text, Some(indent)),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// `block` is the indentation of a literal block, `None` where a block cannot stand (a key).
fn scalar_string(out: &mut String, text: &str, block: Option<usize>) {
    if let (Some(indent), true) = (block, can_be_literal(text)) {
        literal(out, text, indent);
    } else if reads_as_other_type(text) {
        double_quoted(out, text);
    } else if can_be_plain(text) {
        out.push_str(text);
    } else if text.chars().all(printable) && !text.contains('\n') {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    } else {
        double_quoted(out, text);
    }
}

fn printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..)
        && !matches!(c, '\u{2028}' | '\u{2029}')
}

fn can_be_literal(text: &str) -> bool {
    text.contains('\n')
        && text.chars().all(|c| printable(c) || c == '\n' || c == '\t')
        && text.chars().any(|c| !c.is_whitespace())
        && !text.ends_with(' ')
        && !text.ends_with('\t')
}

fn literal(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    if text.starts_with([' ', '\n', '\t']) {
        out.push('2');
    }
    let body = text.trim_end_matches('\n');
    let breaks = text.len() - body.len();
    match breaks {
        0 => out.push('-'),
        1 => {}
        _ => out.push('+'),
    }
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
    }
    out.extend(std::iter::repeat_n('\n', breaks.saturating_sub(1)));
}

fn can_be_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let mut rest = text.chars().skip(1);
    let indicator = match first {
        '-' | '?' | ':' => rest.next().is_none_or(|c| c == ' '),
        ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`'
        | ' ' => true,
        _ => false,
    };
    !indicator
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("---")
        && !text.starts_with("...")
        && text.chars().all(printable)
}

/// Whether some YAML 1.1 or 1.2 reader takes the plain text for a boolean, null, number or time.
fn reads_as_other_type(text: &str) -> bool {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "<<", "="];
    if text.is_empty() || WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return true;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    if lower == ".inf" || lower == ".nan" {
        return true;
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let digits = lower.replace('_', "");
    let based = [("0x", 16), ("0o", 8), ("0b", 2)].iter().any(|(prefix, radix)| {
        digits.strip_prefix(prefix).is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_digit(*radix)))
    });
    let decimal = digits.chars().any(|c| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | '+' | '-'))
        && digits.parse::<f64>().is_ok();
    based || decimal || reads_as_sexagesimal(&digits) || reads_as_date(&digits)
}

fn reads_as_sexagesimal(text: &str) -> bool {
    text.contains(':') && text.chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '.'))
}

/// `2001-01-01`, with or without a time behind it.
fn reads_as_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let day: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let after = rest[day.len()..].chars().next();
    year.len() == 4
        && year.chars().all(|c| c.is_ascii_digit())
        && (1..=2).contains(&month.len())
        && month.chars().all(|c| c.is_ascii_digit())
        && (1..=2).contains(&day.len())
        && after.is_none_or(|c| matches!(c, 't' | ' '))
}

fn double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0' => out.push_str("\\0"),
            c if printable(c) => out.push(c),
            // Writing to a String cannot fail.
            c if (c as u32) <= 0xff => write!(out, "\\x{:02X}", c as u32).unwrap_or_default(),
            c => write!(out, "\\u{:04X}", c as u32).unwrap_or_default(),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::yaml::parse_one;

    #[test]
    fn prints_like_kubectl() {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"annotations": {"a/b": "true", "n": "12", "t": "2020-01-01T00:00:00Z"}, "labels": {}},
            "spec": {
                "containers": [{"args": ["-c", "echo: a", "--"], "image": "x:1", "ports": [{"containerPort": 80}]}],
                "script": "a\n b\n", "tail": "a\n\n", "none": "a\nb", "lists": [[1, 2], []], "empty": "", "star": "*",
            },
        });
        assert_eq!(
            to_string(&value),
            "\
apiVersion: v1
kind: Pod
metadata:
  annotations:
    a/b: \"true\"
    \"n\": \"12\"
    t: \"2020-01-01T00:00:00Z\"
  labels: {}
spec:
  containers:
  - args:
    - -c
    - 'echo: a'
    - --
    image: x:1
    ports:
    - containerPort: 80
  empty: \"\"
  lists:
  - - 1
    - 2
  - []
  none: |-
    a
    b
  script: |
    a
     b
  star: '*'
  tail: |+
    a

"
        );
        assert_eq!(parse_one(&to_string(&value)).unwrap(), value);
    }

    #[test]
    fn every_string_survives() {
        for text in [
            "",
            " ",
            "a ",
            " a",
            "yes",
            "No",
            "~",
            "null",
            "1",
            "-1",
            "+1",
            "0x1F",
            "0644",
            "1_000",
            "1e3",
            ".5",
            ".inf",
            "1:30",
            "2001-01-01",
            "- a",
            "-",
            "?",
            ": a",
            "a: b",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "'",
            "\"",
            "%a",
            "@a",
            "`a",
            "[a",
            "{a",
            "a\nb",
            "\na",
            "  a\nb\n",
            "a\n\n\n",
            "\n",
            "\t",
            "a\tb",
            "\u{7f}",
            "\u{1}",
            "é",
            "😀",
            "a\r\nb",
            "---",
            "...",
            "---a",
            "<<",
            "=",
            "a:",
            "NaN",
            "-.INF",
            "{}",
            "[]",
            "a\n  \nb",
            "a \nb",
            "1.2.3",
            "1e",
            "\u{feff}x",
            "\u{2028}",
            "0o17",
            "0b11",
            "12e03",
            "\\",
            "a\\n",
        ] {
            let value = json!({"k": text, text: [text, {"x": text}]});
            let printed = to_string(&value);
            assert_eq!(parse_one(&printed).unwrap(), value, "{text:?} printed as\n{printed}");
        }
    }
}
