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
