//! Columns of `kubectl get`: their definitions and the cells that most kinds share.

use std::borrow::Cow;

use base::time::{human_age, now};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: Cow<'static, str>,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: Cow<'static, str>,
    /// `name` marks the column that holds the object's name.
    pub format: Cow<'static, str>,
    pub description: Cow<'static, str>,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: i32,
}

/// The name, first in every table.
pub const fn name() -> Column {
    Column {
        name: Cow::Borrowed("Name"),
        kind: Cow::Borrowed("string"),
        format: Cow::Borrowed("name"),
        description: Cow::Borrowed(""),
        priority: 0,
    }
}

pub const fn text(name: &'static str) -> Column {
    Column {
        name: Cow::Borrowed(name),
        kind: Cow::Borrowed("string"),
        format: Cow::Borrowed(""),
        description: Cow::Borrowed(""),
        priority: 0,
    }
}

pub fn name_cell(metadata: &ObjectMeta) -> Value {
    metadata.name.as_deref().unwrap_or_default().into()
}

/// When an object was created, for kinds whose table says no more.
pub fn created_cell(metadata: &ObjectMeta) -> Value {
    metadata.creation_timestamp.as_ref().map(|t| base::time::rfc3339_seconds(t.0)).into()
}

pub fn age_cell(metadata: &ObjectMeta) -> Value {
    since_cell(metadata.creation_timestamp.as_ref())
}

pub fn since_cell(time: Option<&Time>) -> Value {
    match time {
        Some(time) => human_age(now().as_second() - time.0.as_second()).into(),
        None => "<unknown>".into(),
    }
}

/// The text, or `<none>`.
pub fn or_none(text: Option<&str>) -> Value {
    text.filter(|t| !t.is_empty()).unwrap_or("<none>").into()
}

/// Joined with commas, or `<none>`.
pub fn list_or_none<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> Value {
    let joined = items.into_iter().map(|s| s.as_ref().to_owned()).collect::<Vec<_>>().join(",");
    or_none(Some(&joined))
}

/// Labels in their short form, or `<none>`.
pub fn labels_cell(labels: Option<&std::collections::BTreeMap<String, String>>) -> Value {
    list_or_none(labels.into_iter().flatten().map(|(k, v)| format!("{k}={v}")))
}

/// A label selector in its short form, or `<none>`.
pub fn selector_cell(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
) -> Value {
    let Some(selector) = selector else { return "<none>".into() };
    let labels = selector.match_labels.iter().flatten().map(|(k, v)| format!("{k}={v}"));
    let expressions = selector.match_expressions.iter().flatten().map(|e| {
        let values = e.values.iter().flatten().cloned().collect::<Vec<_>>().join(",");
        match e.operator.as_str() {
            "In" => format!("{} in ({values})", e.key),
            "NotIn" => format!("{} notin ({values})", e.key),
            "Exists" => e.key.clone(),
            _ => format!("!{}", e.key),
        }
    });
    list_or_none(labels.chain(expressions))
}
