//! The links in a page, found as it streams by: tags are read far enough to know their attributes, and everything that is
//! no link to be changed passes byte by byte. Nothing is kept but an unfinished tag, and of that no more than a bound.

use std::io::{self, Write};

use super::links::Links;

/// A tag longer than this passes as it is.
const TAG_BYTES_MAX: usize = 64 << 10;

/// The attributes of HTML that hold one address.
const ADDRESSES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text up to their end, whatever it looks like.
const RAW: [&str; 9] =
    ["iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp", "plaintext"];

/// What has begun and not ended yet.
#[derive(Debug)]
enum Within {
    Text,
    /// A tag, of which so much has been read.
    Tag(Tag),
    /// `<!…>`, `<?…>` and the like, up to the next `>`.
    Declaration,
    Comment,
    Raw(&'static str),
}

/// Rewrites what is written to it into another writer.
pub struct Pages<W> {
    links: Links,
    within: Within,
    /// Bytes that are not yet known what they are.
    kept: Vec<u8>,
    to: W,
}

impl<W: Write> Pages<W> {
    pub fn new(links: Links, to: W) -> Self {
        Self { links, within: Within::Text, kept: Vec::new(), to }
    }

    pub fn inner(&mut self) -> &mut W {
        &mut self.to
    }

    /// What is left passes as it is.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&self.kept)?;
        Ok(self.to)
    }

    /// Reads on in what is kept; false where more has to come first.
    fn step(&mut self) -> io::Result<bool> {
        match &mut self.within {
            Within::Text => self.text(),
            Within::Declaration => {
                let end = self.kept.iter().position(|b| *b == b'>');
                self.pass(end.map_or(self.kept.len(), |end| end + 1))?;
                Ok(self.becomes(end.map(|_| Within::Text)))
            }
            Within::Comment => {
                let ends = [&b"-->"[..], b"--!>"].map(|end| find(&self.kept, end).map(|at| at + end.len()));
                let end = ends.into_iter().flatten().min();
                self.pass(end.unwrap_or(self.kept.len().saturating_sub(3)))?;
                Ok(self.becomes(end.map(|_| Within::Text)))
            }
            Within::Raw(name) => {
                let name = *name;
                let end = raw_end(&self.kept, name);
                self.pass(end.unwrap_or(self.kept.len().saturating_sub(name.len() + 2)))?;
                Ok(self.becomes(end.map(|_| Within::Text)))
            }
            Within::Tag(tag) => match tag.read(&self.kept) {
                false if self.kept.len() > TAG_BYTES_MAX => {
                    self.pass(self.kept.len())?;
                    Ok(self.becomes(Some(Within::Text)))
                }
                false => Ok(false),
                true => self.tag(),
            },
        }
    }

    fn text(&mut self) -> io::Result<bool> {
        let Some(at) = self.kept.iter().position(|b| *b == b'<') else {
            self.pass(self.kept.len())?;
            return Ok(false);
        };
        self.pass(at)?;
        let next = match self.kept[1..] {
            [b'!', b'-', b'-', ..] => {
                // The dashes may be those of the end too.
                self.pass(2)?;
                Within::Comment
            }
            [] | [b'!'] | [b'!', b'-'] | [b'/'] => return Ok(false),
            [b'!' | b'?', ..] => Within::Declaration,
            [b'/', next, ..] if !next.is_ascii_alphabetic() => Within::Declaration,
            [b'/', ..] => Within::Tag(Tag::new(2)),
            [next, ..] if next.is_ascii_alphabetic() => Within::Tag(Tag::new(1)),
            _ => {
                self.pass(1)?;
                Within::Text
            }
        };
        Ok(self.becomes(Some(next)))
    }

    /// A whole tag, which `kept` begins with.
    fn tag(&mut self) -> io::Result<bool> {
        let Within::Tag(tag) = std::mem::replace(&mut self.within, Within::Text) else { return Ok(true) };
        let name = text(&self.kept, &tag.name).to_ascii_lowercase();
        let opens = tag.name.start == 1;
        let addresses = ADDRESSES.iter().find(|(known, _)| opens && *known == name).map(|(_, keys)| *keys);
        let mut done = 0;
        for attribute in &tag.attributes {
            let key = text(&self.kept, &attribute.key).to_ascii_lowercase();
            let value = text(&self.kept, &attribute.value);
            let named = addresses.is_some_and(|keys| keys.contains(&key.as_str()));
            let Some(other) = named.then(|| rewritten(&self.links, value)).flatten() else { continue };
            self.to.write_all(&self.kept[done..attribute.value.start])?;
            match attribute.quoted {
                true => self.to.write_all(other.as_bytes())?,
                false => write!(self.to, "\"{}\"", other.replace('"', "&#34;"))?,
            }
            done = attribute.value.end;
        }
        self.to.write_all(&self.kept[done..tag.at])?;
        self.kept.drain(..tag.at);
        if let Some(raw) = RAW.iter().find(|raw| opens && **raw == name) {
            self.within = Within::Raw(raw);
        }
        Ok(true)
    }

    fn pass(&mut self, length: usize) -> io::Result<()> {
        self.to.write_all(&self.kept[..length])?;
        self.kept.drain(..length);
        Ok(())
    }

