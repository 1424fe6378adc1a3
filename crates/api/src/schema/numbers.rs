//! Numbers as the original reads and writes them.

/// The largest number up to which every whole one can be told from its neighbours.
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;
/// What a quotient may be off by.
const EPSILON: f64 = 1e-9;

/// Whether a float counts as a whole number, as far as floats can say.
pub fn is_whole(number: f64) -> bool {
    if !number.is_finite() || number.abs() > MAX_EXACT {
        return false;
    }
    let nearest = number.round();
    let off = (number - nearest).abs();
    off == 0.0 || nearest != 0.0 && off / (number.abs() + nearest.abs()) < EPSILON
}

/// As `%v` writes a float: the shortest text that is read as the same, with an exponent where it is far from one.
pub fn go_float(number: f64) -> String {
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number == 0.0 || (-4..21).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (number, text) in [
            (1.0, "1"),
            (1.5, "1.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-2.5e30, "-2.5e+30"),
        ] {
            assert_eq!(go_float(number), text);
        }
    }

    #[test]
    fn quotients_are_whole_that_floats_cannot_tell_from_it() {
        assert!(is_whole(4.0) && is_whole(0.0) && is_whole(-3.0) && is_whole(1.0 / 0.01 * 19.99));
        assert!(!is_whole(0.5) && !is_whole(1e17));
    }
}
