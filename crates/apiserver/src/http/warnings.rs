//! What a client is warned of, beside the answer: each text once, and no more of them than a client can take. A body may
//! give reason for a hundred thousand.

use std::collections::HashSet;

/// All of them together, in characters. If that is not enough, each is cut.
const ALL_CHARS: usize = 4096;
const ONE_CHARS: usize = 256;

#[derive(Default)]
pub struct Warnings {
    texts: Vec<String>,
    known: HashSet<String>,
    /// Of the texts, each cut.
    cut_chars: usize,
}

impl Warnings {
    pub fn add(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            // What comes after these would not be shown whatever is cut.
            if self.cut_chars > ALL_CHARS {
                return;
            }
            // A write that is tried again is warned of once.
            if self.known.insert(text.clone()) {
                self.cut_chars += text.chars().take(ONE_CHARS).count();
                self.texts.push(text);
            }
        }
    }

    /// Those that are told.
    pub fn told(self) -> Vec<String> {
        let chars: usize = self.texts.iter().map(|text| text.chars().count()).sum();
        if chars <= ALL_CHARS {
            return self.texts;
        }
        let mut left = ALL_CHARS;
        let cut = self.texts.into_iter().map(|text| text.chars().take(ONE_CHARS).collect::<String>());
        cut.take_while(|text| {
            let length = text.chars().count();
            let fits = length <= left;
            left = left.saturating_sub(length);
            fits
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(texts: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut warnings = Warnings::default();
        warnings.add(texts);
        warnings.told()
    }

    #[test]
    fn each_is_told_once_and_few_are_told_whole() {
        assert_eq!(told(["b", "a", "b"].map(str::to_owned)), ["b", "a"]);
        let long = "x".repeat(ALL_CHARS);
        assert_eq!(told([long.clone()]), [long]);
    }

    #[test]
    fn many_are_cut_and_then_left_out() {
        let long = |n: usize| format!("{n:03}{}", "ü".repeat(300));
        let some = told((0..100).map(long));
        assert_eq!(some.len(), ALL_CHARS / ONE_CHARS);
        assert!(some.iter().all(|text| text.chars().count() == ONE_CHARS));
        let mut warnings = Warnings::default();
        warnings.add((0..1_000_000).map(|n| format!("unknown field \"u{n}\"")));
        assert!(warnings.texts.len() < ALL_CHARS, "what is never told is not held");
        let told = warnings.told();
        assert!(told.iter().map(String::len).sum::<usize>() <= ALL_CHARS && told.len() > 100);
    }
}
