//! What somebody may have meant who has mistyped a word, told as Docker tells it.

/// As many letters may be wrong, missing or too much.
const LETTERS_MAX: usize = 2;

/// ` (did you mean FROM?)`, or nothing where no word is near.
pub fn hint<'a>(typed: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    let distances =
        words.into_iter().map(|word| (distance(&typed.to_lowercase(), &word.to_lowercase()), word));
    let near = distances.filter(|(letters, word)| *letters <= LETTERS_MAX && *letters < word.len());
    match near.min_by_key(|(letters, _)| *letters) {
        Some((_, word)) => format!(" (did you mean {word}?)"),
        None => String::new(),
    }
}

/// Levenshtein's: how many letters have to be put in, taken out or changed.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, wanted) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *wanted);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_told() {
        let check = |typed: &str, wanted: &str| {
            assert_eq!(hint(typed, ["FROM", "RUN", "COPY"]), wanted, "{typed}");
        };
        check("FORM", " (did you mean FROM?)");
        check("RUM", " (did you mean RUN?)");
        check("CP", " (did you mean COPY?)");
        check("EXPOSED", "");
        check("", "");
        assert_eq!((distance("form", "from"), distance("", "ab"), distance("a", "a")), (2, 2, 0));
    }
}
