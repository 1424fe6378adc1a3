//! An address of mail as RFC 5322 has it, with a name before it or without.

/// What is left to be read.
struct Reader<'a>(&'a str);

pub fn is_address(text: &str) -> bool {
    let mut reader = Reader(text);
    reader.space();
    let alone = Reader(reader.0).at_the_end_after(Reader::address);
    alone || reader.at_the_end_after(Reader::named)
}

/// Letters of words: not those that have a meaning between words.
fn is_of_word(c: char, dots: bool) -> bool {
    match c {
        '.' => dots,
        '(' | ')' | '<' | '>' | '[' | ']' | ':' | ';' | '@' | '\\' | ',' | '"' => false,
        c => ('!'..='~').contains(&c) || !c.is_ascii(),
    }
}

impl<'a> Reader<'a> {
    fn at_the_end_after(mut self, read: fn(&mut Self) -> Option<()>) -> bool {
        read(&mut self).is_some() && self.comments().is_some() && self.0.is_empty()
    }

    fn space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn take(&mut self, c: char) -> Option<()> {
        self.0 = self.0.strip_prefix(c)?;
        Some(())
    }

    /// Space and remarks in parentheses, which may hold others.
    fn comments(&mut self) -> Option<()> {
        self.space();
        while self.0.starts_with('(') {
            let mut depth = 0;
            let mut escaped = false;
            let end = self.0.char_indices().find_map(|(at, c)| {
                match c {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                (depth == 0 && c == ')').then_some(at + 1)
            })?;
            self.0 = &self.0[end..];
            self.space();
        }
        Some(())
    }

    fn word(&mut self, dots: bool) -> Option<&'a str> {
        let end = self.0.find(|c| !is_of_word(c, dots)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Words with single dots between them.
    fn dotted(&mut self) -> Option<()> {
        let word = self.word(true)?;
        word.split('.').all(|part| !part.is_empty()).then_some(())
    }

    /// A text in quotes; how long it is.
    fn quoted(&mut self) -> Option<usize> {
        let rest = self.0.strip_prefix('"')?;
        let mut escaped = false;
        for (at, c) in rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    self.0 = &rest[at + 1..];
                    return Some(at);
                }
                '\n' | '\r' => return None,
                _ => {}
            }
        }
        None
    }

    /// `who@where`.
    fn address(&mut self) -> Option<()> {
        match self.0.starts_with('"') {
            true => drop(self.quoted().filter(|length| *length > 0)?),
            false => self.dotted()?,
        }
        self.take('@')?;
        self.space();
        match self.0.strip_prefix('[') {
            Some(literal) => {
                let (address, rest) = literal.split_once(']')?;
                self.0 = rest;
                let v6 =
                    address.strip_prefix("IPv6:").is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
                (v6 || address.parse::<std::net::Ipv4Addr>().is_ok()).then_some(())
            }
            None => self.dotted(),
        }
    }

    /// `Name <who@where>`.
    fn named(&mut self) -> Option<()> {
        while !self.0.starts_with('<') {
            match self.0.starts_with('"') {
                true => drop(self.quoted()?),
                false => drop(self.word(true)?),
            }
            self.space();
        }
        self.take('<')?;
        self.address()?;
        self.take('>')
    }
}
