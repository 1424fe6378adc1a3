//! Tokens. Places are counted in code points, as messages show them.

use std::sync::Arc;

use crate::issues::Issues;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Ident(Arc<str>),
    Int(Option<u64>),
    Uint(Option<u64>),
    Double(Option<f64>),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    /// An operator, a bracket or a word of the grammar.
    Sign(&'static str),
    End,
}

#[derive(Debug, Clone)]
pub struct Spanned {
    pub token: Token,
    pub at: usize,
    pub end: usize,
}

/// Longest first.
const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "(", ")", "[", "]", "{", "}", ".", ",", "-", "+", "*", "/",
    "%", "!", "?", ":", "=",
];
const WORDS: [&str; 4] = ["in", "true", "false", "null"];

pub fn tokens(source: &[char], issues: &mut Issues) -> Vec<Spanned> {
    let mut lexer = Lexer { source, at: 0, issues };
    let mut out = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        if at >= source.len() {
            out.push(Spanned { token: Token::End, at, end: at });
            return out;
        }
        let token = lexer.next();
        // An escape that the text ends in was read past its end.
        lexer.at = lexer.at.min(source.len());
        if let Some(token) = token {
            out.push(Spanned { token, at, end: lexer.at });
        }
    }
}

struct Lexer<'a> {
    source: &'a [char],
    at: usize,
    issues: &'a mut Issues,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.source.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip_blank(&mut self) {
        while self.at < self.source.len() {
            match self.peek(0) {
                ' ' | '\t' | '\r' | '\n' | '\u{c}' => self.at += 1,
                '/' if self.peek(1) == '/' => {
                    while self.at < self.source.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn unrecognised(&mut self, from: usize) {
        self.at = self.at.min(self.source.len());
        let text: String = self.source[from..self.at].iter().collect();
        self.issues.push(from, format!("Syntax error: token recognition error at: '{text}'"));
    }

    fn next(&mut self) -> Option<Token> {
        let c = self.peek(0);
        if let Some((raw, bytes, prefix)) = self.quote_prefix() {
            return self.quoted(raw, bytes, prefix);
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return Some(self.number());
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let from = self.at;
            while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            let text: String = self.source[from..self.at].iter().collect();
            let word = WORDS.iter().find(|word| **word == text);
            return Some(word.map_or_else(|| Token::Ident(text.into()), |word| Token::Sign(word)));
        }
        let fits = |sign: &&&str| sign.chars().enumerate().all(|(i, c)| self.peek(i) == c);
        let sign = SIGNS.iter().find(fits).filter(|sign| **sign != "=");
        match sign {
            Some(sign) => {
                self.at += sign.len();
                Some(Token::Sign(sign))
            }
            None => {
                let from = self.at;
                self.at += 1;
                self.unrecognised(from);
                None
            }
        }
    }

    /// Whether a string starts here: raw, bytes, and how many letters stand before the quote.
    fn quote_prefix(&self) -> Option<(bool, bool, usize)> {
        let quote = |c: char| c == '"' || c == '\'';
        let (mut raw, mut bytes, mut n) = (false, false, 0);
        if matches!(self.peek(0), 'b' | 'B') {
            (bytes, n) = (true, 1);
        }
        if matches!(self.peek(n), 'r' | 'R') {
            (raw, n) = (true, n + 1);
        }
        quote(self.peek(n)).then_some((raw, bytes, n))
    }

    fn quoted(&mut self, raw: bool, bytes: bool, prefix: usize) -> Option<Token> {
        let from = self.at;
        self.at += prefix;
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        let width = if triple { 3 } else { 1 };
        self.at += width;
        let (mut text, mut data) = (String::new(), Vec::new());
        loop {
            if self.at >= self.source.len() || (!triple && matches!(self.peek(0), '\n' | '\r')) {
                self.unrecognised(from);
                return None;
            }
            if (0..width).all(|i| self.peek(i) == quote) {
                self.at += width;
                break;
            }
            let c = self.peek(0);
            self.at += 1;
            if c != '\\' {
                put(c, bytes, &mut text, &mut data);
            } else if raw {
                put(c, bytes, &mut text, &mut data);
                // A quote behind a backslash does not end a raw string.
                if self.at < self.source.len() && self.peek(0) == quote {
                    put(quote, bytes, &mut text, &mut data);
                    self.at += 1;
                }
            } else {
                match self.escape(bytes) {
                    Some(Escaped::Char(c)) => put(c, bytes, &mut text, &mut data),
                    Some(Escaped::Byte(byte)) => data.push(byte),
                    None => {
                        self.unrecognised(from);
                        return None;
                    }
                }
            }
        }
        Some(if bytes { Token::Bytes(data.into()) } else { Token::String(text.into()) })
    }

    fn escape(&mut self, bytes: bool) -> Option<Escaped> {
        let c = self.peek(0);
        self.at += 1;
        let plain = match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' | '?' => c,
            'x' | 'X' => return self.code(2, 16, bytes),
            'u' if !bytes => return self.code(4, 16, false),
            'U' if !bytes => return self.code(8, 16, false),
            '0'..='3' => {
                self.at -= 1;
                return self.code(3, 8, bytes);
            }
            _ => return None,
        };
        Some(Escaped::Char(plain))
    }

    fn code(&mut self, digits: usize, radix: u32, byte: bool) -> Option<Escaped> {
        let mut value = 0u32;
        for _ in 0..digits {
            value = value.checked_mul(radix)?.checked_add(self.peek(0).to_digit(radix)?)?;
            self.at += 1;
        }
        match byte {
            true => Some(Escaped::Byte(u8::try_from(value).ok()?)),
            false => Some(Escaped::Char(char::from_u32(value)?)),
        }
    }

    fn number(&mut self) -> Token {
        let from = self.at;
        if self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            let digits = self.digits(|c| c.is_ascii_hexdigit());
            let value = u64::from_str_radix(&digits, 16).ok();
            return self.whole(value);
        }
        self.digits(|c| c.is_ascii_digit());
        let mut double = false;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            double = true;
            self.at += 1;
            self.digits(|c| c.is_ascii_digit());
        }
        let signed = usize::from(matches!(self.peek(1), '+' | '-'));
        if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + signed).is_ascii_digit() {
            double = true;
            self.at += 1 + signed;
            self.digits(|c| c.is_ascii_digit());
        }
        let text: String = self.source[from..self.at].iter().collect();
        match double {
            true => Token::Double(text.parse().ok().filter(|n: &f64| n.is_finite())),
            false => self.whole(text.parse().ok()),
        }
    }

    fn whole(&mut self, value: Option<u64>) -> Token {
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return Token::Uint(value);
        }
        Token::Int(value)
    }

    fn digits(&mut self, fits: impl Fn(char) -> bool) -> String {
        let from = self.at;
        while fits(self.peek(0)) {
            self.at += 1;
        }
        self.source[from..self.at].iter().collect()
    }
}

enum Escaped {
    Char(char),
    Byte(u8),
}

fn put(c: char, bytes: bool, text: &mut String, data: &mut Vec<u8>) {
    match bytes {
        true => data.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        false => text.push(c),
    }
}
