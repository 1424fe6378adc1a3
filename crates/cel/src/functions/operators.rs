//! Arithmetic, comparison, membership, `size`.

use std::cmp::Ordering;

use super::Row;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::time;
use crate::value::{Text, Value, compare_numbers};

macro_rules! order {
    ($($a:literal $b:literal $cost:ident;)*) => {
        &[$(
            Row(concat!("_<_(", $a, ", ", $b, "): bool"), Cost::$cost, less),
            Row(concat!("_<=_(", $a, ", ", $b, "): bool"), Cost::$cost, less_or_equal),
            Row(concat!("_>_(", $a, ", ", $b, "): bool"), Cost::$cost, greater),
            Row(concat!("_>=_(", $a, ", ", $b, "): bool"), Cost::$cost, greater_or_equal),
        )*
        Row("_==_(A, A): bool", Cost::Compare, equal),
        Row("_!=_(A, A): bool", Cost::Compare, unequal),
        Row("@in(A, list<A>): bool", Cost::InList, in_list),
        Row("@in(A, map<A, B>): bool", Cost::One, in_map),
        Row("!_(bool): bool", Cost::One, not),
        Row("-_(int): int", Cost::One, negate),
        Row("-_(double): double", Cost::One, negate),
        Row("_+_(bytes, bytes): bytes", Cost::Concat, add),
        Row("_+_(double, double): double", Cost::One, add),
        Row("_+_(duration, duration): duration", Cost::One, add),
        Row("_+_(duration, timestamp): timestamp", Cost::One, add),
        Row("_+_(timestamp, duration): timestamp", Cost::One, add),
        Row("_+_(int, int): int", Cost::One, add),
        Row("_+_(list<A>, list<A>): list<A>", Cost::ConcatLists, add),
        Row("_+_(string, string): string", Cost::Concat, add),
        Row("_+_(uint, uint): uint", Cost::One, add),
        Row("_-_(double, double): double", Cost::One, subtract),
        Row("_-_(duration, duration): duration", Cost::One, subtract),
        Row("_-_(int, int): int", Cost::One, subtract),
        Row("_-_(timestamp, duration): timestamp", Cost::One, subtract),
        Row("_-_(timestamp, timestamp): duration", Cost::One, subtract),
        Row("_-_(uint, uint): uint", Cost::One, subtract),
        Row("_*_(double, double): double", Cost::One, multiply),
        Row("_*_(int, int): int", Cost::One, multiply),
        Row("_*_(uint, uint): uint", Cost::One, multiply),
        Row("_/_(double, double): double", Cost::One, divide),
        Row("_/_(int, int): int", Cost::One, divide),
        Row("_/_(uint, uint): uint", Cost::One, divide),
        Row("_%_(int, int): int", Cost::One, modulo),
        Row("_%_(uint, uint): uint", Cost::One, modulo),
        Row("bytes::size(): int", Cost::One, size),
        Row("list<A>::size(): int", Cost::One, size),
        Row("map<A, B>::size(): int", Cost::One, size),
        Row("string::size(): int", Cost::One, size),
        Row("size(bytes): int", Cost::One, size),
        Row("size(list<A>): int", Cost::One, size),
        Row("size(map<A, B>): int", Cost::One, size),
        Row("size(string): int", Cost::One, size),
        ]
    };
}

pub const ROWS: &[Row] = order! {
    "bool" "bool" One;
    "int" "int" One;
    "int" "double" One;
    "int" "uint" One;
    "uint" "uint" One;
    "uint" "double" One;
    "uint" "int" One;
    "double" "double" One;
    "double" "int" One;
    "double" "uint" One;
    "string" "string" Compare;
    "bytes" "bytes" Compare;
    "timestamp" "timestamp" One;
    "duration" "duration" One;
};

/// The order of two values of one kind.
pub fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, Fault> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Double(n), _) | (_, Value::Double(n)) if n.is_nan() => {
            return Err(Fault::failed("NaN values cannot be ordered"));
        }
        (a, b) => compare_numbers(a, b).ok_or_else(Fault::no_overload)?,
    })
}

fn compared<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Result<Value<'a>, Fault> {
    let [a, b] = args else { return Err(Fault::no_overload()) };
    Ok(Value::Bool(holds(order(a, b)?)))
}

