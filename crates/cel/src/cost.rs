//! What calls cost. The figures are part of the API: they decide which rules may be written and which run to their end.

use crate::value::Value;

pub const SELECT: u64 = 1;
pub const LIST: u64 = 10;
pub const MAP: u64 = 30;
pub const OBJECT: u64 = 40;
/// A string's length counts a tenth.
pub const TRAVERSAL: f64 = 0.1;
/// A pattern's length counts a quarter.
pub const PATTERN: f64 = 0.25;
/// What an authorization check costs: two fit into an expression.
pub const CHECK: u64 = 350_000;

/// How a function's cost follows from its arguments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cost {
    One,
    Fixed(u64),
    /// Walks its first argument once (or so many times), as strings are walked.
    Scan(f64),
    /// The same, and gives a string as long.
    Mapped,
    /// `startsWith`, `endsWith`.
    Affix,
    StringToBytes,
    BytesToString,
    Quote,
    /// The second argument's elements are each compared.
    InList,
    /// The shorter of two.
    Compare,
    /// Strings or bytes put together.
    Concat,
    ConcatLists,
    Matches,
    Contains,
    /// A list, or a string, from end to end.
    Walk,
    Replace,
    Split,
    Join,
    Find,
    Selector,
    ContainsIp {
        text: bool,
    },
    ContainsCidr {
        text: bool,
    },
    /// `validate` of a named format.
    Validate,
    Sets(f64),
    /// A new list of the result's size.
    Slice,
    Range,
    Reverse,
    Flatten,
    /// Each element with each other.
    Distinct,
    Sort,
    SortBy,
}

/// `size × factor`, rounded up.
pub fn scaled(size: u64, factor: f64) -> u64 {
    let product = (size as f64 * factor).ceil();
    if product >= u64::MAX as f64 { u64::MAX } else { product as u64 }
}

fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => {
            (0..list.len()).filter_map(|i| list.get(i)).map(|item| item.map_or(1, |i| shallow(&i))).sum()
        }
        other => shallow(other),
    }
}

/// Elements within elements count by their size: lists of lists have no walk of their own.
fn shallow(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(_) | Value::Map(_) => value.size(),
        _ => 1,
    }
}

fn new_list(size: u64, factor: f64) -> u64 {
    scaled(size, factor).saturating_add(1 + LIST)
}

fn self_compare(list: &Value<'_>) -> u64 {
    let size = list.size();
    let first = match list {
        Value::List(list) => list.get(0).and_then(Result::ok),
        _ => None,
    };
    let factor = match first {
        Some(Value::String(_) | Value::Bytes(_)) => 2.0 + TRAVERSAL,
        _ => 2.0,
    };
    let product = size.saturating_mul(size) as f64 * factor;
    (product as u64).saturating_add(1 + LIST)
}

fn pattern_cost(text: u64, pattern: u64) -> u64 {
    scaled(text.saturating_add(1), TRAVERSAL).saturating_mul(scaled(pattern, PATTERN))
}

impl Cost {
    /// Whether the cost is known before the call has been made.
    pub fn is_known_before(self) -> bool {
        !matches!(self, Self::Join | Self::Slice | Self::Range | Self::Reverse)
    }

    /// What a call has cost.
    pub fn actual(self, args: &[Value<'_>], result: &Value<'_>) -> u64 {
        let size = |index: usize| args.get(index).map_or(1, Value::size);
        match self {
            Self::One => 1,
            Self::Fixed(cost) => cost,
            Self::Scan(times) => scaled(size(0), times * TRAVERSAL),
            Self::Mapped | Self::StringToBytes | Self::BytesToString | Self::Quote => {
                scaled(size(0), TRAVERSAL)
            }
            Self::InList => size(1),
            Self::Compare if matches!(args.first(), Some(Value::Opaque(_))) => 1,
            Self::Compare | Self::Affix => scaled(size(0).min(size(1)), TRAVERSAL),
            Self::Concat => scaled(size(0).saturating_add(size(1)), TRAVERSAL),
            Self::ConcatLists => 1,
            Self::Matches | Self::Find => pattern_cost(size(0), size(1)),
            Self::Contains => scaled(size(0), TRAVERSAL).saturating_mul(scaled(size(1), TRAVERSAL)),
            Self::Walk => args.first().map_or(0, traversal),
            Self::Replace | Self::Split => scaled(size(0), 2.0 * TRAVERSAL),
            Self::Join => scaled(result.size(), 2.0 * TRAVERSAL),
            Self::Selector => selector(size(1)),
            Self::ContainsIp { text } => {
                let parse = if text { scaled(size(1), TRAVERSAL) } else { 0 };
                scaled(size(0) * 2, TRAVERSAL) + parse
            }
            Self::ContainsCidr { text } => {
                let parse = if text { scaled(size(1), TRAVERSAL) } else { 0 };
                scaled(size(0) * 2, TRAVERSAL) + scaled(size(0), TRAVERSAL) + 1 + parse
            }
            // A format's own size is that of the pattern it stands for.
            Self::Validate => pattern_cost(size(1), size(0)),
            Self::Sets(times) => scaled(size(0).saturating_mul(size(1)), times).saturating_add(1),
            Self::Slice | Self::Range | Self::Reverse => new_list(result.size(), 1.0),
            Self::Flatten => {
                let depth = match args.get(1) {
                    Some(Value::Int(depth)) => *depth as f64,
                    _ => 1.0,
                };
                new_list(size(0), depth)
            }
            Self::Distinct | Self::Sort => args.first().map_or(1, self_compare),
            Self::SortBy => args.get(1).map_or(1, self_compare),
        }
    }
}

/// A selector is parsed, and each two characters might be a requirement of their own.
pub fn selector(length: u64) -> u64 {
    let requirements = scaled(length, 0.5);
    LIST + scaled(length, TRAVERSAL) + requirements.saturating_mul(LIST + OBJECT)
}
