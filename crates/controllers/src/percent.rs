//! Numbers that may be given as a share of a total (`25%`).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

/// The number itself, or the share of `total`. What is not a share counts as nothing: validation has refused it.
pub fn scaled(value: &IntOrString, total: i32, round: Round) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|n| n.parse().ok()).unwrap_or(0);
            let product = percent.saturating_mul(i64::from(total));
            let share = match round {
                Round::Up => product.saturating_add(99) / 100,
                Round::Down => product / 100,
            };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_as_asked() {
        let percent = |text: &str| IntOrString::String(text.into());
        assert_eq!(scaled(&percent("25%"), 10, Round::Up), 3);
        assert_eq!(scaled(&percent("25%"), 10, Round::Down), 2);
        assert_eq!(scaled(&percent("100%"), 7, Round::Up), 7);
        assert_eq!(scaled(&IntOrString::Int(4), 7, Round::Down), 4);
    }
}
