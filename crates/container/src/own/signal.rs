//! Which signal asks a container to stop.

use std::path::Path;

use super::state;

/// The container's own, its image's, or SIGTERM.
pub fn stop_signal(directory: &Path) -> i32 {
    let config = state::read_config(directory).map(|record| record.config).unwrap_or_default();
    let name = config.stop_signal.or(config.image_config.stop_signal);
    name.and_then(|name| signal_number(&name)).unwrap_or(libc::SIGTERM)
}

/// `SIGTERM`, `TERM`, `15`, `RTMIN+3`.
fn signal_number(name: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 30] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("STKFLT", 16),
        ("CHLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("TTIN", 21),
        ("TTOU", 22),
        ("URG", 23),
        ("XCPU", 24),
        ("XFSZ", 25),
        ("VTALRM", 26),
        ("PROF", 27),
        ("WINCH", 28),
        ("IO", 29),
        ("PWR", 30),
    ];
    const RTMIN: i32 = 34;
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    match bare.strip_prefix("RTMIN") {
        Some("") => Some(RTMIN),
        Some(offset) => offset.strip_prefix('+')?.parse::<i32>().ok().map(|n| RTMIN + n).filter(|n| *n <= 64),
        None => NAMES.iter().find(|(known, _)| *known == bare).map(|(_, number)| *number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        let all =
            ["SIGTERM", "term", "15", "SIGRTMIN+3", "RTMIN", "99", "SIGNOPE", "RTMIN+99"].map(signal_number);
        assert_eq!(all, [Some(15), Some(15), Some(15), Some(37), Some(34), None, None, None]);
    }
}
