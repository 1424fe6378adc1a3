//! Time as the API spells it: RFC 3339 in UTC, whole seconds (`Time`) or microseconds (`MicroTime`).

use jiff::Timestamp;

pub fn now() -> Timestamp {
    Timestamp::now()
}

/// `2026-11-20T12:00:00Z`
pub fn rfc3339_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-11-20T12:00:00.123456Z`
pub fn rfc3339_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// `2026-11-20T12:00:00.123456789Z`, the form of a container log's lines.
pub fn rfc3339_nanos(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// A duration as Go prints it: `1m20s`, `1.5s`, `250ms`, `1.25µs`, `0s`.
pub fn go_duration(duration: std::time::Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |scale: u128, digits: usize, unit: &str| {
        let part = format!("{:0digits$}", nanos % scale);
        let part = part.trim_end_matches('0');
        let dot = if part.is_empty() { "" } else { "." };
        (nanos / scale, format!("{dot}{part}{unit}"))
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => {
            let (whole, rest) = fraction(1_000, 3, "µs");
            format!("{whole}{rest}")
        }
        1_000_000..1_000_000_000 => {
            let (whole, rest) = fraction(1_000_000, 6, "ms");
            format!("{whole}{rest}")
        }
        _ => {
            let (seconds, rest) = fraction(1_000_000_000, 9, "s");
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}{rest}"),
                (0, _) => format!("{minutes}m{seconds}{rest}"),
                _ => format!("{hours}h{minutes}m{seconds}{rest}"),
            }
        }
    }
}

/// An age as kubectl prints it: the two largest units that matter (`5s`, `3m20s`, `4h5m`, `2d3h`, `40d`, `2y3d`).
pub fn human_age(seconds: i64) -> String {
    let s = seconds.max(0);
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    let two = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match s {
        _ if s < 120 => format!("{s}s"),
        _ if m < 10 => two(m, 'm', s % 60, 's'),
        _ if m < 180 => format!("{m}m"),
        _ if h < 8 => two(h, 'h', m % 60, 'm'),
        _ if h < 48 => format!("{h}h"),
        _ if d < 8 => two(d, 'd', h % 24, 'h'),
        _ if d < 365 * 2 => format!("{d}d"),
        _ if d < 365 * 8 => two(d / 365, 'y', d % 365, 'd'),
        _ => format!("{}y", d / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        let check = |nanos: u64, expected: &str| {
            assert_eq!(go_duration(std::time::Duration::from_nanos(nanos)), expected);
        };
        check(0, "0s");
        check(7, "7ns");
        check(1_250, "1.25µs");
        check(250_000_000, "250ms");
        check(1_000_001, "1.000001ms");
        check(1_500_250_000, "1.50025s");
        check(80_000_000_000, "1m20s");
        check(300_000_000_000, "5m0s");
        check(3_600_000_000_001, "1h0m0.000000001s");
    }

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let ages: Vec<String> =
            [0, 119, 120, 605, 7200, 10_800, 36_000, 200_000, 900_000].map(human_age).into();
        assert_eq!(ages, ["0s", "119s", "2m", "10m", "120m", "3h", "10h", "2d7h", "10d"]);
    }

    #[test]
    fn times_are_spelled_in_utc() {
        let time = Timestamp::from_nanosecond(1_700_000_000_123_456_789).expect("in range");
        assert_eq!(rfc3339_seconds(time), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339_micros(time), "2023-11-14T22:13:20.123456Z");
        assert_eq!(rfc3339_nanos(time), "2023-11-14T22:13:20.123456789Z");
    }
}
