//! Patterns of schemas. What is wrong with one is said when the schema is taken; it is compiled when a text is first held
//! against it, and kept for a while with those of all other schemas: together they take no more than so much.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::functions::patterns::translate;
use cel::functions::weight::weigh;
use regex::{Regex, RegexBuilder};

/// What all patterns of a definition may weigh together, in states of their automata. That is a tenth of a second to
/// compile and some ten megabytes.
pub const WEIGHT_LIMIT: usize = 1 << 21;
/// What patterns that are kept weigh together at most; then all are let go.
const KEPT_WEIGHT: usize = 4 * WEIGHT_LIMIT;
/// What the shortest pattern weighs once it is kept: there may be millions of them.
const LEAST_KEPT_WEIGHT: usize = 4096;
/// What each thread that holds texts against a pattern may remember of where its automaton went.
const REMEMBERED_BYTES: usize = 64 << 10;
/// More than any pattern of the allowed weight takes.
const SIZE_LIMIT_BYTES: usize = 256 << 20;

/// One pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As it was given.
    pub text: Box<str>,
    pub weight: usize,
}

/// Reads the patterns of a definition, in the schemas of all its versions. One that is there many times counts once.
#[derive(Debug, Default)]
pub struct Patterns {
    known: HashMap<Box<str>, Result<usize, String>>,
    pub weight: usize,
}

impl Patterns {
    pub fn read(&mut self, text: &str) -> Result<Pattern, String> {
        let weight = match self.known.get(text) {
            Some(known) => known.clone()?,
            None => {
                let weight = translate(text).and_then(|translated| weigh(&translated, WEIGHT_LIMIT));
                self.known.insert(text.into(), weight.clone());
                let weight = weight?;
                self.weight = self.weight.saturating_add(weight);
                weight
            }
        };
        Ok(Pattern { text: text.into(), weight })
    }
}

#[derive(Default)]
struct Kept {
    patterns: HashMap<Box<str>, Arc<Regex>>,
    weight: usize,
}

static KEPT: LazyLock<std::sync::Mutex<Kept>> = LazyLock::new(Default::default);

fn kept() -> std::sync::MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Pattern {
    /// What cannot be compiled, which was tried out when it was weighed, matches nothing.
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled().is_some_and(|regex| regex.is_match(text))
    }

    fn compiled(&self) -> Option<Arc<Regex>> {
        if let Some(found) = kept().patterns.get(&self.text) {
            return Some(Arc::clone(found));
        }
        let translated = translate(&self.text).ok()?;
        let built = RegexBuilder::new(&translated)
            .size_limit(SIZE_LIMIT_BYTES)
            .dfa_size_limit(REMEMBERED_BYTES)
            .build();
        let built = built.map_err(|error| debug_assert!(false, "{}: {error}", self.text));
        let regex = Arc::new(built.ok()?);
        kept().keep(self, &regex);
        Some(regex)
    }
}

impl Kept {
    fn keep(&mut self, pattern: &Pattern, regex: &Arc<Regex>) {
        let weight = pattern.weight.max(LEAST_KEPT_WEIGHT);
        if self.weight.saturating_add(weight) > KEPT_WEIGHT {
            *self = Self::default();
        }
        if self.patterns.insert(pattern.text.clone(), Arc::clone(regex)).is_none() {
            self.weight += weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as two thousand definitions of the greatest weight have, and as many short ones.
    #[test]
    fn what_is_kept_is_bounded_however_many_there_are() {
        let (mut kept, mut most, mut all) = (Kept::default(), 0, 0);
        let regex = Arc::new(Regex::new("a").expect("a pattern"));
        let heavy = (0..2_000).map(|n| (n, WEIGHT_LIMIT));
        for (n, weight) in heavy.chain((0..100_000).map(|n| (n, 8))) {
            let pattern = Pattern { text: format!("{weight}-{n}").into(), weight };
            kept.keep(&pattern, &regex);
            kept.keep(&pattern, &regex);
            let held: usize = kept.patterns.len() * LEAST_KEPT_WEIGHT;
            assert!(kept.weight <= KEPT_WEIGHT && held <= KEPT_WEIGHT, "{} of {n}", kept.weight);
            (most, all) = (most.max(kept.weight), all + weight.max(LEAST_KEPT_WEIGHT));
        }
        assert!(most > KEPT_WEIGHT / 2 && all > 100 * KEPT_WEIGHT, "{most} of {all}");
    }

    #[test]
    fn what_is_held_against_texts_is_kept() {
        let pattern = Patterns::default().read("^kept[0-9]{3}$").expect("a pattern");
        assert!(pattern.is_match("kept123") && !pattern.is_match("kept12"));
        let kept = kept();
        assert!(kept.weight <= KEPT_WEIGHT && kept.patterns.len() * LEAST_KEPT_WEIGHT <= KEPT_WEIGHT);
    }
}
