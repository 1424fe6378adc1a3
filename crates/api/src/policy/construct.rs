//! Objects that mutations make: `Object{…}` is a configuration to be applied, `JSONPatch{…}` an operation.

use cel::{Constructible, Fault, Key, Map, Type, Value, time};
use serde_json::Value as Json;

/// So many values may one expression make for an object.
const MAX_VALUES: usize = 200_000;

pub const TYPES: Constructible = Constructible {
    knows: |name| name == "JSONPatch" || name == "Object" || name.starts_with("Object."),
    field: |name, field| match (name, field) {
        ("JSONPatch", "op" | "path" | "from") => Some(Type::String),
        ("JSONPatch", "value") => Some(Type::Dyn),
        ("JSONPatch", _) => None,
        // What the objects' fields are is judged when the configuration is applied.
        _ => Some(Type::Dyn),
    },
};

/// The JSON of what an expression made.
pub fn to_json(value: &Value<'_>) -> Result<Json, String> {
    Writer { left: MAX_VALUES }.write(value, None, 0)
}

/// The same of an `Object{…}`, whose parts are named by where they stand.
pub fn to_configuration(value: &Value<'_>) -> Result<Json, String> {
    Writer { left: MAX_VALUES }.write(value, Some("Object"), 0)
}

struct Writer {
    left: usize,
}

impl Writer {
    fn write(&mut self, value: &Value<'_>, place: Option<&str>, depth: u32) -> Result<Json, String> {
        self.left = self.left.checked_sub(1).ok_or("the expression's result is too large")?;
        if depth > 100 {
            return Err("the expression's result is nested too deeply".to_owned());
        }
        Ok(match value {
            Value::Null => Json::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(n) => (*n).into(),
            Value::Uint(n) => (*n).into(),
            Value::Double(n) => {
                serde_json::Number::from_f64(*n).map(Json::Number).ok_or("NaN and infinity are no JSON")?
            }
            Value::String(text) => (&**text).into(),
            Value::Bytes(bytes) => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
            Value::Timestamp(t) => time::print_timestamp(*t).into(),
            Value::Duration(nanos) => time::print_duration(*nanos).into(),
            Value::List(list) => {
                let mut out = Vec::new();
                for item in (0..list.len()).filter_map(|index| list.get(index)) {
                    let item = item.map_err(|fault: Fault| fault.to_string())?;
                    out.push(self.write(&item, place, depth + 1)?);
                }
                Json::Array(out)
            }
            Value::Map(map) => self.object(map, place, depth)?,
            Value::Optional(Some(inner)) => self.write(inner, place, depth + 1)?,
            Value::Optional(None) => Json::Null,
            Value::Type(_) | Value::Opaque(_) => {
                return Err(format!("a value of type {} is no JSON", value.type_name()));
            }
        })
    }

    fn object(&mut self, map: &Map<'_>, place: Option<&str>, depth: u32) -> Result<Json, String> {
        let made = map.type_name();
        // A part carries the name of its place.
        let place = match (place, made) {
            (Some(place), name) if name.starts_with("Object") && name != place => {
                return Err(format!(
                    "type mismatch: unexpected type name {name:?}, expected {place:?}, which matches field name path from root Object type"
                ));
            }
            (None, name) if name.starts_with("Object") => Some(name.to_owned()),
            (place, _) => place.map(str::to_owned),
        };
        let mut out = serde_json::Map::new();
        for key in map.keys() {
            let Some(Key::String(name)) = key.key() else {
                return Err("keys of objects are strings".to_owned());
            };
            let Some(value) = map.get(&Key::String(name.clone())).map_err(|fault| fault.to_string())? else {
                continue;
            };
            let below = place.as_ref().map(|place| format!("{place}.{name}"));
            out.insert(name.to_string(), self.write(&value, below.as_deref(), depth + 1)?);
        }
        Ok(Json::Object(out))
    }
}
