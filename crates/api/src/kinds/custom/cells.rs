//! The columns of a custom resource's tables, and what its objects show in them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::columns::{self, Column};
use crate::jsonpath::{self, JsonPath};

pub enum Cell {
    Name,
    /// What a path leads to, shown as of a type. One that cannot be read leads nowhere.
    Of(Option<JsonPath>, Kind),
}

#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    Integer,
    Number,
    Boolean,
    Date,
}

pub fn of(given: Option<&[CustomResourceColumnDefinition]>) -> (Vec<Column>, Vec<Cell>) {
    let mut shown = vec![columns::name()];
    let mut cells = vec![Cell::Name];
    let age = CustomResourceColumnDefinition {
        name: "Age".into(),
        type_: "date".into(),
        json_path: ".metadata.creationTimestamp".into(),
        ..Default::default()
    };
    for column in given.filter(|given| !given.is_empty()).unwrap_or(&[age]) {
        let mut own = columns::text("");
        own.name = column.name.clone().into();
        own.kind = column.type_.clone().into();
        own.format = column.format.clone().unwrap_or_default().into();
        own.description = column.description.clone().unwrap_or_default().into();
        own.priority = column.priority.unwrap_or(0);
        shown.push(own);
        let kind = match column.type_.as_str() {
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "boolean" => Kind::Boolean,
            "date" => Kind::Date,
            _ => Kind::Text,
        };
        cells.push(Cell::Of(JsonPath::parse(&column.json_path).ok(), kind));
    }
    (shown, cells)
}

impl Cell {
    /// What an object shows; nothing where its value is of another type.
    pub fn of(&self, object: &Value) -> Value {
        let (path, kind) = match self {
            Self::Name => return crate::meta::name(object).into(),
            Self::Of(path, kind) => (path, *kind),
        };
        let Some(value) = path.as_ref().and_then(|path| path.first(object)) else { return Value::Null };
        match (kind, value) {
            (Kind::Text, Value::Null) => "<no value>".into(),
            (Kind::Text, value) => jsonpath::text(value).into(),
            (Kind::Integer, Value::Number(number)) => whole(number),
            (Kind::Number, Value::Number(_)) | (Kind::Boolean, Value::Bool(_)) => value.clone(),
            (Kind::Date, Value::String(text)) => date(text),
            _ => Value::Null,
        }
    }
}

/// Without what is behind the point. What no integer can be shows the least of them, as in the original.
fn whole(number: &serde_json::Number) -> Value {
    let float = number.as_f64().unwrap_or(0.0);
    let fits = float.abs() < i64::MAX as f64;
    number.as_i64().unwrap_or(if fits { float as i64 } else { i64::MIN }).into()
}

fn date(text: &str) -> Value {
    if text.is_empty() {
        return columns::since_cell(None);
    }
    match text.parse::<jiff::Timestamp>() {
        // Of what lies ahead nobody can say how long ago it was.
        Ok(time) if time.as_second() > base::time::now().as_second() + 1 => "<invalid>".into(),
        Ok(time) => columns::since_cell(Some(&Time(time))),
        Err(_) => "<invalid>".into(),
    }
}
