//! An address as a request may name it: a path, or whatever has a scheme. What follows a `#` is no part of it.

/// Of an address, what others ask for.
#[derive(Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    pub scheme: &'a str,
    pub host: &'a str,
}

pub fn parse(text: &str) -> Option<Uri<'_>> {
    if text.is_empty() || text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return None;
    }
    let (scheme, rest) = scheme(text)?;
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let path = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
        Some(after) => {
            let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
            let host = authority_host(authority)?;
            return is_escaped_well(path).then_some(Uri { scheme, host });
        }
        None => rest,
    };
    let uri = Uri { scheme, host: "" };
    match (scheme.is_empty(), path.starts_with('/')) {
        (_, true) => is_escaped_well(path).then_some(uri),
        (false, false) => Some(uri),
        (true, false) => (text == "*").then_some(uri),
    }
}

/// The scheme, and what follows its colon.
fn scheme(text: &str) -> Option<(&str, &str)> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return None,
            ':' => return Some((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Some(("", text))
}

fn authority_host(authority: &str) -> Option<&str> {
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let of_user = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if !user.is_none_or(|user| user.chars().all(of_user) && is_escaped_well(user)) {
        return None;
    }
    let port = match host.starts_with('[') {
        true => &host[host.rfind(']')? + 1..],
        false => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let digits =
        port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    let name = &host[..host.len() - port.len()];
    let of_host =
        |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c);
    (digits && host.chars().all(of_host) && has_host_escapes(name)).then_some(host)
}

/// Only letters beyond ASCII may be escaped in a host, and the sign before a zone.
fn has_host_escapes(host: &str) -> bool {
    let escapes = host.match_indices('%').map(|(at, _)| host.get(at + 1..at + 3));
    let mut escapes = escapes.map(|digits| u8::from_str_radix(digits?, 16).ok());
    escapes.all(|byte| byte.is_some_and(|byte| byte >= 0x80 || byte == b'%'))
}

fn is_escaped_well(text: &str) -> bool {
    let digits = |at: usize| text.as_bytes().get(at + 1..at + 3);
    text.match_indices('%').all(|(at, _)| digits(at).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)))
}
