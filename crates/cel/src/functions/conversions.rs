//! From one type to another.

use super::Row;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::time;
use crate::value::{Text, Value};

pub const ROWS: &[Row] = &[
    Row("bool(bool): bool", Cost::One, same),
    Row("bool(string): bool", Cost::One, to_bool),
    Row("bytes(bytes): bytes", Cost::One, same),
    Row("bytes(string): bytes", Cost::StringToBytes, to_bytes),
    Row("double(double): double", Cost::One, same),
    Row("double(int): double", Cost::One, to_double),
    Row("double(string): double", Cost::One, to_double),
    Row("double(uint): double", Cost::One, to_double),
    Row("duration(duration): duration", Cost::One, same),
    Row("duration(int): duration", Cost::One, to_duration),
    Row("duration(string): duration", Cost::One, to_duration),
    Row("dyn(A): dyn", Cost::One, same),
    Row("int(int): int", Cost::One, same),
    Row("int(double): int", Cost::One, to_int),
    Row("int(duration): int", Cost::One, to_int),
    Row("int(string): int", Cost::One, to_int),
    Row("int(timestamp): int", Cost::One, to_int),
    Row("int(uint): int", Cost::One, to_int),
    Row("string(string): string", Cost::One, same),
    Row("string(bool): string", Cost::One, to_string),
    Row("string(bytes): string", Cost::BytesToString, to_string),
    Row("string(double): string", Cost::One, to_string),
    Row("string(duration): string", Cost::One, to_string),
    Row("string(int): string", Cost::One, to_string),
    Row("string(timestamp): string", Cost::One, to_string),
    Row("string(uint): string", Cost::One, to_string),
    Row("timestamp(timestamp): timestamp", Cost::One, same),
    Row("timestamp(int): timestamp", Cost::One, to_timestamp),
    Row("timestamp(string): timestamp", Cost::One, to_timestamp),
    Row("type(A): type<A>", Cost::One, type_of),
    Row("uint(uint): uint", Cost::One, same),
    Row("uint(double): uint", Cost::One, to_uint),
    Row("uint(int): uint", Cost::One, to_uint),
    Row("uint(string): uint", Cost::One, to_uint),
];

fn same<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    args.first().cloned().ok_or_else(Fault::no_overload)
}

fn type_of<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    args.first().map(|value| Value::Type(value.type_name().into())).ok_or_else(Fault::no_overload)
}

fn to_bool<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::String(text)] = args else { return Err(Fault::no_overload()) };
    match &**text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
        other => Err(Fault::failed(format!("strconv.ParseBool: parsing {other:?}: invalid syntax"))),
    }
}

fn to_bytes<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::String(text)] = args else { return Err(Fault::no_overload()) };
    meter.text(text.len())?;
    Ok(Value::Bytes(text.as_bytes().into()))
}

fn to_double<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Double(match args {
        [Value::Int(n)] => *n as f64,
        [Value::Uint(n)] => *n as f64,
        [Value::String(text)] => match text.parse::<f64>() {
            Ok(n) => n,
            Err(_) => return Err(Fault::failed(parse_error("ParseFloat", text, false))),
        },
        _ => return Err(Fault::no_overload()),
    }))
}

fn parse_error(function: &str, text: &str, range: bool) -> String {
    let why = if range { "value out of range" } else { "invalid syntax" };
    format!("strconv.{function}: parsing {text:?}: {why}")
}

fn to_int<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Int(match args {
        // The bounds themselves are not numbers of both types.
        [Value::Double(n)] if *n > -(2f64.powi(63)) && *n < 2f64.powi(63) => *n as i64,
        [Value::Double(_)] => return Err(Fault::int_overflow()),
        [Value::Uint(n)] => i64::try_from(*n).map_err(|_| Fault::int_overflow())?,
        [Value::Duration(nanos)] => *nanos,
        [Value::Timestamp(t)] => time::to_second(*t),
        [Value::String(text)] => text.parse::<i64>().map_err(|error| {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            Fault::failed(parse_error("ParseInt", text, matches!(error.kind(), NegOverflow | PosOverflow)))
        })?,
        _ => return Err(Fault::no_overload()),
    }))
}

fn to_uint<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Uint(match args {
        [Value::Double(n)] if *n >= 0.0 && *n < 2f64.powi(64) => *n as u64,
        [Value::Double(_)] => return Err(Fault::uint_overflow()),
        [Value::Int(n)] => u64::try_from(*n).map_err(|_| Fault::uint_overflow())?,
        [Value::String(text)] => text.parse::<u64>().map_err(|error| {
            use std::num::IntErrorKind::PosOverflow;
            Fault::failed(parse_error("ParseUint", text, matches!(error.kind(), PosOverflow)))
        })?,
        _ => return Err(Fault::no_overload()),
    }))
}

fn to_duration<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Int(nanos)] => Ok(Value::Duration(*nanos)),
        [Value::String(text)] => time::parse_duration(text)
            .map(Value::Duration)
            .ok_or_else(|| Fault::failed(format!("time: invalid duration {:?}", &**text))),
        _ => Err(Fault::no_overload()),
    }
}

fn to_timestamp<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Int(second)] => time::from_second(*second)
            .map(Value::Timestamp)
            .ok_or_else(|| Fault::failed("timestamp overflow")),
        [Value::String(text)] => time::parse_timestamp(text).map(Value::Timestamp).ok_or_else(|| {
            let text = &**text;
            Fault::failed(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            ))
        }),
        _ => Err(Fault::no_overload()),
    }
}

fn to_string<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let text = match args {
        [Value::Bool(b)] => b.to_string(),
        [Value::Int(n)] => n.to_string(),
        [Value::Uint(n)] => n.to_string(),
        [Value::Double(n)] => print_double(*n),
        [Value::Duration(nanos)] => time::print_duration(*nanos),
        [Value::Timestamp(t)] => time::print_timestamp(*t),
        [Value::Bytes(bytes)] => {
            meter.text(bytes.len())?;
            match std::str::from_utf8(bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => return Err(Fault::failed("invalid UTF-8 in bytes, cannot convert to string")),
            }
        }
        _ => return Err(Fault::no_overload()),
    };
    Ok(Value::String(Text::from(text)))
}

/// The shortest form that reads back the same; with an exponent from 10⁶ on and below 10⁻⁴.
pub fn print_double(n: f64) -> String {
    if n.is_nan() {
        return "NaN".to_owned();
    }
    if n.is_infinite() {
        return if n > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{n:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{n}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
