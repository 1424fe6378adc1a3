//! Value to wire. The original writes every scalar and struct that is not a pointer, also zero ones, and maps in
//! order of their keys; doing the same gives the same bytes.

use serde_json::{Map, Value};

use super::ProtoError;
use super::wire::Writer;
use crate::schema::{Field, Node, Shape, Type};

type Result<T> = std::result::Result<T, ProtoError>;

/// What to write for one tag of a message.
enum Part<'a> {
    Field(&'a Field),
    Inline(u32),
}

fn wrong(path: &str, problem: &'static str) -> ProtoError {
    ProtoError::Value { path: path.to_owned(), problem }
}

pub(super) fn message(node: Node<'_>, value: &Value) -> Result<Vec<u8>> {
    let empty = Map::new();
    let Some(message) = node.message() else { return Ok(Vec::new()) };
    let map = match value {
        Value::Object(map) => map,
        Value::Null => &empty,
        _ => return Err(wrong(&message.name, "it is not an object")),
    };
    let fields =
        message.fields.iter().filter(|field| field.tag > 0).map(|field| (field.tag, Part::Field(field)));
    let inlines =
        message.inlines.iter().filter(|(tag, _)| *tag > 0).map(|(tag, index)| (*tag, Part::Inline(*index)));
    let mut parts: Vec<(u32, Part<'_>)> = fields.chain(inlines).collect();
    parts.sort_by_key(|(tag, _)| *tag);
    let mut writer = Writer::default();
    for (tag, part) in parts {
        match part {
            Part::Field(field) => one_field(node, field, map.get(&*field.name), &mut writer)?,
            Part::Inline(index) => {
                let ty = Type::of(Shape::Message(index));
                writer.bytes(tag, &self::message(node.at_local(&ty), value)?);
            }
        }
    }
    Ok(writer.finish())
}

fn one_field(node: Node<'_>, field: &Field, value: Option<&Value>, writer: &mut Writer) -> Result<()> {
    let tag = field.tag;
    let value = value.filter(|value| !value.is_null());
    match (&field.ty.shape, value) {
        (Shape::List(list), None) if !list.wrapped => Ok(()),
        (Shape::List(list), Some(value)) if !list.wrapped => {
            let items = value.as_array().ok_or_else(|| wrong(&field.name, "it is not a list"))?;
            items.iter().try_for_each(|item| scalar(node.at(&list.item), tag, item, writer))
        }
        (Shape::Map(_), None) => Ok(()),
        (Shape::Map(member), Some(value)) => {
            let map = value.as_object().ok_or_else(|| wrong(&field.name, "it is not an object"))?;
            for (key, value) in map {
                let mut entry = Writer::default();
                entry.bytes(1, key.as_bytes());
                scalar(node.at(member), 2, value, &mut entry)?;
                writer.bytes(tag, &entry.finish());
            }
            Ok(())
        }
        (Shape::List(_) | Shape::Bytes, None) => Ok(()),
        (_, None) if field.pointer => Ok(()),
        (_, None) => scalar(node.at(&field.ty), tag, &Value::Null, writer),
        (_, Some(value)) => scalar(node.at(&field.ty), tag, value, writer),
    }
}

/// Writes one value; `null` stands for the type's zero.
fn scalar(node: Node<'_>, tag: u32, value: &Value, writer: &mut Writer) -> Result<()> {
    let text = || match value {
        Value::String(text) => Ok(text.as_str()),
        Value::Null => Ok(""),
        _ => Err(wrong(&value.to_string(), "it is not text")),
    };
    let integer = || match value {
        Value::Null => Ok(0),
        _ => value.as_i64().ok_or_else(|| wrong(&value.to_string(), "it is not an integer")),
    };
    match &node.ty.shape {
        Shape::String => writer.bytes(tag, text()?.as_bytes()),
        Shape::Bytes => {
            let bytes = crate::schema::decode_base64(text()?)
                .ok_or_else(|| wrong(text().unwrap_or_default(), "it is not base64"))?;
            writer.bytes(tag, &bytes);
        }
        Shape::Int32 | Shape::Int64 => writer.signed(tag, integer()?),
        Shape::Bool => writer.varint(tag, u64::from(value.as_bool().unwrap_or(false))),
        Shape::Double => writer.double(tag, value.as_f64().unwrap_or(0.0)),
        Shape::Message(_) => writer.bytes(tag, &message(node, value)?),
        Shape::List(list) => {
            let mut inner = Writer::default();
            for item in value.as_array().into_iter().flatten() {
                scalar(node.at(&list.item), 1, item, &mut inner)?;
            }
            writer.bytes(tag, &inner.finish());
        }
        Shape::Quantity => {
            let mut inner = Writer::default();
            let quantity = match value {
                Value::Null => "0".to_owned(),
                Value::Number(number) => number.to_string(),
                _ => text()?.to_owned(),
            };
            inner.bytes(1, quantity.as_bytes());
            writer.bytes(tag, &inner.finish());
        }
        Shape::IntOrString => writer.bytes(tag, &int_or_string(value)?),
        Shape::Duration => {
            let mut inner = Writer::default();
            inner.signed(
                1,
                read_duration(text()?)
                    .ok_or_else(|| wrong(text().unwrap_or_default(), "it is not a duration"))?,
            );
            writer.bytes(tag, &inner.finish());
        }
        Shape::Time => writer.bytes(tag, &time(text()?, false)?),
        Shape::MicroTime => writer.bytes(tag, &time(text()?, true)?),
        Shape::FieldsV1 | Shape::Raw | Shape::Any => {
            let mut inner = Writer::default();
            if !value.is_null() {
                inner.bytes(1, value.to_string().as_bytes());
            }
            writer.bytes(tag, &inner.finish());
        }
        Shape::PropsOrArray(index) | Shape::PropsOrBool(index) | Shape::PropsOrStrings(index) => {
            writer.bytes(tag, &props(node, *index, value)?);
        }
        Shape::Map(_) => return Err(wrong(&value.to_string(), "a map cannot stand in a list or a map")),
    }
    Ok(())
}

fn int_or_string(value: &Value) -> Result<Vec<u8>> {
    let mut inner = Writer::default();
    match value {
        Value::String(text) => {
            inner.varint(1, 1);
            inner.varint(2, 0);
            inner.bytes(3, text.as_bytes());
        }
        _ => {
            let number =
                value.as_i64().filter(|n| i32::try_from(*n).is_ok()).or(value.is_null().then_some(0));
            inner.varint(1, 0);
            inner.signed(2, number.ok_or_else(|| wrong(&value.to_string(), "it is not an integer"))?);
            inner.bytes(3, b"");
        }
    }
    Ok(inner.finish())
}

fn time(text: &str, micro: bool) -> Result<Vec<u8>> {
    let mut inner = Writer::default();
    if !text.is_empty() {
        let time: jiff::Timestamp = text.parse().map_err(|_| wrong(text, "it is not a time"))?;
        let nanos = if micro { i64::from(time.subsec_nanosecond()) / 1000 * 1000 } else { 0 };
        // Before 1970 the fraction counts forward from the whole second below.
        let (mut seconds, mut fraction) = (time.as_second(), nanos);
        if fraction < 0 {
            (seconds, fraction) = (seconds - 1, fraction + 1_000_000_000);
        }
        inner.signed(1, seconds);
        inner.signed(2, fraction);
    }
    Ok(inner.finish())
}

fn props(node: Node<'_>, index: u32, value: &Value) -> Result<Vec<u8>> {
    let ty = Type::of(Shape::Message(index));
    let schema = |value: &Value| message(node.at_local(&ty), value);
    let mut inner = Writer::default();
    match (&node.ty.shape, value) {
        (Shape::PropsOrBool(_), Value::Object(_)) => {
            inner.varint(1, 1);
            inner.bytes(2, &schema(value)?);
        }
        (Shape::PropsOrBool(_), _) => inner.varint(1, u64::from(value.as_bool().unwrap_or(false))),
        (_, Value::Object(_)) => inner.bytes(1, &schema(value)?),
        (Shape::PropsOrStrings(_), Value::Array(items)) => {
            items.iter().filter_map(Value::as_str).for_each(|item| inner.bytes(2, item.as_bytes()));
        }
        (_, Value::Array(items)) => {
            for item in items {
                inner.bytes(2, &schema(item)?);
            }
        }
        _ => {}
    }
    Ok(inner.finish())
}

/// Go's notation: a sign and numbers with units, such as `1h2m3.5s`.
fn read_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut total = 0f64;
    while !rest.is_empty() && rest != "0" {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit_end] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Some(if negative { -total } else { total }.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, nanos) in
            [("0s", 0), ("", 0), ("1.5s", 1_500_000_000), ("1h2m3s", 3_723_000_000_000), ("-1ms", -1_000_000)]
        {
            assert_eq!(read_duration(text), Some(nanos), "{text}");
        }
        assert_eq!(read_duration("1x"), None);
    }
}
