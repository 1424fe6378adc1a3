//! Documents as protobuf, in the messages of gnostic: what JSON says, in a third of the time to read.

pub mod v2;
pub mod v3;

/// A message within a message, also where it is empty.
fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    write(&mut body);
    tag(out, field, 2);
    varint(out, body.len() as u64);
    out.append(&mut body);
}

/// Text, unless there is none.
fn text(out: &mut Vec<u8>, field: u32, text: Option<&str>) {
    if let Some(text) = text.filter(|t| !t.is_empty()) {
        present_text(out, field, text);
    }
}

/// Text that says something also where it is empty.
fn present_text(out: &mut Vec<u8>, field: u32, text: &str) {
    tag(out, field, 2);
    varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn flag(out: &mut Vec<u8>, field: u32, on: bool) {
    tag(out, field, 0);
    out.push(u8::from(on));
}

fn integer(out: &mut Vec<u8>, field: u32, number: i64) {
    tag(out, field, 0);
    varint(out, number.cast_unsigned());
}

fn double(out: &mut Vec<u8>, field: u32, number: f64) {
    tag(out, field, 1);
    out.extend_from_slice(&number.to_le_bytes());
}

fn tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
