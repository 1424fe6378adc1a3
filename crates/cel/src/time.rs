//! Timestamps and durations as CEL writes, reads and reckons with them.

use jiff::Timestamp;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const MIN_SECOND: i64 = -62_135_596_800;
const MAX_SECOND: i64 = 253_402_300_799;

/// A timestamp within the years 1 to 9999.
pub fn in_range(time: Timestamp) -> Option<Timestamp> {
    (MIN_SECOND..=MAX_SECOND).contains(&floor_second(time)).then_some(time)
}

fn floor_second(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond().div_euclid(i128::from(NANOS_PER_SECOND))).unwrap_or(0)
}

pub fn from_second(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok().and_then(in_range)
}

/// Seconds since the epoch.
pub fn to_second(time: Timestamp) -> i64 {
    floor_second(time)
}

/// RFC 3339: a date, `T`, a time with a zone.
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let sign = |at: usize, c: u8| bytes.get(at) == Some(&c);
    let shaped = digits(0..4)
        && sign(4, b'-')
        && digits(5..7)
        && sign(7, b'-')
        && digits(8..10)
        && sign(10, b'T')
        && digits(11..13)
        && sign(13, b':')
        && digits(14..16)
        && sign(16, b':')
        && digits(17..19);
    let rest = bytes.get(19..)?;
    let zone = match rest.first() {
        Some(b'.') => {
            let fraction = rest.iter().skip(1).take_while(|b| b.is_ascii_digit()).count();
            rest.get(1 + fraction..).filter(|_| fraction > 0)?
        }
        _ => rest,
    };
    let zoned = zone == b"Z"
        || (zone.len() == 6 && matches!(zone.first(), Some(b'+' | b'-')) && zone.get(3) == Some(&b':'));
    if !shaped || !zoned || sign(17, b'6') {
        return None;
    }
    // More digits than nanoseconds have are cut off.
    let (head, fraction_and_zone) = text.split_at(19);
    let cut = fraction_and_zone.len() - zone.len();
    let fraction: String = fraction_and_zone.chars().take(cut.min(10)).collect();
    let zone = fraction_and_zone.get(cut..)?;
    format!("{head}{fraction}{zone}").parse().ok().and_then(in_range)
}

/// `2026-01-02T03:04:05.5Z`: as many digits of the fraction as are needed.
pub fn print_timestamp(time: Timestamp) -> String {
    let utc = time.to_zoned(jiff::tz::TimeZone::UTC);
    let head = utc.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let nanos = time.as_nanosecond().rem_euclid(i128::from(NANOS_PER_SECOND));
    match nanos {
        0 => format!("{head}Z"),
        _ => format!("{head}.{}Z", format!("{nanos:09}").trim_end_matches('0')),
    }
}

/// `1h30m`, `-1.5s`, `300ms`; nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || rest.len() > 200 {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let fraction: String = fraction.chars().take(18).collect();
        let digits = u32::try_from(fraction.len()).ok()?;
        let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        total = total.checked_add(part.checked_mul(scale)? / 10i128.pow(digits))?;
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Seconds with their fraction: `90s`, `0.5s`.
pub fn print_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    match rest {
        0 => format!("{sign}{seconds}s"),
        _ => format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0')),
    }
}

pub fn add(time: Timestamp, nanos: i64) -> Option<Timestamp> {
    let sum = time.as_nanosecond().checked_add(i128::from(nanos))?;
    Timestamp::from_nanosecond(sum).ok().and_then(in_range)
}

pub fn between(later: Timestamp, earlier: Timestamp) -> Option<i64> {
    i64::try_from(later.as_nanosecond() - earlier.as_nanosecond()).ok()
}

/// A zone by name, or an offset such as `+02:00`.
pub fn zone(name: &str) -> Option<jiff::tz::TimeZone> {
    if matches!(name, "" | "UTC" | "Z") {
        return Some(jiff::tz::TimeZone::UTC);
    }
    if let Some((hours, minutes)) = name.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.trim_start_matches(['-', '+']).parse().ok()?;
        let minutes: i32 = minutes.parse().ok().filter(|m| (0..60).contains(m))?;
        let seconds = hours.checked_mul(3600)?.checked_add(minutes * 60)?;
        let offset = jiff::tz::Offset::from_seconds(if negative { -seconds } else { seconds }).ok()?;
        return Some(jiff::tz::TimeZone::fixed(offset));
    }
    jiff::tz::TimeZone::get(name).ok()
}
