//! Metrics as `autoscaling/v1` writes them into its annotations: flat where v2 has a target of its own.

use serde_json::{Map, Value, json};

/// A metric's fields besides its numbers: name in v1, path in v2.
const PLAIN: &[(&str, &str, &[&str])] = &[
    ("Object", "target", &["describedObject"]),
    ("Object", "metricName", &["metric", "name"]),
    ("Object", "selector", &["metric", "selector"]),
    ("Pods", "metricName", &["metric", "name"]),
    ("Pods", "selector", &["metric", "selector"]),
    ("Resource", "name", &["name"]),
    ("ContainerResource", "name", &["name"]),
    ("ContainerResource", "container", &["container"]),
    ("External", "metricName", &["metric", "name"]),
    ("External", "metricSelector", &["metric", "selector"]),
];
/// Its numbers: name in v1 behind `target` or `current`, name in v2's `target` or `current`.
const NUMBERS: &[(&str, &str, &str)] = &[
    ("Object", "Value", "value"),
    ("Pods", "AverageValue", "averageValue"),
    ("Resource", "AverageUtilization", "averageUtilization"),
    ("Resource", "AverageValue", "averageValue"),
    ("ContainerResource", "AverageUtilization", "averageUtilization"),
    ("ContainerResource", "AverageValue", "averageValue"),
    ("External", "Value", "value"),
    ("External", "AverageValue", "averageValue"),
];

/// Whether it says what is wanted of a metric or what the metric is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Target,
    Current,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Current => "current",
        }
    }

    /// Amounts that v1 writes even where there is none.
    fn zero(self, kind: &str) -> Option<&'static str> {
        match (self, kind) {
            (Self::Target, "Object") => Some("Value"),
            (Self::Target, "Pods") => Some("AverageValue"),
            (Self::Current, "Object" | "External") => Some("Value"),
            (Self::Current, "Pods" | "Resource" | "ContainerResource") => Some("AverageValue"),
            _ => None,
        }
    }
}

/// The member that holds a metric's fields: `resource` of a `Resource`.
fn member(kind: &str) -> String {
    let mut letters = kind.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

pub fn to_v1(metric: &Value, form: Form) -> Value {
    let kind = metric["type"].as_str().unwrap_or_default();
    let from = &metric[member(kind)];
    let mut out = Map::new();
    for (_, name, path) in PLAIN.iter().filter(|(of, ..)| *of == kind) {
        if let Some(value) = path.iter().try_fold(from, |at, step| at.get(step)) {
            out.insert((*name).into(), value.clone());
        }
    }
    for (_, name, inner) in NUMBERS.iter().filter(|(of, ..)| *of == kind) {
        if let Some(value) = from[form.name()].get(inner) {
            out.insert(format!("{}{name}", form.name()), value.clone());
        }
    }
    if let (Some(value), "Object") = (from[form.name()].get("averageValue"), kind) {
        out.insert("averageValue".into(), value.clone());
    }
    if let Some(name) = form.zero(kind) {
        out.entry(format!("{}{name}", form.name())).or_insert_with(|| "0".into());
    }
    json!({"type": kind, member(kind): out})
}

pub fn to_v2(metric: &Value, form: Form) -> Value {
    let kind = metric["type"].as_str().unwrap_or_default();
    let from = &metric[member(kind)];
    let mut out = json!({});
    for (_, name, path) in PLAIN.iter().filter(|(of, ..)| *of == kind) {
        if let Some(value) = from.get(name) {
            let mut at = &mut out;
            for step in *path {
                at = &mut at[*step];
            }
            *at = value.clone();
        }
    }
    let mut numbers = json!({});
    for (_, name, inner) in NUMBERS.iter().filter(|(of, ..)| *of == kind) {
        let given = from.get(format!("{}{name}", form.name()));
        // What v1 writes where there is none is none.
        if let Some(value) = given.filter(|v| !(form.zero(kind) == Some(*name) && **v == "0")) {
            numbers[*inner] = value.clone();
        }
    }
    if let (Some(value), "Object") = (from.get("averageValue"), kind) {
        numbers["averageValue"] = value.clone();
    }
    if form == Form::Target {
        let has = |name: &str| numbers.get(name).is_some();
        numbers["type"] = match (has("averageUtilization"), has("averageValue")) {
            (true, _) => "Utilization".into(),
            (_, true) => "AverageValue".into(),
            _ => "Value".into(),
        };
    }
    out[form.name()] = numbers;
    json!({"type": kind, member(kind): out})
}

/// The order in which the original writes the fields of its types into a text.
const ORDER: &[&str] = &[
    "type",
    "status",
    "lastTransitionTime",
    "reason",
    "message",
    "object",
    "pods",
    "resource",
    "containerResource",
    "external",
    "target",
    "metricName",
    "metricSelector",
    "kind",
    "name",
    "apiVersion",
    "targetValue",
    "currentValue",
    "targetAverageUtilization",
    "currentAverageUtilization",
    "targetAverageValue",
    "currentAverageValue",
    "container",
    "selector",
    "averageValue",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
    "values",
    "ScaleUp",
    "ScaleDown",
    "StabilizationWindowSeconds",
    "SelectPolicy",
    "Policies",
    "Tolerance",
    "Type",
    "Value",
    "PeriodSeconds",
];

/// How the original writes behavior: by the names that its fields have within, with all of them there.
pub fn capital(behavior: &Value) -> Value {
    let renamed = |value: &Value, names: &[&str]| -> Map<String, Value> {
        let name = |small: &str| small[..1].to_uppercase() + &small[1..];
        names.iter().map(|small| (name(small), value.get(small).cloned().unwrap_or_default())).collect()
    };
    let rules = |rules: &Value| {
        if rules.is_null() {
            return Value::Null;
        }
        let mut out =
            renamed(rules, &["stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance"]);
        if let Some(Value::Array(policies)) = out.get_mut("Policies") {
            policies.iter_mut().for_each(|p| *p = renamed(p, &["type", "value", "periodSeconds"]).into());
        }
        out.into()
    };
    json!({"ScaleUp": rules(&behavior["scaleUp"]), "ScaleDown": rules(&behavior["scaleDown"])})
}

/// The same by the names of the API, without what is nothing.
pub fn small(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let name = |name: &str| {
                name.chars().take(1).flat_map(char::to_lowercase).chain(name.chars().skip(1)).collect()
            };
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (name(key), small(value))).collect())
        }
        Value::Array(items) => items.iter().map(small).collect(),
        scalar => scalar.clone(),
    }
}

