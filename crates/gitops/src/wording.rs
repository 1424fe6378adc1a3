//! A server's refusal in words that a person can act on: the field, what is wrong with it, what to do next. What clients
//! match on (the reason, the object, the field, `field is immutable`) stays; what only the server's authors can read (how it
//! holds a value, a whole template of which one line has changed) goes. Pure.

use base::constants::annotations::KUSTOMIZE_FORCE;
use kube::core::Status;
use kube::core::response::StatusCause;
use serde_json::Value;

/// A value that is longer says nothing in a sentence.
const VALUE_LIMIT: usize = 120;
const UNSTRUCTURED: &str = "&value.valueUnstructured{Value:";
/// How what stays as it was made is told of: in general, and of a service's address.
const IMMUTABLE: [&str; 2] = ["immutable", "may not change once set"];

/// What the server said of an object that it refused.
pub fn refusal(status: &Status, object: &Value) -> String {
    if status.message.is_empty() {
        return format!("the server answered with code {} {}", status.code, status.reason)
            .trim_end()
            .to_owned();
    }
    let causes = causes(status);
    if let Some((subject, _)) = status.message.split_once(" is invalid: ")
        && !causes.is_empty()
    {
        let told: Vec<String> = causes.iter().map(told).collect();
        return match told.as_slice() {
            [one] => format!("{subject} is invalid: {one}"),
            many => format!("{subject} is invalid: [{}]", many.join(", ")),
        };
    }
    let lines: Vec<String> = status.message.lines().map(|line| type_fault(line, object)).collect();
    lines.join("\n")
}

/// Whether nothing is wrong with an object but that it may not be changed like this: made anew, it would be taken.
pub fn is_immutable(status: &Status) -> bool {
    let causes = causes(status);
    let says = |message: &str| IMMUTABLE.iter().any(|words| message.contains(words));
    match status.code {
        422 if causes.is_empty() => says(&status.message),
        422 => causes.iter().all(|cause| says(&cause.message) || is_frozen(cause)),
        _ => false,
    }
}

/// A StatefulSet says it in words of its own.
fn is_frozen(cause: &StatusCause) -> bool {
    cause.message.contains("updates to ") && cause.message.contains(" are forbidden")
}

/// What to do about an object that may not be changed, where Git drives it.
pub fn made_anew(kind: &str, namespace: &str, name: &str) -> String {
    let place = if namespace.is_empty() { String::new() } else { format!(" -n {namespace}") };
    format!(
        "where nothing is lost with it, delete it (`kedge delete {} {name}{place}`) and it is made anew, or annotate it with {KUSTOMIZE_FORCE}: enabled",
        kind.to_lowercase()
    )
}

fn causes(status: &Status) -> &[StatusCause] {
    status.details.as_ref().map_or(&[], |details| &details.causes)
}

/// `spec.template: field is immutable`
fn told(cause: &StatusCause) -> String {
    let message = match cause.message.rsplit_once(": ") {
        Some((before, detail)) if before.len() > VALUE_LIMIT => detail,
        _ => &cause.message,
    };
    if cause.field.is_empty() { message.to_owned() } else { format!("{}: {message}", cause.field) }
}

/// A value that is of another type than its field's: `.data.a: expected string, got 1, a number; put it in quotes`.
fn type_fault(line: &str, object: &Value) -> String {
    let Some((before, got)) = line.split_once(", got ") else { return line.to_owned() };
    let Some((path, expected)) = before.rsplit_once(": expected ") else { return line.to_owned() };
    let path = path.rsplit(' ').next().unwrap_or_default();
    if !path.starts_with('.') {
        return line.to_owned();
    }
    let held = got.strip_prefix(UNSTRUCTURED).and_then(|rest| rest.strip_suffix('}'));
    let Some(value) = at(object, path).or_else(|| serde_json::from_str(held?).ok()) else {
        return match held {
            Some(held) => format!("{before}, got {}", clipped(held)),
            None => line.to_owned(),
        };
    };
    let next = match (&value, expected) {
        (Value::Bool(_) | Value::Number(_), "string") => format!("; put it in quotes: \"{value}\""),
        (Value::String(text), "boolean") if ["true", "false"].contains(&text.as_str()) => {
            "; take the quotes away".to_owned()
        }
        (Value::String(text), _) if expected.starts_with("numeric") && text.parse::<f64>().is_ok() => {
            "; take the quotes away".to_owned()
        }
        _ => String::new(),
    };
    format!("{before}, got {}{next}", shown(&value))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "a map".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Null => "nothing".to_owned(),
        Value::String(_) => format!("the text {}", clipped(&value.to_string())),
        Value::Bool(_) => format!("the boolean {value}"),
        Value::Number(_) => format!("the number {value}"),
    }
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(VALUE_LIMIT) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

/// The value at a path as field ownership writes it. Names may hold dots: of those that fit, the longest.
fn at(object: &Value, path: &str) -> Option<Value> {
    if path.is_empty() {
        return Some(object.clone());
    }
    if let Some(rest) = path.strip_prefix('[') {
        let (key, rest) = rest.split_once(']')?;
        let items = object.as_array()?;
        let found = match key.parse::<usize>() {
            Ok(index) => items.get(index),
            Err(_) => items.iter().find(|item| is_named(item, key)),
        };
        return at(found?, rest);
    }
    let rest = path.strip_prefix('.')?;
    let map = object.as_object()?;
    let mut fitting: Vec<(&String, &Value)> =
        map.iter().filter(|(name, _)| rest.starts_with(*name)).collect();
    fitting.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    fitting.into_iter().find_map(|(name, value)| at(value, &rest[name.len()..]))
}

