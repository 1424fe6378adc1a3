//! Variables and quotes in the words of an instruction.

/// Looks a variable up; `None`: not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Takes the quotes off a word and replaces its variables. The error says what is wrong with it.
pub fn expand(word: &str, lookup: Lookup<'_>) -> Result<String, String> {
    Expander { rest: word.chars().collect(), at: 0, lookup }.word(None, true)
}

/// Replaces variables but leaves quotes alone, as in a here-document.
pub fn expand_text(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    Expander { rest: text.chars().collect(), at: 0, lookup }.word(None, false)
}

struct Expander<'a> {
    rest: Vec<char>,
    at: usize,
    lookup: Lookup<'a>,
}

impl Expander<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    /// Up to the unquoted `end`, which is consumed.
    fn word(&mut self, end: Option<char>, quotes: bool) -> Result<String, String> {
        let mut out = String::new();
        while let Some(c) = self.next() {
            match c {
                _ if Some(c) == end => return Ok(out),
                '\\' => match self.next() {
                    Some('$') => out.push('$'),
                    Some(next) if quotes => out.push(next),
                    Some(next) => out.extend(['\\', next]),
                    None => out.push('\\'),
                },
                '\'' if quotes => self.single_quoted(&mut out)?,
                '"' if quotes => self.double_quoted(&mut out)?,
                '$' => self.variable(&mut out)?,
                c => out.push(c),
            }
        }
        if end.is_some() { Err("missing closing brace".into()) } else { Ok(out) }
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
                None => {
                    return Err("unexpected end of statement while looking for matching single-quote".into());
                }
            }
        }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => self.variable(out)?,
                Some('\\') => match self.next() {
                    Some(c @ ('"' | '$' | '\\')) => out.push(c),
                    Some(c) => out.extend(['\\', c]),
                    None => out.push('\\'),
                },
                Some(c) => out.push(c),
                None => {
                    return Err("unexpected end of statement while looking for matching double-quote".into());
                }
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            if name.is_empty() && c.is_ascii_digit() {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        name
    }

    fn variable(&mut self, out: &mut String) -> Result<(), String> {
        if self.peek() != Some('{') {
            let name = self.name();
            match name.is_empty() {
                true => out.push('$'),
                false => out.push_str(&(self.lookup)(&name).unwrap_or_default()),
            }
            return Ok(());
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err("bad substitution".into());
        }
        let value = (self.lookup)(&name);
        let (colon, operator) = match self.next() {
            Some('}') => {
                out.push_str(&value.unwrap_or_default());
                return Ok(());
            }
            Some(':') => (true, self.next()),
            other => (false, other),
        };
        let word = self.word(Some('}'), true)?;
        // With a colon, empty counts as not set.
        let set = value.filter(|value| !(colon && value.is_empty()));
        match (operator, set) {
            (Some('-'), set) => out.push_str(&set.unwrap_or(word)),
            (Some('+'), Some(_)) => out.push_str(&word),
            (Some('+'), None) => {}
            (Some('?'), Some(value)) => out.push_str(&value),
            (Some('?'), None) if word.is_empty() => {
                return Err(format!("{name}: is not allowed to be unset"));
            }
            (Some('?'), None) => return Err(format!("{name}: {word}")),
            (operator, _) => {
                let sign = operator.map(String::from).unwrap_or_default();
                return Err(format!("unsupported modifier ({sign}) in substitution"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "a" => Some("A".into()),
            "empty" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_quotes() {
        let check =
            |word: &str, expect: &str| assert_eq!(expand(word, &lookup).as_deref(), Ok(expect), "{word}");
        check("$a-${a}b$none.", "A-Ab.");
        check("'$a'\"$a\"\\$a", "$aA$a");
        check("${none:-x}${empty:-y}${empty-z}${a:-w}", "xyA");
        check("${a:+yes}${none:+no}${none:-${a}!}", "yesA!");
        check("\"two words\" 'it''s'", "two words its");
        check("100% $ $1", "100% $ $1");
        assert_eq!(expand_text("\"$a\" 'x' \\$a", &lookup).as_deref(), Ok("\"A\" 'x' $a"));
    }

    #[test]
    fn mistakes_are_told() {
        let check =
            |word: &str, expect: &str| assert_eq!(expand(word, &lookup), Err(expect.into()), "{word}");
        check("${none:?must be}", "none: must be");
        check("${a:-x", "missing closing brace");
        check("\"open", "unexpected end of statement while looking for matching double-quote");
    }
}
