//! Values that may be absent.

use super::Row;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::value::Value;

pub const ROWS: &[Row] = &[
    Row("optional.of(A): optional<A>", Cost::One, of),
    Row("optional.ofNonZeroValue(A): optional<A>", Cost::One, of_non_zero),
    Row("optional.none(): optional<A>", Cost::One, none),
    Row("optional.unwrap(list<optional<A>>): list<A>", Cost::One, unwrap),
    Row("list<optional<A>>::unwrapOpt(): list<A>", Cost::One, unwrap),
    Row("optional<A>::value(): A", Cost::One, value),
    Row("optional<A>::hasValue(): bool", Cost::One, has_value),
    // Neither is a call to the original's count: they choose.
    Row("optional<A>::or(optional<A>): optional<A>", Cost::Fixed(0), or),
    Row("optional<A>::orValue(A): A", Cost::Fixed(0), or_value),
    Row("list<A>::first(): optional<A>", Cost::One, first),
    Row("list<A>::last(): optional<A>", Cost::One, last),
];

fn of<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    args.first().cloned().map(Value::some).ok_or_else(Fault::no_overload)
}

fn of_non_zero<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [value] = args else { return Err(Fault::no_overload()) };
    let zero = match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Int(n) => *n == 0,
        Value::Uint(n) => *n == 0,
        Value::Double(n) => *n == 0.0,
        Value::Duration(n) => *n == 0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Optional(inner) => inner.is_none(),
        _ => false,
    };
    Ok(if zero { Value::Optional(None) } else { Value::some(value.clone()) })
}

fn none<'a>(_: &mut Meter, _: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Optional(None))
}

fn unwrap<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::List(list)] = args else { return Err(Fault::no_overload()) };
    let mut out = Vec::new();
    for item in list.items(meter)? {
        match item {
            Value::Optional(Some(inner)) => out.push((*inner).clone()),
            Value::Optional(None) => {}
            other => {
                return Err(Fault::failed(format!("value of type {} is not optional", other.type_name())));
            }
        }
    }
    Ok(Value::list(out))
}

fn value<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Optional(Some(inner))] => Ok((**inner).clone()),
        [Value::Optional(None)] => Err(Fault::failed("optional.none() dereference")),
        _ => Err(Fault::no_overload()),
    }
}

fn has_value<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Optional(inner)] => Ok(Value::Bool(inner.is_some())),
        _ => Err(Fault::no_overload()),
    }
}

fn or<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Optional(None), other] => Ok(other.clone()),
        [held @ Value::Optional(_), _] => Ok(held.clone()),
        _ => Err(Fault::no_overload()),
    }
}

fn or_value<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    match args {
        [Value::Optional(Some(inner)), _] => Ok((**inner).clone()),
        [Value::Optional(None), other] => Ok(other.clone()),
        _ => Err(Fault::no_overload()),
    }
}

fn end<'a>(args: &[Value<'a>], last: bool) -> Result<Value<'a>, Fault> {
    let [Value::List(list)] = args else { return Err(Fault::no_overload()) };
    let index = if last { list.len().saturating_sub(1) } else { 0 };
    match list.get(index) {
        Some(item) => Ok(Value::some(item?)),
        None => Ok(Value::Optional(None)),
    }
}

fn first<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    end(args, false)
}

fn last<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    end(args, true)
}
