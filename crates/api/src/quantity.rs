//! Resource quantities (`100m`, `1.5Gi`, `1e3`): exact numbers in units of 10⁻⁹, with the suffix family they were
//! written in. Kubernetes' documented limits apply: finer digits round away from zero, and the canonical form has
//! no fraction and the largest possible suffix.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// Far beyond what any resource needs, and far enough from overflow that sums stay exact.
const LIMIT: i128 = i128::MAX / 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `m`, `k`, `M` …
    DecimalSi,
    /// `Ki`, `Mi` …
    BinarySi,
    /// `e3`
    DecimalExponent,
}

/// Equality and order are those of the number: `1` = `1000m`.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        text.parse()
    }

    /// A whole number, written with decimal suffixes.
    pub fn from_units(value: i64) -> Self {
        Self { nano: i128::from(value) * NANO, format: Format::DecimalSi }
    }

    /// Thousandths, as CPU time is counted.
    pub fn from_milli(value: i64) -> Self {
        Self { nano: i128::from(value) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A whole number, written with binary suffixes.
    pub fn from_bytes(value: i64) -> Self {
        Self { format: Format::BinarySi, ..Self::from_units(value) }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The whole number, rounded away from zero; held at the ends of the range.
    pub fn to_i64(&self) -> i64 {
        clamp(divide_away(self.nano, NANO))
    }

    /// Thousandths, rounded away from zero; held at the ends of the range.
    pub fn to_milli(&self) -> i64 {
        clamp(divide_away(self.nano, NANO / 1000))
    }

    pub fn to_f64(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// Whether the number is whole, as extended resources must be.
    pub fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }

    pub fn negate(self) -> Self {
        Self { nano: -self.nano, ..self }
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn divide_away(value: i128, by: i128) -> i128 {
    let whole = value / by;
    if value % by == 0 { whole } else { whole + value.signum() }
}

impl std::ops::Add for Quantity {
    type Output = Self;
    /// Keeps the left side's suffix family, unless that side is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano).clamp(-LIMIT, LIMIT), format }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        std::ops::Add::add(self, other.negate())
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, |sum, item| sum + item)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Format);
        }
        let (format, base, exponent) = read_suffix(suffix)?;
        let digits: String = format!("{whole}{fraction}");
        let power = i64::from(exponent) + 9 - fraction.len() as i64;
        let magnitude = scale(digits.trim_start_matches('0'), power, base);
        Ok(Self { nano: if negative { -magnitude } else { magnitude }, format })
    }
}

/// The suffix family, the power of two and the power of ten a suffix stands for.
fn read_suffix(suffix: &str) -> Result<(Format, u32, i32), QuantityError> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::DecimalSi, 0, *power));
    }
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::BinarySi, *power, 0));
    }
    let allowed = |c: char| c.is_ascii_digit() || "eEinumkKMGTP+-".contains(c);
    match suffix.strip_prefix(['e', 'E']) {
        Some(exponent) => match exponent.parse::<i32>() {
            Ok(exponent) => Ok((Format::DecimalExponent, 0, exponent)),
            Err(_) => Err(QuantityError::Suffix),
        },
        None if suffix.chars().all(allowed) => Err(QuantityError::Suffix),
        None => Err(QuantityError::Format),
    }
}

