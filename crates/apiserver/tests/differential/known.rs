//! `known.txt`: the answers that differ, and why. A line names a step as `kind/case/step`, where in the answer the
//! difference lies (`code`, `warnings`, paths in the body that begin with a dot), and the reason; what lies elsewhere is
//! compared all the same. A line without places takes the whole step.

use std::collections::BTreeMap;

use testkit::differential::record::Difference;

/// What is known of a step.
struct Entry {
    /// Empty: anything may differ.
    places: Vec<String>,
    /// The places that differed, or `""` for the whole.
    met: Vec<String>,
}

pub struct Known {
    steps: BTreeMap<String, Entry>,
}

impl Known {
    pub fn read() -> Self {
        let path = super::folder().join("known.txt");
        Self::parse(&std::fs::read_to_string(path).expect("known.txt"))
    }

    fn parse(text: &str) -> Self {
        let mut steps = BTreeMap::new();
        for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
            let (what, _) = line.split_once(": ").unwrap_or_else(|| panic!("no reason given: {line}"));
            let (step, places) = what.split_once(" @ ").unwrap_or((what, ""));
            let places = places.split_whitespace().map(str::to_owned).collect();
            let earlier = steps.insert(step.to_owned(), Entry { places, met: Vec::new() });
            assert!(earlier.is_none(), "named twice: {step}");
        }
        Self { steps }
    }

    /// The steps that are known to differ.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.steps.keys().map(String::as_str)
    }

    /// What of a step's differences is not known.
    pub fn without(&mut self, step: &str, found: Vec<Difference>) -> Vec<Difference> {
        let Some(entry) = self.steps.get_mut(step) else { return found };
        if entry.places.is_empty() {
            if !found.is_empty() {
                entry.met.push(String::new());
            }
            return Vec::new();
        }
        let (known, left): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|d| entry.places.iter().any(|place| d.is_below(place)));
        let places = entry.places.iter().filter(|place| known.iter().any(|d| d.is_below(place)));
        entry.met.extend(places.cloned());
        left
    }

    /// What is known of the steps that `asked` names and was not met.
    pub fn unmet(&self, asked: impl Fn(&str) -> bool) -> Vec<String> {
        let mut out = Vec::new();
        for (step, entry) in self.steps.iter().filter(|(step, _)| asked(step)) {
            if entry.places.is_empty() && entry.met.is_empty() {
                out.push(step.clone());
            }
            let unmet = entry.places.iter().filter(|place| !entry.met.contains(place));
            out.extend(unmet.map(|place| format!("{step} @ {place}")));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: &str) -> Difference {
        Difference { at: place.into(), what: String::new() }
    }

    #[test]
    fn what_is_known_hides_nothing_else() {
        let mut known = Known::parse(
            "# a comment\nk.v1/life/get table @ .rows[0].cells[2] warnings: why\nk.v1/life/list: all\n",
        );
        let found = vec![at(".rows[0].cells[2]"), at(".rows[0].cells[3]")];
        assert_eq!(known.without("k.v1/life/get table", found), [at(".rows[0].cells[3]")]);
        assert_eq!(known.without("k.v1/life/list", vec![at("code")]), []);
        assert_eq!(known.without("k.v1/life/get", vec![at("code")]), [at("code")]);
        assert_eq!(known.unmet(|_| true), ["k.v1/life/get table @ warnings"]);
        assert!(known.unmet(|step| step.ends_with("list")).is_empty());
    }
}
