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
/// More than any pattern of the allowed weight takes.
const SIZE_LIMIT_BYTES: usize = 256 << 20;

/// One pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As it was given.
    pub text: Box<str>,
    pub weight: usize,
}

/// Reads the patterns of one schema. One that is there many times counts once.
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
        let built = RegexBuilder::new(&translated).size_limit(SIZE_LIMIT_BYTES).build();
        let built = built.map_err(|error| debug_assert!(false, "{}: {error}", self.text));
        let regex = Arc::new(built.ok()?);
        let mut kept = kept();
        if kept.weight.saturating_add(self.weight) > KEPT_WEIGHT {
            *kept = Kept::default();
        }
        if kept.patterns.insert(self.text.clone(), Arc::clone(&regex)).is_none() {
            kept.weight += self.weight;
        }
        Some(regex)
    }
}