/// `name="a"`, or several of these with commas.
fn is_named(item: &Value, key: &str) -> bool {
    key.split(',').all(|pair| {
        let Some((name, value)) = pair.split_once('=') else { return false };
        item.get(name)
            .is_some_and(|held| serde_json::from_str(value).is_ok_and(|wanted: Value| *held == wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(message: &str, causes: &[(&str, &str)]) -> Status {
        let causes: Vec<Value> =
            causes.iter().map(|(field, message)| json!({"field": field, "message": message})).collect();
        serde_json::from_value(
            json!({"code": 422, "reason": "Invalid", "message": message, "details": {"causes": causes}}),
        )
        .expect("a status")
    }

    #[test]
    fn values_of_another_type_are_told_as_they_are_written() {
        let object = json!({"data": {"a": 1, "a.b": true, "m": {"x": 1}}, "metadata": {"labels": {"x/y.z": 5}},
            "spec": {"replicas": "abc", "paused": "true", "containers": [{"name": "d", "image": 5, "ports": ["80"]}]}});
        let head = "failed to create typed patch object (/s; /v1, Kind=ConfigMap): ";
        let check = |fault: &str, wanted: &str| {
            assert_eq!(refusal(&status(&format!("{head}{fault}"), &[]), &object), format!("{head}{wanted}"));
        };
        let held = |value: &str| format!("&value.valueUnstructured{{Value:{value}}}");
        check(
            &format!(".data.a: expected string, got {}", held("1")),
            ".data.a: expected string, got the number 1; put it in quotes: \"1\"",
        );
        check(
            &format!(".data.a.b: expected string, got {}", held("true")),
            ".data.a.b: expected string, got the boolean true; put it in quotes: \"true\"",
        );
        check(
            &format!(".data.m: expected string, got {}", held("map[string]interface {}{\"x\":1}")),
            ".data.m: expected string, got a map",
        );
        check(
            &format!(".metadata.labels.x/y.z: expected string, got {}", held("5")),
            ".metadata.labels.x/y.z: expected string, got the number 5; put it in quotes: \"5\"",
        );
        check(
            ".spec.replicas: expected numeric (int or float), got string",
            ".spec.replicas: expected numeric (int or float), got the text \"abc\"",
        );
        check(
            &format!(".spec.paused: expected boolean, got {}", held("\"true\"")),
            ".spec.paused: expected boolean, got the text \"true\"; take the quotes away",
        );
        check(
            &format!(".spec.containers[name=\"d\"].image: expected string, got {}", held("5")),
            ".spec.containers[name=\"d\"].image: expected string, got the number 5; put it in quotes: \"5\"",
        );
        check(
            ".spec.containers[name=\"d\"].ports[0]: expected numeric (int or float), got string",
            ".spec.containers[name=\"d\"].ports[0]: expected numeric (int or float), got the text \"80\"; take the quotes away",
        );
        // What cannot be found in the object is told as the server tells it, without its insides.
        check(
            &format!(".data.z: expected string, got {}", held("map[x]")),
            ".data.z: expected string, got map[x]",
        );
        check(".spec.replicaz: field not declared in schema", ".spec.replicaz: field not declared in schema");
    }

    #[test]
    fn a_template_that_may_not_change_is_not_shown_whole() {
        let dump = format!("Invalid value: {{{}}}: field is immutable", "\"a: b\",".repeat(50));
        let message = format!("Job.batch \"x\" is invalid: spec.template: {dump}");
        let refused = status(&message, &[("spec.template", &dump)]);
        assert!(is_immutable(&refused));
        assert_eq!(
            refusal(&refused, &json!({})),
            "Job.batch \"x\" is invalid: spec.template: field is immutable"
        );
        let short = "Invalid value: \"b\": field is immutable";
        let both = status(
            &format!("Service \"x\" is invalid: [spec.a: {short}, spec.c: Required value]"),
            &[("spec.a", short), ("spec.c", "Required value")],
        );
        assert!(!is_immutable(&both), "made anew, it would be refused all the same");
        assert_eq!(
            refusal(&both, &json!({})),
            "Service \"x\" is invalid: [spec.a: Invalid value: \"b\": field is immutable, spec.c: Required value]"
        );
        let frozen = "Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden";
        assert!(is_immutable(&status("StatefulSet.apps \"x\" is invalid: …", &[("spec", frozen)])));
        let address = "Invalid value: [\"10.43.0.9\"]: may not change once set";
        assert!(is_immutable(&status("Service \"x\" is invalid: …", &[("spec.clusterIPs[0]", address)])));
        assert!(!is_immutable(&status("x", &[("spec", "Required value")])));
        let told = made_anew("Job", "demo", "x");
        assert!(told.contains("delete it (`kedge delete job x -n demo`)"), "{told}");
    }
}
