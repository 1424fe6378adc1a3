//! How the server's seats are parted among priority levels: by their shares, and by lending what one does not need to
//! another that does (pure).

/// What a level is given by its configuration, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub nominal: u32,
    /// What is left to it when it lends all that it may.
    pub lower: u32,
    /// What it has when it borrows all that it may.
    pub upper: u32,
}

/// A level's configuration, as far as seats are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    pub nominal: u32,
    pub lendable_percent: u32,
    pub borrowing_limit_percent: Option<u32>,
}

fn percent(of: u32, percent: u32) -> u32 {
    // To the nearest, halves up.
    let part = (u64::from(of) * u64::from(percent) + 50) / 100;
    u32::try_from(part).unwrap_or(u32::MAX)
}

pub fn limits(total: u32, all: &[Shares]) -> Vec<Limits> {
    let sum: u64 = all.iter().map(|s| u64::from(s.nominal)).sum();
    let of = |shares: &Shares| {
        let part = (u64::from(total) * u64::from(shares.nominal)).div_ceil(sum.max(1));
        let nominal = u32::try_from(part).unwrap_or(total);
        let upper = shares.borrowing_limit_percent.map(|p| nominal.saturating_add(percent(nominal, p)));
        Limits {
            nominal,
            lower: nominal - percent(nominal, shares.lendable_percent.min(100)),
            upper: upper.unwrap_or(total).max(nominal),
        }
    };
    all.iter().map(of).collect()
}

/// What a level has asked for lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub limits: Limits,
    /// The most seats that were wanted at once.
    pub peak: u32,
    /// The same over a longer time.
    pub smoothed: f64,
}

/// The seats of each level for now. Each has what it needs up to its nominal share for certain; what then is left is parted in
/// proportion to what is wanted.
pub fn part(total: u32, wanted: &[Wanted]) -> Vec<u32> {
    let item = |w: &Wanted| {
        // One seat at least for whoever has any: without one there is nobody whose end could be waited for.
        let floor = w.limits.lower.max(w.peak.max(1).min(w.limits.nominal));
        let target = w.smoothed.max(f64::from(floor)).max(0.001);
        (target, f64::from(floor), f64::from(w.limits.upper.max(floor)))
    };
    let items: Vec<(f64, f64, f64)> = wanted.iter().map(item).collect();
    let given = |factor: f64| items.iter().map(move |(t, low, high)| (factor * t).clamp(*low, *high));
    // The sum grows with the factor: it is closed in on.
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    let total = f64::from(total);
    while given(high).sum::<f64>() < total && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        match given(middle).sum::<f64>() < total {
            true => low = middle,
            false => high = middle,
        }
    }
    given(high).map(|seats| seats.round() as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(nominal: u32, lendable_percent: u32) -> Shares {
        Shares { nominal, lendable_percent, borrowing_limit_percent: None }
    }

    #[test]
    fn the_defaults_come_to_what_the_original_has_of_600_seats() {
        let all = [(5, 0), (20, 50), (10, 0), (40, 25), (30, 33), (40, 50), (100, 90)];
        let all: Vec<Shares> = all.into_iter().map(|(n, l)| shares(n, l)).collect();
        let told: Vec<(u32, u32)> = limits(600, &all).iter().map(|l| (l.nominal, l.lower)).collect();
        let original = [(13, 13), (49, 24), (25, 25), (98, 73), (74, 50), (98, 49), (245, 24)];
        assert_eq!(told, original);
    }

    #[test]
    fn what_is_borrowed_has_a_limit_of_its_own() {
        let of = |borrowing| {
            limits(100, &[Shares { borrowing_limit_percent: borrowing, ..shares(1, 0) }, shares(1, 0)])[0]
        };
        assert_eq!(of(None), Limits { nominal: 50, lower: 50, upper: 100 });
        assert_eq!(of(Some(0)).upper, 50);
        assert_eq!(of(Some(25)).upper, 63);
        assert_eq!(limits(100, &[shares(0, 0)]), [Limits { nominal: 0, lower: 0, upper: 100 }]);
        assert!(limits(100, &[]).is_empty());
    }

    fn parted(wanted: &[(u32, u32)]) -> Vec<u32> {
        let limits = limits(100, &[shares(50, 50), shares(50, 50)]);
        let wanted: Vec<Wanted> = wanted
            .iter()
            .zip(limits)
            .map(|((peak, smoothed), limits)| Wanted { limits, peak: *peak, smoothed: f64::from(*smoothed) })
            .collect();
        part(100, &wanted)
    }

    #[test]
    fn who_needs_more_borrows_and_who_lent_gets_it_back() {
        assert_eq!(parted(&[(0, 0), (0, 0)]), [50, 50]);
        assert_eq!(parted(&[(500, 500), (0, 0)]), [75, 25], "all that may be lent");
        assert_eq!(parted(&[(500, 500), (50, 50)]), [50, 50], "it is wanted back");
        assert_eq!(parted(&[(500, 500), (500, 500)]), [50, 50]);
        assert_eq!(parted(&[(500, 500), (40, 40)]), [60, 40]);
    }

    #[test]
    fn nobody_has_less_than_is_theirs_whatever_is_wanted() {
        for a in [0, 1, 7, 50, 99, 10_000] {
            for b in [0, 1, 7, 50, 99, 10_000] {
                let out = parted(&[(a, a), (b, b)]);
                assert!(out[0] >= 25.max(a.min(50)) && out[1] >= 25.max(b.min(50)), "{a} {b}: {out:?}");
                assert!(out.iter().sum::<u32>() <= 101, "{a} {b}: {out:?}");
            }
        }
    }
}
