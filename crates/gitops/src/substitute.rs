//! `${variables}` in rendered objects: `${name}`, `${name:-default}`, `${name:=default}`; `$${name}` stands for
//! itself. A variable without value or default becomes empty, as with envsubst.

use std::collections::BTreeMap;

use serde_json::Value;

const OPT_OUT: &str = "kustomize.toolkit.fluxcd.io/substitute";

/// Replaces variables in every text of an object, unless its label or annotation says `disabled`.
pub fn run(object: &mut Value, variables: &BTreeMap<String, String>) {
    let disabled = |field: &str| object["metadata"][field][OPT_OUT] == "disabled";
    if disabled("labels") || disabled("annotations") {
        return;
    }
    walk(object, variables);
}

fn walk(value: &mut Value, variables: &BTreeMap<String, String>) {
    match value {
        Value::String(text) if text.contains("${") => {
            let whole = is_one_variable(text);
            let new = replaced(text, variables);
            // A value that is nothing but a variable may be a number or a flag: YAML would read it so.
            *value = match whole.then(|| {
                new.parse::<i64>().map(Value::from).ok().or_else(|| new.parse::<bool>().map(Value::from).ok())
            }) {
                Some(Some(scalar)) => scalar,
                _ => Value::String(new),
            };
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, variables)),
        Value::Object(map) => map.values_mut().for_each(|item| walk(item, variables)),
        _ => {}
    }
}

fn is_one_variable(text: &str) -> bool {
    text.starts_with("${") && text.find('}') == Some(text.len() - 1)
}

fn replaced(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let escaped = rest[..at].ends_with('$');
        let Some(end) = rest[at..].find('}').map(|end| at + end) else { break };
        let inner = &rest[at + 2..end];
        if escaped {
            out.push_str(&rest[..at - 1]);
            out.push_str(&rest[at..=end]);
        } else {
            out.push_str(&rest[..at]);
            let (name, default) = match inner.split_once(":-").or_else(|| inner.split_once(":=")) {
                Some((name, default)) => (name, default),
                None => (inner, ""),
            };
            let value = variables.get(name).map(String::as_str).filter(|v| !v.is_empty());
            out.push_str(value.unwrap_or(default));
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_are_replaced() {
        let variables = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("n".to_owned(), "3".to_owned())]);
        let mut object = json!({"x": "v${a}-${b:-two}-$${a}", "n": "${n}", "none": "${none}", "open": "${a"});
        run(&mut object, &variables);
        assert_eq!(object, json!({"x": "v1-two-${a}", "n": 3, "none": "", "open": "${a"}));
        let mut kept = json!({"metadata": {"labels": {OPT_OUT: "disabled"}}, "x": "${a}"});
        run(&mut kept, &variables);
        assert_eq!(kept["x"], "${a}");
    }
}
