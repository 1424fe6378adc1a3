//! Formats of numbers and codes that people give each other.

use std::sync::LazyLock;

use regex::Regex;

/// A pattern that is compiled once.
macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("a pattern of ours"));
    };
}

pattern!(BASE64, "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$");
pattern!(HEX_COLOR, "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
pattern!(SSN, "^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$");
pattern!(
    CREDIT_CARD,
    "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$"
);
pattern!(RGB_COLOR, &{
    const PART: &str = r"[\t\n\f\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\f\r ]*";
    format!(r"^rgb\({PART},{PART},{PART}\)$")
});
pattern!(UUID, "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$");

pub fn is_base64(text: &str) -> bool {
    BASE64.is_match(text)
}

pub fn is_hex_color(text: &str) -> bool {
    HEX_COLOR.is_match(text)
}

pub fn is_rgb_color(text: &str) -> bool {
    RGB_COLOR.is_match(text)
}

/// A social security number of the United States.
pub fn is_ssn(text: &str) -> bool {
    text.len() == 11 && SSN.is_match(text)
}

/// `version` is the first digit of the third group; later versions also say their variant in the fourth.
pub fn is_uuid(text: &str, version: Option<char>) -> bool {
    if !UUID.is_match(text) {
        return false;
    }
    let digits: Vec<char> = text.chars().filter(|c| *c != '-').collect();
    let variant = || matches!(digits.get(16), Some('8' | '9' | 'a' | 'b' | 'A' | 'B'));
    match version {
        None => true,
        Some('3') => digits.get(12) == Some(&'3'),
        version => digits.get(12) == version.as_ref() && variant(),
    }
}

/// Numbers of known issuers, with anything between the digits, whose last digit is the sum of the others as Luhn has it.
pub fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if !CREDIT_CARD.is_match(&digits) {
        return false;
    }
    let values = digits.bytes().rev().map(|b| u32::from(b - b'0')).enumerate();
    let sum: u32 = values.map(|(at, n)| if at % 2 == 0 { n } else { n * 2 / 10 + n * 2 % 10 }).sum();
    sum.is_multiple_of(10)
}

/// The letters of a book's number.
fn book(text: &str) -> Vec<u8> {
    text.bytes().filter(|b| !matches!(b, b'-' | b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')).collect()
}

pub fn is_isbn10(text: &str) -> bool {
    let letters = book(text);
    let [digits @ .., last] = letters.as_slice() else { return false };
    let last = match last {
        b'X' => 10,
        b'0'..=b'9' => u32::from(last - b'0'),
        _ => return false,
    };
    if digits.len() != 9 || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = digits.iter().zip(1..).map(|(b, weight)| weight * u32::from(b - b'0')).sum();
    (sum + 10 * last).is_multiple_of(11)
}

pub fn is_isbn13(text: &str) -> bool {
    let letters = book(text);
    if letters.len() != 13 || !letters.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let digits = letters.iter().enumerate();
    let sum: u32 = digits.map(|(at, b)| u32::from(b - b'0') * if at % 2 == 0 { 1 } else { 3 }).sum();
    sum.is_multiple_of(10)
}
