//! How long a client is willing to wait, which it says with `?timeout=`. It is never longer than the server has set, and what
//! lasts for as long as a client likes has none.

use std::time::Duration;

use api::status::ApiError;

use super::query::Query;

/// The time that a request has, which is `most` unless it asks for less. What is no duration is refused.
pub fn of(query: &Query, most: Duration) -> Result<Duration, ApiError> {
    let text = query.get("timeout").unwrap_or_default();
    if text.is_empty() {
        return Ok(most);
    }
    let refuse =
        |why: String| ApiError::bad_request(format!("invalid timeout specified in the request URL - {why}"));
    let nanos = cel::time::parse_duration(text).ok_or_else(|| refuse(fault(text)))?;
    // None at all, or less, is no limit.
    let asked = u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
    Ok(asked.map_or(most, |asked| asked.min(most)))
}

/// What is wrong with a duration, as the original words it.
fn fault(text: &str) -> String {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        if !digits.contains(|c: char| c.is_ascii_digit()) || digits.matches('.').count() > 1 {
            break;
        }
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        match unit {
            "" => return format!("time: missing unit in duration {text:?}"),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => rest = after,
            unit => return format!("time: unknown unit {unit:?} in duration {text:?}"),
        }
    }
    format!("time: invalid duration {text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kube-apiserver v1.36.2 answers it.
    #[test]
    fn clients_say_how_long_they_wait() {
        let most = Duration::from_secs(60);
        let of = |text: &str| {
            super::of(&Query::parse(&format!("timeout={text}&timeout=x")), most)
                .map_err(|error| error.message)
        };
        assert_eq!(super::of(&Query::parse("a=b"), most), Ok(most));
        for (text, seconds) in
            [("", 60.0), ("0", 60.0), ("0s", 60.0), ("-1s", 60.0), ("2h", 60.0), ("61s", 60.0)]
        {
            assert_eq!(of(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(of("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(of("1.5s20ms"), Ok(Duration::from_millis(1520)));
        assert_eq!(of("1ns"), Ok(Duration::from_nanos(1)));
        for (text, why) in [
            ("x", "invalid duration \"x\""),
            ("%20", "invalid duration \" \""),
            (".s", "invalid duration \".s\""),
            ("99999999999999h", "invalid duration \"99999999999999h\""),
            ("5", "missing unit in duration \"5\""),
            ("1.5h3x", "unknown unit \"x\" in duration \"1.5h3x\""),
        ] {
            let why = format!("invalid timeout specified in the request URL - time: {why}");
            assert_eq!(of(text), Err(why), "{text}");
        }
    }
}
