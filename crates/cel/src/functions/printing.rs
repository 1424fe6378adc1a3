//! `format` and `strings.quote`.

use super::conversions::print_double;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::time;
use crate::value::{Text, Value};

const MAX_PRECISION: usize = 1000;
/// Lists within lists are printed so deep.
const MAX_DEPTH: u32 = 64;

pub fn quote<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::String(text)] = args else { return Err(Fault::no_overload()) };
    meter.text(text.len() * 2)?;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(Value::String(Text::from(out)))
}

pub fn format<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::String(template), Value::List(list)] = args else { return Err(Fault::no_overload()) };
    let values = list.items(meter)?;
    let mut values = values.iter().enumerate();
    let mut out = String::new();
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.next_if_eq(&'.').is_some() {
            let digits: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
            let n: usize = digits.parse().map_err(|_| {
                Fault::failed("error while parsing precision: error while converting precision to integer")
            })?;
            if n > MAX_PRECISION {
                let why = format!("precision {n} exceeds maximum allowed precision {MAX_PRECISION}");
                return Err(Fault::failed(format!("error while parsing precision: {why}")));
            }
            precision = Some(n);
        }
        let verb = chars.next().ok_or_else(|| Fault::failed("unexpected end of string"))?;
        let count = list.len();
        let (_, value) = values.next().ok_or_else(|| Fault::failed(format!("index {count} out of range")))?;
        let text = clause(meter, verb, precision, value)?;
        meter.grow(out.len(), text.len())?;
        out.push_str(&text);
    }
    Ok(Value::String(Text::from(out)))
}

fn clause(
    meter: &mut Meter,
    verb: char,
    precision: Option<usize>,
    value: &Value<'_>,
) -> Result<String, Fault> {
    Ok(match (verb, value) {
        ('s', value) => {
            let mut out = String::new();
            plain(meter, value, false, 0, &mut out)?;
            out
        }
        ('d', Value::Int(n)) => n.to_string(),
        ('d', Value::Uint(n)) => n.to_string(),
        ('f', Value::Double(n)) if n.is_finite() => format!("{n:.*}", precision.unwrap_or(6)),
        ('e', Value::Double(n)) if n.is_finite() => exponent(*n, precision.unwrap_or(6)),
        ('f' | 'e' | 'd', Value::Double(n)) if !n.is_finite() => if n.is_nan() {
            "NaN"
        } else if *n > 0.0 {
            "∞"
        } else {
            "-∞"
        }
        .to_owned(),
        ('b', Value::Bool(b)) => i32::from(*b).to_string(),
        ('b' | 'o' | 'x' | 'X', Value::Int(n)) => {
            let sign = if *n < 0 { "-" } else { "" };
            format!("{sign}{}", radix(verb, n.unsigned_abs()))
        }
        ('b' | 'o' | 'x' | 'X', Value::Uint(n)) => radix(verb, *n),
        ('x' | 'X', Value::String(text)) => hex(verb, text.as_bytes()),
        ('x' | 'X', Value::Bytes(bytes)) => hex(verb, bytes),
        ('d' | 'f' | 'e' | 'b' | 'o' | 'x' | 'X', other) => {
            return Err(Fault::failed(format!(
                "error during formatting: {}",
                wants(verb, other.type_name())
            )));
        }
        (other, _) => {
            let why = format!("unrecognized formatting clause \"{other}\"");
            return Err(Fault::failed(format!("could not parse formatting clause: {why}")));
        }
    })
}

fn wants(verb: char, got: &str) -> String {
    match verb {
        'd' => format!("decimal clause can only be used on integers, was given {got}"),
        'f' => format!("fixed-point clause can only be used on doubles, was given {got}"),
        'e' => format!("scientific clause can only be used on doubles, was given {got}"),
        'b' => format!("only integers and bools can be formatted as binary, was given {got}"),
        'o' => format!("octal clause can only be used on integers, was given {got}"),
        _ => format!("only integers, byte buffers, and strings can be formatted as hex, was given {got}"),
    }
}

fn radix(verb: char, n: u64) -> String {
    match verb {
        'b' => format!("{n:b}"),
        'o' => format!("{n:o}"),
        'x' => format!("{n:x}"),
        _ => format!("{n:X}"),
    }
}

fn hex(verb: char, bytes: &[u8]) -> String {
    let byte = |b: &u8| if verb == 'x' { format!("{b:02x}") } else { format!("{b:02X}") };
    bytes.iter().map(byte).collect()
}

/// `3.140000×10⁰⁰`
fn exponent(n: f64, precision: usize) -> String {
    let text = format!("{n:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("⁻", digits));
    let raised = |c: char| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(c.to_digit(10).unwrap_or(0) as usize).unwrap_or('⁰');
    let digits: String = format!("{digits:0>2}").chars().map(raised).collect();
    format!("{mantissa}×10{sign}{digits}")
}

fn plain(
    meter: &mut Meter,
    value: &Value<'_>,
    nested: bool,
    depth: u32,
    out: &mut String,
) -> Result<(), Fault> {
    meter.work(1)?;
    if depth > MAX_DEPTH {
        return Err(Fault::failed("error during formatting: nested too deeply"));
    }
    let text = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) if n.is_nan() => "NaN".to_owned(),
        Value::Double(n) if n.is_infinite() => if *n > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        Value::Double(n) => print_double(*n),
        Value::String(text) if nested => format!("\"{}\"", &**text),
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(t) => time::print_timestamp(*t),
        Value::Duration(nanos) => time::print_duration(*nanos),
        Value::Type(name) => name.to_string(),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.items(meter)?.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                plain(meter, item, true, depth + 1, out)?;
            }
            out.push(']');
            return Ok(());
        }
        Value::Map(map) => {
            out.push('{');
            for (index, key) in map.keys().iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                plain(meter, key, true, depth + 1, out)?;
                out.push(':');
                if let Some(key) = key.key()
                    && let Some(value) = map.get(&key)?
                {
                    plain(meter, &value, true, depth + 1, out)?;
                }
            }
            out.push('}');
            return Ok(());
        }
        Value::Optional(_) | Value::Opaque(_) => {
            let why = format!("no formatting function for {}", value.type_name());
            return Err(Fault::failed(format!("error during formatting: {why}")));
        }
    };
    meter.grow(out.len(), text.len())?;
    out.push_str(&text);
    Ok(())
}