    fn becomes(&mut self, next: Option<Within>) -> bool {
        let Some(next) = next else { return false };
        self.within = next;
        true
    }
}

impl<W: Write> Write for Pages<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept.extend_from_slice(bytes);
        while self.step()? {}
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

type Span = std::ops::Range<usize>;

#[derive(Debug)]
struct Attribute {
    key: Span,
    value: Span,
    quoted: bool,
}

/// Where within a tag its reader is.
#[derive(Debug, Clone, Copy)]
enum At {
    Name,
    Between,
    Key,
    AfterKey,
    BeforeValue,
    /// Up to this quote, or to a space where there is none.
    Value(Option<u8>),
}

/// A tag as far as it has been read; reading goes on where it stopped.
#[derive(Debug)]
struct Tag {
    state: At,
    at: usize,
    name: Span,
    attributes: Vec<Attribute>,
}

impl Tag {
    /// `from` is where its name begins.
    fn new(from: usize) -> Self {
        Self { state: At::Name, at: from, name: from..from, attributes: Vec::new() }
    }

    /// Whether the tag has ended, just before `at`.
    fn read(&mut self, bytes: &[u8]) -> bool {
        while let Some(byte) = bytes.get(self.at).copied() {
            let space = byte.is_ascii_whitespace();
            let here = self.at;
            self.at += 1;
            if byte == b'>' && !matches!(self.state, At::Value(Some(_))) {
                self.close(here);
                return true;
            }
            match self.state {
                At::Name if space || byte == b'/' => {
                    self.name.end = here;
                    self.state = At::Between;
                }
                At::Between if !space && byte != b'/' => {
                    self.attributes.push(Attribute { key: here..here, value: here..here, quoted: false });
                    self.state = At::Key;
                }
                At::Key if space || matches!(byte, b'/' | b'=') => {
                    self.last(|attribute| attribute.key.end = here);
                    self.state = match byte {
                        b'=' => At::BeforeValue,
                        b'/' => At::Between,
                        _ => At::AfterKey,
                    };
                }
                At::AfterKey if byte == b'=' => self.state = At::BeforeValue,
                At::AfterKey if !space => {
                    self.at = here;
                    self.state = At::Between;
                }
                At::BeforeValue if !space => {
                    let quote = matches!(byte, b'"' | b'\'').then_some(byte);
                    let from = here + usize::from(quote.is_some());
                    self.last(|attribute| {
                        attribute.quoted = quote.is_some();
                        attribute.value = from..from;
                    });
                    self.state = At::Value(quote);
                }
                At::Value(quote) if quote.map_or(space, |quote| quote == byte) => {
                    self.last(|attribute| attribute.value.end = here);
                    self.state = At::Between;
                }
                _ => {}
            }
        }
        false
    }

    fn close(&mut self, here: usize) {
        match self.state {
            At::Name => self.name.end = here,
            At::Key => self.last(|attribute| attribute.key.end = here),
            At::Value(_) => self.last(|attribute| attribute.value.end = here),
            _ => {}
        }
    }

    fn last(&mut self, change: impl FnOnce(&mut Attribute)) {
        if let Some(attribute) = self.attributes.last_mut() {
            change(attribute);
        }
    }
}

/// Empty where it is no text.
fn text<'a>(bytes: &'a [u8], span: &Span) -> &'a str {
    bytes.get(span.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Where the end tag of such an element begins.
fn raw_end(bytes: &[u8], name: &str) -> Option<usize> {
    bytes.windows(name.len() + 3).position(|window| {
        let (begin, rest) = window.split_at(2);
        let (word, after) = rest.split_at(name.len());
        let ends = after[0].is_ascii_whitespace() || matches!(after[0], b'/' | b'>');
        begin == b"</" && word.eq_ignore_ascii_case(name.as_bytes()) && ends
    })
}

/// The value of an attribute that is an address, if it has to be another. References to characters are looked at only
/// where they could hide what the link begins with.
fn rewritten(links: &Links, value: &str) -> Option<String> {
    let trimmed = value.trim_matches(|c: char| c.is_ascii_whitespace());
    let hidden = trimmed.split('/').next().is_some_and(|start| start.contains('&'));
    match hidden {
        false => links.through(trimmed),
        true => links.through(&unescape(trimmed)).map(|link| escape(&link)),
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            other => out.push(other),
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(';').unwrap_or(0);
        let number = rest.get(1..end).and_then(|name| name.strip_prefix('#')).and_then(|number| {
            let hexadecimal = number.strip_prefix(['x', 'X']).map(|digits| u32::from_str_radix(digits, 16));
            char::from_u32(hexadecimal.unwrap_or_else(|| number.parse()).ok()?)
        });
        let c = match rest.get(1..end) {
            Some("amp") => Some('&'),
            Some("lt") => Some('<'),
            Some("gt") => Some('>'),
            Some("quot") => Some('"'),
            Some("apos") => Some('\''),
            Some("sol") => Some('/'),
            Some("colon") => Some(':'),
            _ => number,
        };
        out.push(c.unwrap_or('&'));
        rest = &rest[if c.is_some() { end + 1 } else { 1 }..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
