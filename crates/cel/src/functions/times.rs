//! The parts of timestamps and durations.

use jiff::Zoned;

use super::Row;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::time;
use crate::value::Value;

macro_rules! parts {
    ($($name:literal $native:ident;)*) => {
        &[$(
            Row(concat!("timestamp::", $name, "(): int"), Cost::One, $native),
            Row(concat!("timestamp::", $name, "(string): int"), Cost::One, $native),
        )*
        Row("duration::getHours(): int", Cost::One, hours),
        Row("duration::getMinutes(): int", Cost::One, minutes),
        Row("duration::getSeconds(): int", Cost::One, seconds),
        Row("duration::getMilliseconds(): int", Cost::One, milliseconds),
        ]
    };
}

pub const ROWS: &[Row] = parts! {
    "getFullYear" full_year;
    "getMonth" month;
    "getDayOfYear" day_of_year;
    "getDayOfMonth" day_of_month;
    "getDate" date;
    "getDayOfWeek" day_of_week;
    "getHours" hours;
    "getMinutes" minutes;
    "getSeconds" seconds;
    "getMilliseconds" milliseconds;
};

fn part<'a>(
    args: &[Value<'a>],
    of_time: fn(&Zoned) -> i64,
    nanos_per_unit: Option<i64>,
) -> Result<Value<'a>, Fault> {
    let zone = match args.get(1) {
        None => jiff::tz::TimeZone::UTC,
        Some(Value::String(name)) => {
            time::zone(name).ok_or_else(|| Fault::failed(format!("unknown time zone {}", &**name)))?
        }
        Some(_) => return Err(Fault::no_overload()),
    };
    match (args.first(), nanos_per_unit) {
        (Some(Value::Timestamp(t)), _) => Ok(Value::Int(of_time(&t.to_zoned(zone)))),
        (Some(Value::Duration(nanos)), Some(unit)) => Ok(Value::Int(nanos / unit)),
        _ => Err(Fault::no_overload()),
    }
}

fn full_year<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    part(args, |t| i64::from(t.year()), None)
}

fn month<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    part(args, |t| i64::from(t.month()) - 1, None)
}

fn day_of_year<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    part(args, |t| i64::from(t.day_of_year()) - 1, None)
}

fn day_of_month<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    part(args, |t| i64::from(t.day()) - 1, None)
}

fn date<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    part(args, |t| i64::from(t.day()), None)
}

fn day_of_week<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    part(args, |t| i64::from(t.weekday().to_sunday_zero_offset()), None)
}

fn hours<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    part(args, |t| i64::from(t.hour()), Some(3_600_000_000_000))
}

fn minutes<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    part(args, |t| i64::from(t.minute()), Some(60_000_000_000))
}

fn seconds<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    part(args, |t| i64::from(t.second()), Some(1_000_000_000))
}

fn milliseconds<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    part(args, |t| i64::from(t.millisecond()), Some(1_000_000))
}
