//! Durations as Flux's fields spell them: `1m30s`, `2h`, `500ms`.

use std::time::Duration;

pub fn parse(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let number: f64 = number.parse().ok()?;
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = after;
    }
    (!text.trim().is_empty()).then_some(total)
}

/// The field's duration, or `otherwise` when it is absent or cannot be read (its schema refuses the latter).
pub fn or(text: Option<&str>, otherwise: Duration) -> Duration {
    text.and_then(parse).filter(|d| !d.is_zero()).unwrap_or(otherwise)
}

/// As Go writes it, and so Flux: `30s`, `1m30s`, `500ms`.
pub fn show(duration: Duration) -> String {
    let whole = duration.as_secs();
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    let fraction = match duration.subsec_millis() {
        0 => String::new(),
        ms => format!(".{ms:03}").trim_end_matches('0').to_owned(),
    };
    match (hours, minutes) {
        (0, 0) if whole == 0 && !fraction.is_empty() => format!("{}ms", duration.subsec_millis()),
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, _) => format!("{minutes}m{seconds}{fraction}s"),
        _ => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_they_are() {
        for (text, shown) in
            [("500ms", "500ms"), ("1.5s", "1.5s"), ("90s", "1m30s"), ("1h", "1h0m0s"), ("30s", "30s")]
        {
            assert_eq!(parse(text).map(show).as_deref(), Some(shown));
        }
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(parse("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(parse("500ms"), Some(Duration::from_millis(500)));
        assert_eq!((parse("10"), parse(""), parse("x"), parse("5d")), (None, None, None, None));
    }
}
