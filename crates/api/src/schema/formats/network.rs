//! Formats of addresses and names.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

/// Letters and signs of any language but in the last part; one part alone may be anything that is no address of a domain.
static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
    const ANY: &str = r"a-zA-Z0-9\p{S}\p{L}";
    let alone = format!("[{ANY}](-?[{ANY}]{{0,62}})?");
    let part = format!(r"[{ANY}]([{ANY}-]{{0,61}}[{ANY}])?\.");
    Regex::new(&format!(r"^({alone}|({part})+[a-zA-Z\p{{L}}]{{2,63}})$")).expect("a pattern of ours")
});

pub fn is_hostname(text: &str) -> bool {
    text.len() <= 255 && HOSTNAME.is_match(text) && text.split('.').all(|part| part.len() <= 63)
}

/// A part of a Kubernetes name.
pub fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| fits(*b));
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| fits(*b) || *b == b'-')
}

/// Numbers may begin with zeros, as they may everywhere in the API that is older than the doubt about what that means.
fn v4(text: &str) -> Option<Ipv4Addr> {
    let part = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
        true => part.parse::<u8>().ok(),
        false => None,
    };
    let parts: Option<Vec<u8>> = text.split('.').map(part).collect();
    <[u8; 4]>::try_from(parts?).ok().map(Ipv4Addr::from)
}

/// The same of the last four bytes.
fn v6(text: &str) -> Option<Ipv6Addr> {
    match text.rsplit_once(':') {
        Some((head, tail)) if tail.contains('.') => format!("{head}:{}", v4(tail)?).parse().ok(),
        _ => text.parse().ok(),
    }
}

/// One that is written as part of the other kind counts.
pub fn is_ipv4(text: &str) -> bool {
    v4(text).is_some() || text.contains('.') && v6(text).is_some()
}

pub fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

pub fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let bits = match v4(address) {
        Some(_) => 32,
        None if v6(address).is_some() => 128,
        None => return false,
    };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    digits && length.parse::<u32>().is_ok_and(|length| length <= bits)
}

/// Six, eight or twenty bytes: one by one behind colons or dashes, two by two behind dots, or with nothing between them.
pub fn is_mac(text: &str) -> bool {
    let of = |separator: char, digits: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let count = parts.len() * digits / 2;
        let is_part = |part: &&str| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
        matches!(count, 6 | 8 | 20) && parts.iter().all(is_part)
    };
    let bare = matches!(text.len(), 12 | 16 | 40) && text.bytes().all(|b| b.is_ascii_hexdigit());
    bare || of(':', 2) || of('-', 2) || of('.', 4)
}