fn less<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    compared(args, Ordering::is_lt)
}

fn less_or_equal<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    compared(args, Ordering::is_le)
}

fn greater<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    compared(args, Ordering::is_gt)
}

fn greater_or_equal<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    compared(args, Ordering::is_ge)
}

fn equal<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [a, b] = args else { return Err(Fault::no_overload()) };
    Ok(Value::Bool(a.equals(b, meter)?))
}

fn unequal<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [a, b] = args else { return Err(Fault::no_overload()) };
    Ok(Value::Bool(!a.equals(b, meter)?))
}

fn in_list<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [item, Value::List(list)] = args else { return Err(Fault::no_overload()) };
    Ok(Value::Bool(list.contains(item, meter)?))
}

fn in_map<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [key, Value::Map(map)] = args else { return Err(Fault::no_overload()) };
    let Some(key) = key.key() else { return Ok(Value::Bool(false)) };
    Ok(Value::Bool(map.get(&key)?.is_some()))
}

fn not<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Bool(b)] => Ok(Value::Bool(!b)),
        _ => Err(Fault::no_overload()),
    }
}

fn negate<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Int(n)] => n.checked_neg().map(Value::Int).ok_or_else(Fault::int_overflow),
        [Value::Double(n)] => Ok(Value::Double(-n)),
        _ => Err(Fault::no_overload()),
    }
}

fn timestamp_overflow() -> Fault {
    Fault::failed("timestamp overflow")
}

fn duration_overflow() -> Fault {
    Fault::failed("duration overflow")
}

fn add<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_add(*b).ok_or_else(Fault::int_overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_add(*b).ok_or_else(Fault::uint_overflow)?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a + b),
        [Value::String(a), Value::String(b)] => {
            meter.text(a.len() + b.len())?;
            Value::String(Text::from(format!("{}{}", &**a, &**b)))
        }
        [Value::Bytes(a), Value::Bytes(b)] => {
            meter.text(a.len() + b.len())?;
            Value::Bytes([&**a, &**b].concat().into())
        }
        [Value::List(a), Value::List(b)] => Value::List(a.concat(b, meter)?),
        [Value::Duration(a), Value::Duration(b)] => {
            Value::Duration(a.checked_add(*b).ok_or_else(duration_overflow)?)
        }
        [Value::Timestamp(t), Value::Duration(d)] | [Value::Duration(d), Value::Timestamp(t)] => {
            Value::Timestamp(time::add(*t, *d).ok_or_else(timestamp_overflow)?)
        }
        _ => return Err(Fault::no_overload()),
    })
}

fn subtract<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_sub(*b).ok_or_else(Fault::int_overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_sub(*b).ok_or_else(Fault::uint_overflow)?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a - b),
        [Value::Duration(a), Value::Duration(b)] => {
            Value::Duration(a.checked_sub(*b).ok_or_else(duration_overflow)?)
        }
        [Value::Timestamp(t), Value::Duration(d)] => {
            let back = d.checked_neg().ok_or_else(duration_overflow)?;
            Value::Timestamp(time::add(*t, back).ok_or_else(timestamp_overflow)?)
        }
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            Value::Duration(time::between(*a, *b).ok_or_else(duration_overflow)?)
        }
        _ => return Err(Fault::no_overload()),
    })
}

fn multiply<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_mul(*b).ok_or_else(Fault::int_overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_mul(*b).ok_or_else(Fault::uint_overflow)?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a * b),
        _ => return Err(Fault::no_overload()),
    })
}

fn divide<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            return Err(Fault::failed("division by zero"));
        }
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_div(*b).ok_or_else(Fault::int_overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a / b),
        [Value::Double(a), Value::Double(b)] => Value::Double(a / b),
        _ => return Err(Fault::no_overload()),
    })
}

fn modulo<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            return Err(Fault::failed("modulus by zero"));
        }
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_rem(*b).ok_or_else(Fault::int_overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a % b),
        _ => return Err(Fault::no_overload()),
    })
}

fn size<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [value] => Ok(Value::Int(i64::try_from(value.size()).unwrap_or(i64::MAX))),
        _ => Err(Fault::no_overload()),
    }
}
