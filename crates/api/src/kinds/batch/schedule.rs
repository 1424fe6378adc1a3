//! The five fields of a cron schedule (minute, hour, day of month, month, day of week) and the `@` words: whether a text
//! is one.

struct Field {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 5] = [
    Field { low: 0, high: 59, names: &[] },
    Field { low: 0, high: 23, names: &[] },
    Field { low: 1, high: 31, names: &[] },
    Field { low: 1, high: 12, names: MONTHS },
    Field { low: 0, high: 6, names: DAYS },
];

/// `Local` is the zone of the machine, whatever that is.
pub fn is_zone(name: &str) -> bool {
    name == "Local" || base::zones::get(name).is_some()
}

/// What is wrong with a schedule.
pub fn check(text: &str) -> Result<(), String> {
    let zoned = ["TZ=", "CRON_TZ="].iter().find_map(|prefix| text.strip_prefix(prefix));
    let rest = match zoned.map(|zoned| zoned.split_once(' ')) {
        None => text,
        // The original stumbles, and says so.
        Some(None) => {
            return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".to_owned());
        }
        Some(Some((zone, _))) if !zone.is_empty() && !is_zone(zone) => {
            return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        Some(Some((_, rest))) => rest.trim(),
    };
    if rest.starts_with('@') {
        return check_word(rest);
    }
    let parts: Vec<&str> = rest.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: {}", parts.len(), go_list(&parts)));
    }
    for (part, field) in parts.iter().zip(&FIELDS) {
        for piece in part.split(',').filter(|p| !p.is_empty()) {
            check_piece(piece, field)?;
        }
    }
    Ok(())
}

fn go_list(parts: &[&str]) -> String {
    format!("[{}]", parts.join(" "))
}

fn check_word(word: &str) -> Result<(), String> {
    const WORDS: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    match word.strip_prefix("@every ") {
        Some(duration) if is_duration(duration) => Ok(()),
        Some(duration) => {
            Err(format!("failed to parse duration {word}: time: invalid duration {duration:?}"))
        }
        None if WORDS.contains(&word) => Ok(()),
        None => Err(format!("unrecognized descriptor: {word}")),
    }
}

/// Numbers with units, as `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let unit = &rest[digits..unit_end];
        if digits == 0 || !matches!(unit, "ns" | "us" | "µs" | "ms" | "s" | "m" | "h") {
            return false;
        }
        any = true;
        rest = &rest[unit_end..];
    }
    any
}

/// `*`, `a`, `a-b`, each with `/step`.
fn check_piece(piece: &str, field: &Field) -> Result<(), String> {
    let (span, step) = match piece.split_once('/') {
        Some((_, step)) if step.contains('/') => return Err(format!("too many slashes: {piece}")),
        Some((span, step)) => (span, Some(step)),
        None => (piece, None),
    };
    let (start, end) = match span {
        "*" | "?" => (field.low, field.high),
        span => {
            let (low, high) = span.split_once('-').unwrap_or((span, span));
            if high.contains('-') {
                return Err(format!("too many hyphens: {piece}"));
            }
            let start = number(low, field)?;
            let end = if span.contains('-') { number(high, field)? } else { start };
            (start, if step.is_some() && !span.contains('-') { field.high } else { end })
        }
    };
    if let Some(step) = step
        && plain(step)? == 0
    {
        return Err(format!("step of range should be a positive number: {piece}"));
    }
    let (low, high) = (field.low, field.high);
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {piece}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {piece}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {piece}"));
    }
    Ok(())
}

fn number(text: &str, field: &Field) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    match field.names.iter().zip(field.low..).find(|(name, _)| **name == lower) {
        Some((_, value)) => Ok(value),
        None => plain(text),
    }
}

fn plain(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_five_fields_or_a_word() {
        for good in [
            "* * * * *",
            "*/5 0-6 1,15 jan-mar MON",
            "@daily",
            "@every 1h30m",
            "0 0 31 12 0",
            "TZ=UTC 0 1 * * *",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, fault) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@never", "unrecognized descriptor: @never"),
            ("TZ=Mars/X * * * * *", "provided bad location Mars/X: unknown time zone Mars/X"),
            ("CRON_TZ=UTC", "invalid schedule format: runtime error: slice bounds out of range [:-1]"),
        ] {
            assert_eq!(check(bad), Err(fault.to_owned()), "{bad}");
        }
    }
}
