//! Wire to value.

use base64::Engine;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{Entry, Reader};
use super::{ProtoError, malformed};
use crate::schema::{Field, Message, Node, Shape};
use crate::weight::Left;

type Result<T> = std::result::Result<T, ProtoError>;

/// How deep messages may still be within each other, and what all may still come to.
#[derive(Clone, Copy)]
pub(super) struct Room<'w> {
    pub depth: usize,
    pub left: &'w Left,
}

impl Room<'_> {
    fn deeper(self) -> Option<Self> {
        Some(Self { depth: self.depth.checked_sub(1)?, ..self })
    }
}

fn entries<'a>(name: &'a str, bytes: &'a [u8]) -> impl Iterator<Item = Result<(u32, Entry<'a>)>> {
    Reader::new(bytes).map(move |entry| entry.map_err(|problem| malformed(name, problem)))
}

pub(super) fn message(node: Node<'_>, bytes: &[u8], room: Room<'_>) -> Result<Value> {
    room.left.take_object()?;
    let mut map = Map::new();
    fill(node, bytes, room, &mut map)?;
    Ok(Value::Object(map))
}

/// Reads the fields of a message into an object: inlined messages share their parent's.
fn fill(node: Node<'_>, bytes: &[u8], room: Room<'_>, map: &mut Map<String, Value>) -> Result<()> {
    let Some(message) = node.message() else { return Ok(()) };
    let room = room.deeper().ok_or_else(|| malformed(&message.name, "nested too deeply"))?;
    for entry in entries(&message.name, bytes) {
        let (tag, entry) = entry?;
        if let Some(field) = message.fields.iter().find(|field| field.tag == tag) {
            one_field(node, message, field, entry, room, map)?;
        } else if let Some((_, index)) = message.inlines.iter().find(|(inline, _)| *inline == tag) {
            let ty = crate::schema::Type::of(Shape::Message(*index));
            fill(node.at_local(&ty), bytes_of(message, entry)?, room, map)?;
        }
    }
    Ok(())
}

fn bytes_of<'a>(message: &Message, entry: Entry<'a>) -> Result<&'a [u8]> {
    match entry {
        Entry::Bytes(bytes) => Ok(bytes),
        _ => Err(malformed(&message.name, "wrong wire type")),
    }
}

fn one_field(
    node: Node<'_>,
    message: &Message,
    field: &Field,
    entry: Entry<'_>,
    room: Room<'_>,
    map: &mut Map<String, Value>,
) -> Result<()> {
    let name = &*field.name;
    match &field.ty.shape {
        Shape::List(list) if !list.wrapped => {
            let item = scalar(node.at(&list.item), message, entry, room)?;
            match map.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                Value::Array(items) => items.push(item),
                _ => return Err(malformed(&message.name, "a list is not one")),
            }
        }
        Shape::Map(member) => {
            let (mut key, mut value) = (String::new(), None);
            for entry in entries(&message.name, bytes_of(message, entry)?) {
                match entry? {
                    (1, Entry::Bytes(text)) => key = utf8(message, text)?,
                    (2, entry) => value = Some(scalar(node.at(member), message, entry, room)?),
                    _ => {}
                }
            }
            let value = match value {
                Some(value) => value,
                None => scalar(node.at(member), message, Entry::Bytes(&[]), room)?,
            };
            match map.entry(name).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(inner) => inner.insert(key, value),
                _ => return Err(malformed(&message.name, "a map is not one")),
            };
        }
        _ => {
            let value = scalar(node.at(&field.ty), message, entry, room)?;
            map.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

fn utf8(message: &Message, bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed(&message.name, "text is not UTF-8"))
}

fn json(message: &Message, bytes: &[u8]) -> Result<Value> {
    match bytes.is_empty() {
        true => Ok(Value::Null),
        false => {
            serde_json::from_slice(bytes).map_err(|_| malformed(&message.name, "embedded JSON is not valid"))
        }
    }
}

/// What a value has of its own, not in others below it.
fn letters(shape: &Shape, entry: &Entry<'_>) -> usize {
    match (shape, entry) {
        (
            Shape::Message(_)
            | Shape::List(_)
            | Shape::PropsOrArray(_)
            | Shape::PropsOrBool(_)
            | Shape::PropsOrStrings(_),
            _,
        ) => 0,
        (_, Entry::Bytes(bytes)) => bytes.len(),
        _ => 0,
    }
}

