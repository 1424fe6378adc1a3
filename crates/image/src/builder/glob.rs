//! Patterns of file names: `*`, `?`, `[a-z]`, `\x`, and `**` for any number of directories.

/// Whether a path, in parts, matches a pattern, in parts.
pub fn matches(pattern: &[&str], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((&"**", rest)) => (0..=path.len()).any(|skipped| matches(rest, &path[skipped..])),
        Some((first, rest)) => match path.split_first() {
            Some((name, below)) => matches_name(first.as_bytes(), name.as_bytes()) && matches(rest, below),
            None => false,
        },
    }
}

pub fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|taken| matches_name(rest, &name[taken..])),
        (Some((b'?', rest)), Some((_, below))) => matches_name(rest, below),
        (Some((b'[', rest)), Some((byte, below))) => match class(rest, *byte) {
            Some((true, rest)) => matches_name(rest, below),
            _ => false,
        },
        (Some((b'\\', [escaped, rest @ ..])), Some((byte, below))) => {
            escaped == byte && matches_name(rest, below)
        }
        (Some((plain, rest)), Some((byte, below))) => plain == byte && matches_name(rest, below),
        _ => false,
    }
}

/// The part after `[`: whether the byte is in the class, and what follows the class.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern.split_first() {
        Some((b'^', rest)) => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    loop {
        match rest {
            [b']', after @ ..] => return Some((found != negated, after)),
            [low, b'-', high, after @ ..] if *high != b']' => {
                found |= (*low..=*high).contains(&byte);
                rest = after;
            }
            [one, after @ ..] => {
                found |= *one == byte;
                rest = after;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_dockerfiles() {
        let check = |pattern: &str, path: &str, expect: bool| {
            assert_eq!(matches(&parts(pattern), &parts(path)), expect, "{pattern} {path}");
        };
        check("*.txt", "a.txt", true);
        check("*.txt", "d/a.txt", false);
        check("**/*.txt", "a.txt", true);
        check("**/*.txt", "d/e/a.txt", true);
        check("a/**", "a/b/c", true);
        check("file-[0-9]?", "file-1x", true);
        check("file-[^0-9]", "file-1", false);
        check("a\\*", "a*", true);
        check("a\\*", "ab", false);
    }
}
