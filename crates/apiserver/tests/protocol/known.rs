//! Differences that are known, each with its reason: `suite/step: why`. One that is not known fails, and so does one that is
//! known and gone.

use std::collections::BTreeMap;

use serde_json::Value;

pub struct Known {
    suite: String,
    reasons: BTreeMap<String, String>,
    unknown: Vec<String>,
    count: usize,
}

impl Known {
    pub fn of(suite: &str) -> Self {
        let text = std::fs::read_to_string(crate::folder().join("known.txt")).expect("known.txt");
        let prefix = format!("{suite}/");
        let lines =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|l| l.strip_prefix(&prefix));
        let parted = |line: &str| {
            let (step, why) = line.split_once(": ").unwrap_or_else(|| panic!("no reason given: {line}"));
            (step.to_owned(), why.to_owned())
        };
        Self { suite: suite.to_owned(), reasons: lines.map(parted).collect(), unknown: Vec::new(), count: 0 }
    }

    /// Takes what was found at a step: nothing, or how it differs. A name that ends with `*` is of all that begin so.
    pub fn found(&mut self, step: &str, difference: Option<String>) {
        self.count += 1;
        let reason = self.reasons.keys().find(|name| match name.strip_suffix('*') {
            Some(start) => step.starts_with(start),
            None => *name == step,
        });
        match (difference, reason.cloned()) {
            (None, None) => {}
            (Some(difference), None) => self.unknown.push(format!("{}/{step}: {difference}", self.suite)),
            (Some(_), Some(_)) => {}
            (None, Some(name)) if name.ends_with('*') => {}
            (None, Some(name)) => self.unknown.push(format!("{}/{name}: is no more", self.suite)),
        }
    }

    pub fn end(self) {
        println!("{}: {} compared", self.suite, self.count);
        assert!(self.count > 0, "{}: nothing was compared", self.suite);
        assert!(self.unknown.is_empty(), "{} differ:\n{}", self.unknown.len(), self.unknown.join("\n"));
    }
}

/// Each place where two answers differ.
pub fn differences(path: &str, theirs: &Value, ours: &Value, out: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                differences(&format!("{path}.{key}"), &theirs[key], &ours[key], out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter()
                .zip(b)
                .enumerate()
                .for_each(|(i, (a, b))| differences(&format!("{path}[{i}]"), a, b, out));
        }
        (a, b) if a != b => {
            let short = |v: &Value| v.to_string().chars().take(300).collect::<String>();
            out.push(format!("{path}: {}, ours {}", short(a), short(b)));
        }
        _ => {}
    }
}
