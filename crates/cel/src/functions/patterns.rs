//! RE2's patterns, as users of Kubernetes write them, in the spelling of our engine: there the classes of Perl are
//! Unicode's and sets have operators, which RE2 knows nothing of.

/// The same pattern for our engine.
pub fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    // Whether the walk is between `[` and `]`.
    let mut class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let Some(escaped) = chars.next() else {
                    return Err(
                        "error parsing regexp: trailing backslash at end of expression: ``".to_owned()
                    );
                };
                match escaped {
                    'd' => out.push_str("[0-9]"),
                    'D' => out.push_str("[^0-9]"),
                    'w' => out.push_str("[0-9A-Za-z_]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    's' => out.push_str("[\\t\\n\\f\\r ]"),
                    'S' => out.push_str("[^\\t\\n\\f\\r ]"),
                    'b' if !class => out.push_str("(?-u:\\b)"),
                    'B' if !class => out.push_str("(?-u:\\B)"),
                    // Taken as it stands, up to `\E`.
                    'Q' if !class => {
                        let mut literal = String::new();
                        while let Some(c) = chars.next() {
                            if c == '\\' && chars.next_if_eq(&'E').is_some() {
                                break;
                            }
                            literal.push(c);
                        }
                        out.push_str(&regex::escape(&literal));
                    }
                    escaped => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
            }
            '[' if !class => {
                class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // First in a set, a bracket is itself.
                if chars.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            ']' if class => {
                class = false;
                out.push(']');
            }
            '[' if chars.peek() == Some(&':') => out.push_str(&posix(&mut chars)?),
            '[' => out.push_str("\\["),
            '&' | '~' if class => {
                out.push('\\');
                out.push(c);
            }
            // `--` subtracts in our engine; in RE2's the one is a range's bar and the other its end.
            '-' if class && chars.peek() == Some(&'-') => {
                if out.ends_with(['[', '^']) {
                    out.push_str("\\-");
                } else {
                    chars.next();
                    out.push_str("-\\-");
                }
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// The classes of POSIX, and that of Perl.
const CLASSES: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// `[:alpha:]`, or a bracket in a set that is followed by a colon.
fn posix(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, String> {
    let ahead: String = chars.clone().take(12).collect();
    let Some(end) = ahead.find(":]").filter(|end| *end > 1) else { return Ok("\\[".to_owned()) };
    let name: String = chars.by_ref().take(end + 2).collect();
    match CLASSES.contains(&name.trim_matches([':', ']', '^'])) {
        true => Ok(format!("[{name}")),
        false => Err(format!("error parsing regexp: invalid character class range: `[{name}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_re2() {
        for (pattern, text, expected) in [
            ("^\\d+$", "12", true),
            ("^\\d+$", "١٢", false),
            ("^\\w+$", "é", false),
            ("^[\\w.-]+$", "a.b-c_1", true),
            ("^[^\\s]+$", "a b", false),
            ("\\bfoo\\b", "a foo b", true),
            ("^[a[b]$", "[", true),
            ("^[]a]$", "]", true),
            ("^[a&&b]$", "&", true),
            ("^[!--]$", "+", true),
            ("^[[:alpha:]]$", "x", true),
            ("^[[:x]$", ":", true),
            ("^\\Qa.b\\E$", "a.b", true),
            ("^\\Qa.b\\E$", "axb", false),
            ("^\\pL$", "é", true),
            ("(?i)^abc$", "ABC", true),
            ("^.$", "👑", true),
            ("^a{2,3}$", "aaa", true),
        ] {
            let regex = regex::Regex::new(&translate(pattern).expect("translated"));
            let regex = regex.unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(regex.is_match(text), expected, "{pattern} on {text}");
        }
        assert!(translate("a\\").is_err());
    }
}
