//! Value to wire. The original writes every scalar and struct that is not a pointer, also zero ones, and maps in
//! order of their keys; doing the same gives the same bytes.

use serde_json::Value;

use super::ProtoError;
use super::wire::Writer;
use crate::schema::{Field, Node, Shape, Type, WirePart};

type Result<T> = std::result::Result<T, ProtoError>;

fn wrong(path: &str, problem: &'static str) -> ProtoError {
    ProtoError::Value { path: path.to_owned(), problem }
}

/// Appends the fields of a message.
pub(super) fn message(node: Node<'_>, value: &Value, writer: &mut Writer) -> Result<()> {
    let Some(message) = node.message() else { return Ok(()) };
    let map = match value {
        Value::Object(map) => Some(map),
        Value::Null => None,
        _ => return Err(wrong(&message.name, "it is not an object")),
    };
    for (tag, part) in message.wire() {
        match part {
            WirePart::Field(at) => {
                let field = &message.fields[*at];
                one_field(node, field, map.and_then(|map| map.get(&*field.name)), writer)?;
            }
            WirePart::Inline(index) => {
                let ty = Type::of(Shape::Message(*index));
                let open = writer.open(*tag);
                self::message(node.at_local(&ty), value, writer)?;
                writer.close(open);
            }
        }
    }
    Ok(())
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
                let open = writer.open(tag);
                writer.bytes(1, key.as_bytes());
                scalar(node.at(member), 2, value, writer)?;
                writer.close(open);
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
    match &node.ty.shape {
        Shape::String => writer.bytes(tag, text(value)?.as_bytes()),
        Shape::Bytes => {
            let bytes = crate::schema::decode_base64(text(value)?)
                .ok_or_else(|| wrong(text(value).unwrap_or_default(), "it is not base64"))?;
            writer.bytes(tag, &bytes);
        }
        Shape::Int32 | Shape::Int64 => writer.signed(tag, integer(value)?),
        Shape::Bool => writer.varint(tag, u64::from(value.as_bool().unwrap_or(false))),
        Shape::Double => writer.double(tag, value.as_f64().unwrap_or(0.0)),
        Shape::Map(_) => return Err(wrong(&value.to_string(), "a map cannot stand in a list or a map")),
        _ => {
            let open = writer.open(tag);
            inner(node, value, writer)?;
            writer.close(open);
        }
    }
    Ok(())
}

fn text(value: &Value) -> Result<&str> {
    match value {
        Value::String(text) => Ok(text.as_str()),
        Value::Null => Ok(""),
        _ => Err(wrong(&value.to_string(), "it is not text")),
    }
}

fn integer(value: &Value) -> Result<i64> {
    match value {
        Value::Null => Ok(0),
        _ => value.as_i64().ok_or_else(|| wrong(&value.to_string(), "it is not an integer")),
    }
}

/// The fields of a value that is a message on the wire.
fn inner(node: Node<'_>, value: &Value, writer: &mut Writer) -> Result<()> {
    match &node.ty.shape {
        Shape::List(list) => {
            for item in value.as_array().into_iter().flatten() {
                scalar(node.at(&list.item), 1, item, writer)?;
            }
        }
        Shape::Quantity => match value {
            Value::Null => writer.bytes(1, b"0"),
            Value::Number(number) => writer.bytes(1, number.to_string().as_bytes()),
            _ => writer.bytes(1, text(value)?.as_bytes()),
        },
        Shape::IntOrString => int_or_string(value, writer)?,
        Shape::Duration => {
            let nanos = read_duration(text(value)?);
            let wrong = || wrong(text(value).unwrap_or_default(), "it is not a duration");
            writer.signed(1, nanos.ok_or_else(wrong)?);
        }
        Shape::Time => time(text(value)?, false, writer)?,
        Shape::MicroTime => time(text(value)?, true, writer)?,
        Shape::FieldsV1 | Shape::Raw | Shape::Any if !value.is_null() => writer.json(1, value),
        Shape::PropsOrArray(index) | Shape::PropsOrBool(index) | Shape::PropsOrStrings(index) => {
            props(node, *index, value, writer)?;
        }
        _ => message(node, value, writer)?,
    }
    Ok(())
}

fn int_or_string(value: &Value, writer: &mut Writer) -> Result<()> {
    match value {
        Value::String(text) => {
            writer.varint(1, 1);
            writer.varint(2, 0);
            writer.bytes(3, text.as_bytes());
        }
        _ => {
            let number =
                value.as_i64().filter(|n| i32::try_from(*n).is_ok()).or(value.is_null().then_some(0));
            writer.varint(1, 0);
            writer.signed(2, number.ok_or_else(|| wrong(&value.to_string(), "it is not an integer"))?);
            writer.bytes(3, b"");
        }
    }
    Ok(())
}

fn time(text: &str, micro: bool, writer: &mut Writer) -> Result<()> {
    if !text.is_empty() {
        let time: jiff::Timestamp = text.parse().map_err(|_| wrong(text, "it is not a time"))?;
        let nanos = if micro { i64::from(time.subsec_nanosecond()) / 1000 * 1000 } else { 0 };
        // Before 1970 the fraction counts forward from the whole second below.
        let (mut seconds, mut fraction) = (time.as_second(), nanos);
        if fraction < 0 {
            (seconds, fraction) = (seconds - 1, fraction + 1_000_000_000);
        }
        writer.signed(1, seconds);
        writer.signed(2, fraction);
    }
    Ok(())
}

fn props(node: Node<'_>, index: u32, value: &Value, writer: &mut Writer) -> Result<()> {
    let ty = Type::of(Shape::Message(index));
    let schema = |tag: u32, value: &Value, writer: &mut Writer| {
        let open = writer.open(tag);
        message(node.at_local(&ty), value, writer)?;
        writer.close(open);
        Ok(())
    };
    match (&node.ty.shape, value) {
        (Shape::PropsOrBool(_), Value::Object(_)) => {
            writer.varint(1, 1);
            schema(2, value, writer)
        }
        (Shape::PropsOrBool(_), _) => {
            writer.varint(1, u64::from(value.as_bool().unwrap_or(false)));
            Ok(())
        }
        (_, Value::Object(_)) => schema(1, value, writer),
        (Shape::PropsOrStrings(_), Value::Array(items)) => {
            items.iter().filter_map(Value::as_str).for_each(|item| writer.bytes(2, item.as_bytes()));
            Ok(())
        }
        (_, Value::Array(items)) => items.iter().try_for_each(|item| schema(2, item, writer)),
        _ => Ok(()),
    }
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
