//! Strings, by code points.

use super::Row;
use super::printing;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::value::{Text, Value};

pub const ROWS: &[Row] = &[
    Row("string::contains(string): bool", Cost::Contains, contains),
    Row("string::startsWith(string): bool", Cost::Affix, starts_with),
    Row("string::endsWith(string): bool", Cost::Affix, ends_with),
    Row("string::charAt(int): string", Cost::One, char_at),
    Row("string::indexOf(string): int", Cost::Walk, index_of),
    Row("string::indexOf(string, int): int", Cost::Walk, index_of),
    Row("string::lastIndexOf(string): int", Cost::Walk, last_index_of),
    Row("string::lastIndexOf(string, int): int", Cost::Walk, last_index_of),
    Row("string::lowerAscii(): string", Cost::Mapped, lower),
    Row("string::upperAscii(): string", Cost::Mapped, upper),
    Row("string::trim(): string", Cost::Mapped, trim),
    Row("string::substring(int): string", Cost::Mapped, substring),
    Row("string::substring(int, int): string", Cost::Mapped, substring),
    Row("string::replace(string, string): string", Cost::Replace, replace),
    Row("string::replace(string, string, int): string", Cost::Replace, replace),
    Row("string::split(string): list<string>", Cost::Split, split),
    Row("string::split(string, int): list<string>", Cost::Split, split),
    Row("list<string>::join(): string", Cost::Join, join),
    Row("list<string>::join(string): string", Cost::Join, join),
    Row("string::format(list<dyn>): string", Cost::Scan(1.0), printing::format),
    Row("strings.quote(string): string", Cost::Quote, printing::quote),
    Row("jsonpatch.escapeKey(string): string", Cost::Mapped, escape_key),
];

fn texts<'t, 'a>(args: &'t [Value<'a>]) -> Result<(&'t str, &'t str), Fault> {
    match args {
        [Value::String(a), Value::String(b), ..] => Ok((a, b)),
        _ => Err(Fault::no_overload()),
    }
}

fn contains<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, part) = texts(args)?;
    Ok(Value::Bool(text.contains(part)))
}

fn starts_with<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, part) = texts(args)?;
    Ok(Value::Bool(text.starts_with(part)))
}

fn ends_with<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, part) = texts(args)?;
    Ok(Value::Bool(text.ends_with(part)))
}

fn out_of_range(index: i64) -> Fault {
    Fault::failed(format!("index out of range: {index}"))
}

/// The byte at which the code point of that number starts; the text's end counts.
fn offset(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}

fn char_at<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::String(text), Value::Int(index)] = args else { return Err(Fault::no_overload()) };
    let at = offset(text, *index).ok_or_else(|| out_of_range(*index))?;
    Ok(Value::text(&text[at..].chars().take(1).collect::<String>()))
}

fn code_point(text: &str, at: Option<usize>) -> i64 {
    at.map_or(-1, |at| i64::try_from(text[..at].chars().count()).unwrap_or(i64::MAX))
}

fn index_of<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, part) = texts(args)?;
    meter.work(text.len() / 8)?;
    let from = match args.get(2) {
        Some(Value::Int(index)) => offset(text, *index).ok_or_else(|| out_of_range(*index))?,
        _ => 0,
    };
    Ok(Value::Int(code_point(text, text[from..].find(part).map(|at| at + from))))
}

fn last_index_of<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, part) = texts(args)?;
    meter.work(text.len() / 8)?;
    // The offset is the last place at which the part may start.
    let end = match args.get(2) {
        Some(Value::Int(index)) => {
            let at = offset(text, *index).ok_or_else(|| out_of_range(*index))?;
            text.len().min(at + part.len())
        }
        _ => text.len(),
    };
    let mut end = end;
    while !text.is_char_boundary(end) {
        end += 1;
    }
    Ok(Value::Int(code_point(text, text[..end].rfind(part))))
}

fn mapped<'a>(
    meter: &mut Meter,
    args: &[Value<'a>],
    map: impl Fn(&str) -> String,
) -> Result<Value<'a>, Fault> {
    let [Value::String(text), ..] = args else { return Err(Fault::no_overload()) };
    meter.text(text.len())?;
    Ok(Value::String(Text::from(map(text))))
}

fn lower<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    mapped(meter, args, str::to_ascii_lowercase)
}

fn upper<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    mapped(meter, args, str::to_ascii_uppercase)
}

fn trim<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    mapped(meter, args, |text| text.trim().to_owned())
}

fn escape_key<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    mapped(meter, args, |text| text.replace('~', "~0").replace('/', "~1"))
}

fn substring<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::String(text), Value::Int(start), rest @ ..] = args else { return Err(Fault::no_overload()) };
    meter.text(text.len())?;
    let end = match rest {
        [Value::Int(end), ..] => Some(*end),
        _ => None,
    };
    if let Some(end) = end.filter(|end| start > end) {
        return Err(Fault::failed(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let from = offset(text, *start).ok_or_else(|| out_of_range(*start))?;
    let to = match end {
        Some(end) => offset(text, end).ok_or_else(|| out_of_range(end))?,
        None => text.len(),
    };
    Ok(Value::text(&text[from..to]))
}

/// At most so many; negative is all.
fn limit(args: &[Value<'_>], at: usize) -> usize {
    match args.get(at) {
        Some(Value::Int(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
        _ => usize::MAX,
    }
}

fn replace<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::String(text), Value::String(old), Value::String(new), ..] = args else {
        return Err(Fault::no_overload());
    };
    let count = limit(args, 3);
    meter.text(text.len())?;
    let found = match old.is_empty() {
        true => text.chars().count() + 1,
        false => text.matches(&**old).count(),
    };
    meter.text(text.len().saturating_add(found.min(count).saturating_mul(new.len())))?;
    Ok(Value::String(Text::from(text.replacen(&**old, new, count))))
}

fn split<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (text, separator) = texts(args)?;
    meter.work(text.len())?;
    let count = limit(args, 2);
    let parts: Vec<Value<'a>> = match (count, separator.is_empty()) {
        (0, _) => Vec::new(),
        (_, false) => text.splitn(count, separator).map(Value::text).collect(),
        (_, true) => {
            let mut parts = Vec::new();
            let mut rest = text;
            while let Some(c) = rest.chars().next() {
                if parts.len() + 1 == count {
                    break;
                }
                let (head, tail) = rest.split_at(c.len_utf8());
                parts.push(Value::text(head));
                rest = tail;
            }
            if !rest.is_empty() {
                parts.push(Value::text(rest));
            }
            parts
        }
    };
    Ok(Value::list(parts))
}

fn join<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::List(list), rest @ ..] = args else { return Err(Fault::no_overload()) };
    let separator = match rest {
        [Value::String(text), ..] => text.to_string(),
        _ => String::new(),
    };
    let mut out = String::new();
    for (index, item) in list.items(meter)?.iter().enumerate() {
        let Value::String(item) = item else {
            return Err(Fault::failed(format!("join: invalid input: {}", item.type_name())));
        };
        meter.grow(out.len(), separator.len() + item.len())?;
        if index > 0 {
            out.push_str(&separator);
        }
        out.push_str(item);
    }
    Ok(Value::String(Text::from(out)))
}
