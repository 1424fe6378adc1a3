//! The query string, decoded once.

use api::status::ApiError;

/// Pairs in their order; a name may come several times (`command=sh&command=-c`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (percent_decode(name, true), percent_decode(value, true))
        };
        Self(text.split('&').filter(|p| !p.is_empty()).map(pair).collect())
    }

    /// The first value, empty ones count as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Only absence, `false` and `0` are false, as the API reads its options; also `?watch` and `?watch=yes` are true.
    pub fn flag(&self, name: &str) -> bool {
        self.option_flag(name).unwrap_or(false)
    }

    /// As [`Query::flag`], telling absent from false.
    pub fn option_flag(&self, name: &str) -> Option<bool> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        Some(!(value.eq_ignore_ascii_case("false") || value == "0"))
    }

    /// A whole number; the error is worded as the original words it.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some((_, text)) = self.0.iter().find(|(n, _)| n == name) else { return Ok(None) };
        let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
        let digits = !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_digit());
        let problem = if digits { "value out of range" } else { "invalid syntax" };
        let wrong = |_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: {problem}"));
        text.parse().map(Some).map_err(wrong)
    }
}

/// Decodes `%xx`, and `+` as a space where that is the custom.
pub fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let digit =
        |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 2;
            }
            (b'+', _, _) if plus_is_space => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Encodes what may not stand in a query.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_pairs_in_order() {
        let query = Query::parse("a=1&b=x%20y+z&a=2&c&labelSelector=k%3Dv%2Cw");
        assert_eq!(query.get("b"), Some("x y z"));
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.get("c"), None);
        assert_eq!(query.get("labelSelector"), Some("k=v,w"));
        assert_eq!((query.flag("c"), query.flag("d"), query.option_flag("d")), (true, false, None));
        assert_eq!(query.number("a"), Ok(Some(1)));
        let message = |text: &str| Query::parse(text).number("n").map_err(|e| (e.code, e.message));
        assert_eq!(message("n=abc"), Err((400, "strconv.ParseInt: parsing \"abc\": invalid syntax".into())));
        let large = "strconv.ParseInt: parsing \"99999999999999999999\": value out of range";
        assert_eq!(message("n=99999999999999999999"), Err((400, large.into())));
        assert_eq!(percent_decode("%zz%4", false), "%zz%4");
        assert_eq!(Query::parse(&format!("v={}", percent_encode("a b&ü"))).get("v"), Some("a b&ü"));
    }
}
