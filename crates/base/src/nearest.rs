//! What somebody may have meant who has mistyped a word.

/// As many letters may be wrong, missing or too much.
const LETTERS_MAX: usize = 2;

/// The word that takes the fewest changes, if it takes few; upper and lower case are the same.
pub fn nearest<'a>(typed: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let distances = words.into_iter().map(|word| (distance(&typed, &word.to_lowercase()), word));
    // A word as short as what is wrong with it would be near to anything.
    let near = distances.filter(|(letters, word)| *letters <= LETTERS_MAX && *letters < word.len());
    near.min().map(|(_, word)| word)
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
        let check = |typed: &str, wanted: Option<&str>| {
            assert_eq!(nearest(typed, ["FROM", "RUN", "COPY"]), wanted, "{typed}");
        };
        check("FORM", Some("FROM"));
        check("rum", Some("RUN"));
        check("CP", Some("COPY"));
        check("EXPOSED", None);
        check("", None);
        assert_eq!((distance("form", "from"), distance("", "ab"), distance("a", "a")), (2, 2, 0));
    }
}