/// digits × 10^power × 2^binary, rounded away from zero and held at the limit.
fn scale(digits: &str, power: i64, binary: u32) -> i128 {
    if digits.is_empty() {
        return 0;
    }
    // Digits that cannot matter behind the last kept place are dropped, but still round up.
    let excess = usize::try_from(-power - 20).unwrap_or(0);
    if excess >= digits.len() {
        return 1;
    }
    let (kept, dropped) = digits.split_at(digits.len() - excess);
    let rest = dropped.bytes().any(|digit| digit != b'0');
    let power = power + excess as i64;
    let Ok(mantissa) = kept.parse::<i128>() else { return LIMIT };
    let Some(mut value) = mantissa.checked_mul(1i128 << binary) else { return LIMIT };
    if power >= 0 {
        for _ in 0..power {
            match value.checked_mul(10) {
                Some(larger) if larger <= LIMIT => value = larger,
                _ => return LIMIT,
            }
        }
        return value.min(LIMIT);
    }
    let divisor = 10i128.pow(u32::try_from(-power).unwrap_or(20).min(38));
    let exact = value % divisor == 0 && !rest;
    (value / divisor + i128::from(!exact)).min(LIMIT)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nano.abs() < 1024 * NANO;
        match self.format {
            _ if self.nano == 0 => f.write_str("0"),
            // A fraction is not lost: it is shown with decimal suffixes.
            Format::BinarySi if !small && self.is_whole() => {
                let mut value = self.nano / NANO;
                let mut suffix = "";
                for (name, _) in BINARY {
                    if value % 1024 != 0 {
                        break;
                    }
                    value /= 1024;
                    suffix = name;
                }
                write!(f, "{value}{suffix}")
            }
            format => {
                let (mut value, mut exponent) = (self.nano, -9);
                while value % 1000 == 0 && (exponent < 18 || format == Format::DecimalExponent) {
                    value /= 1000;
                    exponent += 3;
                }
                match (format, exponent) {
                    (_, 0) => write!(f, "{value}"),
                    (Format::DecimalExponent, _) => write!(f, "{value}e{exponent}"),
                    _ => {
                        let suffix =
                            DECIMAL.iter().find(|(_, power)| *power == exponent).map_or("", |(n, _)| n);
                        write!(f, "{value}{suffix}")
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).map_or_else(|error| format!("{error:?}"), |q| q.to_string())
    }

    #[test]
    fn canonical_forms() {
        for (text, expected) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("512", "512"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1500e0", "1500"),
            ("1E", "1E"),
            ("100Ki", "100Ki"),
            ("1023", "1023"),
            ("0.5Ki", "512"),
            ("1.1Ki", "1126400m"),
            ("11231.52Gi", "12059752771092480m"),
            ("-1.5", "-1500m"),
            ("+2", "2"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.1n", "1n"),
            ("1.0000000001", "1000000001n"),
            ("12e-3", "12e-3"),
            ("1u", "1u"),
            ("123456789", "123456789"),
            ("1Ei", "1Ei"),
            ("1000000Ei", "1000000Ei"),
            ("1e6", "1e6"),
            ("120e3", "120e3"),
            ("1.2e3", "1200"),
            ("0.0001", "100u"),
            ("1025Ki", "1025Ki"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in ["", "x", "1x", "1.2.3", "-", "1 ", " 1", "1ki", "1KiB", "1e", "1mm", ".", "1e1.5", "١"]
        {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
        assert_eq!(Quantity::parse("1mm"), Err(QuantityError::Suffix));
        assert_eq!(Quantity::parse("1,"), Err(QuantityError::Format));
    }

    #[test]
    fn numbers() {
        let q = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(q("1").cmp(&q("1000m")), Ordering::Equal);
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("250m").to_milli(), 250);
        assert_eq!(q("1500u").to_milli(), 2);
        assert_eq!(q("1500m").to_i64(), 2);
        assert_eq!(q("1Ki").to_i64(), 1024);
        assert_eq!(q("100E").to_i64(), i64::MAX);
        assert_eq!((q("1Gi") + q("1")).to_string(), "1073741825");
        assert_eq!((q("1Gi") + q("1Gi")).to_string(), "2Gi");
        assert_eq!((q("0") + q("1Ki")).to_string(), "1Ki");
        assert_eq!((q("2") - q("500m")).to_string(), "1500m");
        assert_eq!(Quantity::from_bytes(1 << 20).to_string(), "1Mi");
        assert_eq!(q("0.25").to_f64(), 0.25);
    }

    /// A fixed walk over many numbers: the canonical form reads as the same number and is its own canonical form.
    #[test]
    fn canonical_form_is_stable() {
        let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
        for _ in 0..20_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e3", "e-3", "E2"];
            let suffix = suffixes[(seed % suffixes.len() as u64) as usize];
            let text = format!("{}.{}{suffix}", (seed >> 20) % 1_000_000, (seed >> 44) % 1000);
            let first = Quantity::parse(&text).unwrap();
            let printed = first.to_string();
            let again = Quantity::parse(&printed).unwrap();
            // Binary numbers lose their fraction, and without a suffix read as decimal ones.
            if first.format() == Format::BinarySi {
                assert!(again >= first && (again - first).to_i64() <= 1, "{text} as {printed}");
            } else {
                assert_eq!(first, again, "{text} as {printed}");
                assert_eq!(again.to_string(), printed, "{text}");
            }
        }
    }
}
