//! What somebody may have meant who has mistyped a word, told as Docker tells it.

use base::nearest::nearest;

/// ` (did you mean FROM?)`, or nothing where no word is near.
pub fn hint<'a>(typed: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, words).map(|word| format!(" (did you mean {word}?)")).unwrap_or_default()
}
