//! `fieldPath` of a rule: where below its place a fault is shown.

use serde_json::Value;

/// Reads `.a.b['c']`, which must lead somewhere in the schema, and writes it as errors do.
pub fn parse(path: &str, schema: &Value) -> Option<String> {
    let mut schema = schema;
    let mut out = String::new();
    let mut rest = path.trim();
    while !rest.is_empty() {
        let (name, tail) = match rest.strip_prefix('.') {
            Some(after) => {
                let end = after.find(['.', '[', ']']).unwrap_or(after.len());
                let (name, tail) = after.split_at(end);
                (name.to_owned(), tail)
            }
            None => quoted(rest.strip_prefix("['")?)?,
        };
        if name.is_empty() {
            return None;
        }
        if let Some(property) = schema.get("properties") {
            schema = property.get(&name)?;
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
        } else {
            schema = schema.get("additionalProperties").filter(|values| values.is_object())?;
            out.push_str(&format!("[{name}]"));
        }
        rest = tail;
    }
    (!out.is_empty()).then_some(out)
}

/// The text up to the closing `']`, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Some((out, text.get(at + 1..)?.strip_prefix(']')?)),
            '\\' => out.push(match chars.next()?.1 {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                c @ ('\'' | '\\') => c,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_somewhere() {
        let schema = json!({"properties": {"a": {"properties": {"b-c": {}}}, "m": {"additionalProperties": {"properties": {"x": {}}}},
            "l": {"items": {}}}});
        for (path, expected) in [
            (".a", Some("a")),
            (".a['b-c']", Some("a.b-c")),
            (".a.b-c", Some("a.b-c")),
            (".m['it\\'s'].x", Some("m[it's].x")),
            (".x", None),
            ("a", None),
            (".a.", None),
            (".l[0]", None),
            (".m['x", None),
            ("", None),
        ] {
            assert_eq!(parse(path, &schema).as_deref(), expected, "{path}");
        }
    }
}