pub fn in_order(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(in_order).collect::<Vec<_>>().join(","))
        }
        Value::Object(map) => {
            let mut members: Vec<(&String, &Value)> = map.iter().collect();
            let rank = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
            members.sort_by_key(|(name, _)| rank(name));
            let text = |(name, value): (&String, &Value)| {
                // Labels have names of their own.
                let value = if name == "matchLabels" { value.to_string() } else { in_order(value) };
                format!("{}:{value}", Value::from(name.as_str()))
            };
            format!("{{{}}}", members.into_iter().map(text).collect::<Vec<_>>().join(","))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_in_the_order_of_the_types() {
        let metric = json!([{"resource": {"currentAverageValue": "0", "name": "cpu", "currentAverageUtilization": 12}, "type": "Resource"}]);
        let expected = r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":12,"currentAverageValue":"0"}}]"#;
        assert_eq!(in_order(&metric), expected);
    }

    fn check(form: Form, v2: Value, v1: Value) {
        assert_eq!(to_v1(&v2, form), v1);
        assert_eq!(to_v2(&v1, form), v2);
    }

    #[test]
    fn both_forms_say_the_same() {
        check(
            Form::Current,
            json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}}),
            json!({"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 12, "currentAverageValue": "0"}}),
        );
        check(
            Form::Target,
            json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                "metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "Value", "value": "10k"}}}),
            json!({"type": "Object", "object": {"target": {"kind": "Service", "name": "s"}, "metricName": "hits",
                "selector": {"matchLabels": {"a": "b"}}, "targetValue": "10k"}}),
        );
        check(
            Form::Target,
            json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
                "target": {"type": "AverageValue", "averageValue": "1Gi"}}}),
            json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "targetAverageValue": "1Gi"}}),
        );
        check(
            Form::Target,
            json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "3"}}}),
            json!({"type": "External", "external": {"metricName": "queue", "targetAverageValue": "3"}}),
        );
        check(
            Form::Target,
            json!({"type": "Pods", "pods": {"metric": {"name": "rate"}, "target": {"type": "AverageValue", "averageValue": "5"}}}),
            json!({"type": "Pods", "pods": {"metricName": "rate", "targetAverageValue": "5"}}),
        );
    }
}