fn scalar(node: Node<'_>, message: &Message, entry: Entry<'_>, room: Room<'_>) -> Result<Value> {
    let wrong = || malformed(&message.name, "wrong wire type");
    room.left.take_value(letters(&node.ty.shape, &entry))?;
    Ok(match (&node.ty.shape, entry) {
        (Shape::String, Entry::Bytes(bytes)) => utf8(message, bytes)?.into(),
        (Shape::Bytes, Entry::Bytes(bytes)) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        (Shape::Int32, Entry::Varint(value)) => (value as i32).into(),
        (Shape::Int64, Entry::Varint(value)) => (value as i64).into(),
        (Shape::Bool, Entry::Varint(value)) => (value != 0).into(),
        (Shape::Double, Entry::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Shape::Message(_), Entry::Bytes(bytes)) => self::message(node, bytes, room)?,
        (Shape::List(list), Entry::Bytes(bytes)) => {
            let mut items = Vec::new();
            for entry in entries(&message.name, bytes) {
                if let (1, entry) = entry? {
                    items.push(scalar(node.at(&list.item), message, entry, room)?);
                }
            }
            Value::Array(items)
        }
        (Shape::Quantity, Entry::Bytes(bytes)) => match parts(message, bytes)?.text {
            Some(text) => text.into(),
            None => "0".into(),
        },
        (Shape::IntOrString, Entry::Bytes(bytes)) => int_or_string(message, bytes)?,
        (Shape::Duration, Entry::Bytes(bytes)) => print_duration(parts(message, bytes)?.first).into(),
        (Shape::Time, Entry::Bytes(bytes)) => time(message, bytes, 0)?,
        (Shape::MicroTime, Entry::Bytes(bytes)) => time(message, bytes, 6)?,
        (Shape::FieldsV1 | Shape::Raw | Shape::Any, Entry::Bytes(bytes)) => {
            let mut value = Value::Null;
            for entry in entries(&message.name, bytes) {
                if let (1, Entry::Bytes(raw)) = entry? {
                    room.left.take_json(raw)?;
                    value = json(message, raw)?;
                }
            }
            value
        }
        (Shape::PropsOrArray(_) | Shape::PropsOrBool(_) | Shape::PropsOrStrings(_), Entry::Bytes(bytes)) => {
            props(node, message, bytes, room)?
        }
        _ => return Err(wrong()),
    })
}

/// The first two numbers and the first text of a small message.
#[derive(Default)]
struct Parts {
    first: i64,
    second: i64,
    text: Option<String>,
}

fn parts(message: &Message, bytes: &[u8]) -> Result<Parts> {
    let mut parts = Parts::default();
    for entry in entries(&message.name, bytes) {
        match entry? {
            (1, Entry::Varint(value)) => parts.first = value as i64,
            (2, Entry::Varint(value)) => parts.second = value as i64,
            (_, Entry::Bytes(text)) => parts.text = Some(utf8(message, text)?),
            _ => {}
        }
    }
    Ok(parts)
}

fn int_or_string(message: &Message, bytes: &[u8]) -> Result<Value> {
    let parts = parts(message, bytes)?;
    Ok(match parts.first {
        0 => (parts.second as i32).into(),
        _ => parts.text.unwrap_or_default().into(),
    })
}

fn time(message: &Message, bytes: &[u8], precision: u8) -> Result<Value> {
    // The original writes its zero time as no bytes at all.
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let parts = parts(message, bytes)?;
    let nanos = if precision == 0 { 0 } else { parts.second as i32 };
    let time =
        Timestamp::new(parts.first, nanos).map_err(|_| malformed(&message.name, "a time is out of range"))?;
    Ok(crate::schema::print_time(time, precision).into())
}

/// As Go prints durations: `1h2m3.5s`, `1.5ms`, `0s`.
fn print_duration(nanos: i64) -> String {
    let total = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let fraction = |value: u64, unit: u64, suffix: &str| {
        let rest = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let rest = rest.trim_end_matches('0');
        match rest.is_empty() || unit == 1 {
            true => format!("{}{suffix}", value / unit),
            false => format!("{}.{rest}{suffix}", value / unit),
        }
    };
    let text = match total {
        0 => "0s".to_owned(),
        1..=999 => format!("{total}ns"),
        1_000..=999_999 => fraction(total, 1_000, "µs"),
        1_000_000..=999_999_999 => fraction(total, 1_000_000, "ms"),
        _ => {
            let (hours, minutes) = (total / 3_600_000_000_000, total / 60_000_000_000);
            let seconds = fraction(total % 60_000_000_000, 1_000_000_000, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, _) => format!("{minutes}m{seconds}"),
                _ => format!("{hours}h{}m{seconds}", minutes % 60),
            }
        }
    };
    format!("{sign}{text}")
}

fn props(node: Node<'_>, message: &Message, bytes: &[u8], room: Room<'_>) -> Result<Value> {
    let (Shape::PropsOrArray(index) | Shape::PropsOrBool(index) | Shape::PropsOrStrings(index)) =
        node.ty.shape
    else {
        return Ok(Value::Null);
    };
    let ty = crate::schema::Type::of(Shape::Message(index));
    let schema = |bytes: &[u8]| self::message(node.at_local(&ty), bytes, room);
    let (mut single, mut list, mut allows) = (None, Vec::new(), false);
    for entry in entries(&message.name, bytes) {
        match (&node.ty.shape, entry?) {
            (Shape::PropsOrBool(_), (1, Entry::Varint(value))) => allows = value != 0,
            (Shape::PropsOrBool(_), (2, Entry::Bytes(bytes))) => single = Some(schema(bytes)?),
            (_, (1, Entry::Bytes(bytes))) => single = Some(schema(bytes)?),
            (Shape::PropsOrStrings(_), (2, Entry::Bytes(text))) => {
                room.left.take_value(text.len())?;
                list.push(utf8(message, text)?.into());
            }
            (_, (2, Entry::Bytes(bytes))) => list.push(schema(bytes)?),
            _ => {}
        }
    }
    Ok(match (&node.ty.shape, single) {
        (_, Some(single)) => single,
        (Shape::PropsOrBool(_), None) => allows.into(),
        (_, None) => Value::Array(list),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_723_000_000_000, "1h2m3s"),
            (-1_000_000_000, "-1s"),
        ] {
            assert_eq!(print_duration(nanos), text);
        }
    }
}
