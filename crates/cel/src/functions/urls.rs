//! URLs: absolute ones, or paths, as `url.ParseRequestURI` takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Row;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::value::{Key, Opaque, Value};

pub const ROWS: &[Row] = &[
    Row("url(string): kubernetes.URL", Cost::Mapped, url),
    Row("isURL(string): bool", Cost::One, is_url),
    Row("kubernetes.URL::getScheme(): string", Cost::One, scheme),
    Row("kubernetes.URL::getHost(): string", Cost::One, host),
    Row("kubernetes.URL::getHostname(): string", Cost::One, hostname),
    Row("kubernetes.URL::getPort(): string", Cost::One, port),
    Row("kubernetes.URL::getEscapedPath(): string", Cost::One, escaped_path),
    Row("kubernetes.URL::getQuery(): map<string, list<string>>", Cost::One, query),
];

#[derive(Debug, PartialEq)]
struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
    whole: String,
}

impl Opaque for Url {
    fn type_name(&self) -> &'static str {
        "kubernetes.URL"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self.whole == other.whole)
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn parse(text: &str) -> Result<Url, String> {
    let fail = |why: &str| Err(format!("parse {text:?}: {why}"));
    if text.is_empty() {
        return fail("empty url");
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let (rest, _fragment) = text.split_once('#').map_or((text, ""), |(rest, fragment)| (rest, fragment));
    let (scheme, rest) = split_scheme(rest);
    let Some(scheme) = scheme else { return fail("missing protocol scheme") };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        return fail("invalid URI for request");
    }
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) if !scheme.is_empty() || !rest.starts_with('/') => {
            rest.split_at(rest.find('/').unwrap_or(rest.len()))
        }
        _ => ("", rest),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if let Err(why) = check_host(host) {
        return fail(&why);
    }
    if let Err(escape) = unescape(path, false) {
        return fail(&format!("invalid URL escape {escape:?}"));
    }
    Ok(Url {
        scheme: scheme.to_ascii_lowercase(),
        host: host.to_owned(),
        path: escape_path(path),
        query: query.to_owned(),
        whole: text.to_owned(),
    })
}

/// `None` where a colon comes first.
fn split_scheme(text: &str) -> (Option<&str>, &str) {
    for (index, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if index > 0 => {}
            ':' if index == 0 => return (None, text),
            ':' => return (Some(&text[..index]), &text[index + 1..]),
            _ => break,
        }
    }
    (Some(""), text)
}

fn check_host(host: &str) -> Result<(), String> {
    let after = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((_, after)) => after,
            None => return Err("missing ']' in host".to_owned()),
        },
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    let port_fits = after.is_empty()
        || after.strip_prefix(':').is_some_and(|port| port.chars().all(|c| c.is_ascii_digit()));
    if !port_fits {
        return Err(format!("invalid port {after:?} after host"));
    }
    match host.chars().find(|c| c.is_ascii_whitespace() || "<>\"\\^`{}|".contains(*c)) {
        Some(c) => Err(format!("invalid character {c:?} in host name")),
        None => Ok(()),
    }
}

/// Resolves `%XX`; the fault is the escape that is none.
fn unescape(text: &str, plus: bool) -> Result<String, String> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let digits = bytes.get(at + 1..at + 3).and_then(|d| std::str::from_utf8(d).ok());
                match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    Some(byte) => out.push(byte),
                    None => return Err(text.get(at..).unwrap_or_default().chars().take(3).collect()),
                }
                at += 2;
            }
            b'+' if plus => out.push(b' '),
            byte => out.push(*byte),
        }
        at += 1;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            byte if b"-_.~$&+,/:;=@%!*'()[]".contains(&byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn text<'t, 'a>(args: &'t [Value<'a>]) -> Result<&'t str, Fault> {
    match args {
        [Value::String(text)] => Ok(text),
        _ => Err(Fault::no_overload()),
    }
}

fn url<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let text = text(args)?;
    meter.text(text.len())?;
    match parse(text) {
        Ok(url) => Ok(Value::Opaque(Arc::new(url))),
        Err(why) => Err(Fault::failed(format!("URL parse error during conversion from string: {why}"))),
    }
}

fn is_url<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let text = text(args)?;
    meter.text(text.len())?;
    Ok(Value::Bool(parse(text).is_ok()))
}

fn held<'t>(args: &'t [Value<'_>]) -> Result<&'t Url, Fault> {
    match args.first() {
        Some(Value::Opaque(value)) => value.as_any().downcast_ref().ok_or_else(Fault::no_overload),
        _ => Err(Fault::no_overload()),
    }
}

fn scheme<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::text(&held(args)?.scheme))
}

fn host<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::text(&held(args)?.host))
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) && !name.ends_with(':') => {
            (name, port)
        }
        _ => (host, ""),
    }
}

fn hostname<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let host = &held(args)?.host;
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => split_port(host).0,
    };
    Ok(Value::text(name))
}

fn port<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::text(split_port(&held(args)?.host).1))
}

fn escaped_path<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::text(&held(args)?.path))
}

fn query<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let mut out: BTreeMap<Key, Vec<Value<'a>>> = BTreeMap::new();
    for pair in held(args)?.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        meter.work(1)?;
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Ok(name), Ok(value)) = (unescape(name, true), unescape(value, true)) {
            out.entry(Key::String(name.into())).or_default().push(Value::text(&value));
        }
    }
    Ok(Value::map(out.into_iter().map(|(key, values)| (key, Value::list(values))).collect()))
}

/// Why a text is no URL.
pub fn fault(text: &str) -> Option<String> {
    parse(text).err()
}
