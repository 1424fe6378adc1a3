//! Checks a custom resource against its schema and says what is wrong in the API server's words.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_json::{Map, Value};

use super::check::{Path, decode_base64};
use super::rules::{Logic, Rules};
use super::{List, ListKind, Node, Schema, Shape};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Required,
    Invalid,
    TypeInvalid,
    NotSupported,
    Duplicate,
    TooLong,
    TooMany,
}

impl Reason {
    /// Whether the value is not of the form that everything else is said of.
    pub fn is_of_form(self) -> bool {
        !matches!(self, Self::Invalid | Self::Duplicate)
    }

    /// The `reason` of a `StatusCause`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }
}

/// One cause of a 422; its text is `path: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub path: String,
    pub reason: Reason,
    pub message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Faults are told up to so much text. An object may have one in each of its elements, and each may list what is allowed.
const MAX_FAULT_BYTES: usize = 1 << 20;
/// What checking one object may take: places in schemas that are looked at, and letters of texts by the states of the
/// patterns that they are held against. The product of a large schema and a large object has no other bound.
const MAX_WORK: u64 = 1_000_000_000;
/// What a step takes, measured in letters held against a state.
const STEP: u64 = 64;

/// What is wrong with `value`. Where it is equal to what stood there in `old`, nothing is.
pub fn validate(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<Invalid> {
    if schema.is_builtin() {
        return Vec::new();
    }
    let mut found = walk(schema, value, old);
    let repeated = |fault: &Invalid| fault.reason == Reason::Duplicate;
    // Whoever had elements twice may keep them.
    if let Some(old) = old
        && found.iter().any(repeated)
        && walk(schema, old, None).iter().any(repeated)
    {
        found.retain(|fault| !repeated(fault));
    }
    found.sort_by(|a, b| (&a.path, &a.message).cmp(&(&b.path, &b.message)));
    found
}

fn walk(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut validator = Validator::default();
    validator.walk(schema.node(), value, old);
    validator.found
}

#[derive(Default)]
struct Validator {
    path: Path,
    found: Vec<Invalid>,
    told_bytes: usize,
    work: u64,
    /// Too much was found, or done: the rest is not looked at.
    ended: bool,
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn type_fits(wanted: &str, value: &Value) -> bool {
    let found = type_name(value);
    let whole = || value.as_f64().is_some_and(|number| number.fract() == 0.0);
    found == wanted
        || (wanted == "number" && found == "integer")
        || (wanted == "integer" && found == "number" && whole())
}

fn shape_type(shape: &Shape) -> Option<&'static str> {
    Some(match shape {
        Shape::Int32 | Shape::Int64 => "integer",
        Shape::Double => "number",
        Shape::Bool => "boolean",
        Shape::Message(_) | Shape::Map(_) => "object",
        Shape::List(_) => "array",
        Shape::IntOrString => "integer,string",
        Shape::Any | Shape::Raw | Shape::FieldsV1 => return None,
        _ => "string",
    })
}

impl Validator {
    fn push(&mut self, reason: Reason, message: String) {
        if self.ended {
            return;
        }
        let path = self.path.text().to_owned();
        self.told_bytes += path.len() + message.len();
        self.found.push(Invalid { path, reason, message });
        if self.told_bytes > MAX_FAULT_BYTES {
            self.end("too many errors: the rest was not checked");
        }
    }

    /// What was not looked at is not accepted.
    fn end(&mut self, why: &str) {
        if !self.ended {
            self.ended = true;
            let message = format!("Invalid value: {why}");
            self.found.push(Invalid { path: "<nil>".to_owned(), reason: Reason::Invalid, message });
        }
    }

    fn works(&mut self, amount: u64) {
        self.work = self.work.saturating_add(amount);
        if self.work > MAX_WORK {
            self.end("the object takes too long to check against its schema");
        }
    }

    fn steps(&mut self, count: usize) {
        self.works((count as u64).saturating_mul(STEP));
    }

    fn invalid(&mut self, value: &Value, problem: &str) {
        let path = self.path.text().to_owned();
        self.push(Reason::Invalid, format!("Invalid value: {value}: {path} in body {problem}"));
    }

    fn walk(&mut self, node: Node<'_>, value: &Value, old: Option<&Value>) {
        if self.ended || old == Some(value) {
            return;
        }
        self.steps(1);
        if value.is_null() && node.rules().is_none_or(|rules| rules.nullable) {
            return;
        }
        if let Some(wanted) = shape_type(&node.ty.shape)
            && !wanted.split(',').any(|wanted| type_fits(wanted, value))
        {
            let (path, found) = (self.path.text().to_owned(), type_name(value));
            let message =
                format!("Invalid value: \"{found}\": {path} in body must be of type {wanted}: \"{found}\"");
            return self.push(Reason::TypeInvalid, message);
        }
        if let Some(rules) = node.rules() {
            self.rules(rules, value);
        }
        match (value, &node.ty.shape) {
            (Value::Object(map), _) => {
                for (name, inner) in map {
                    let Some(member) = node.member(name) else { continue };
                    let before = self.path.field(name);
                    self.walk(member, inner, old.and_then(|old| old.get(name)));
                    self.path.cut(before);
                }
            }
            (Value::Array(items), Shape::List(list)) => self.items(node, list, items, old),
            _ => {}
        }
    }

    fn items(&mut self, node: Node<'_>, list: &List, items: &[Value], old: Option<&Value>) {
        // Only a list whose elements have keys can be told from its older self element by element.
        let keyed = matches!(list.kind, ListKind::Map(_));
        let older: HashMap<String, &Value> = old
            .and_then(Value::as_array)
            .filter(|_| keyed)
            .into_iter()
            .flatten()
            .filter_map(|item| Some((key_of(list, item)?.to_string(), item)))
            .collect();
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let before = self.path.index(index);
            let key = match &list.kind {
                ListKind::Atomic => None,
                ListKind::Set => Some(item.to_string()),
                ListKind::Map(_) => key_of(list, item).map(|key| key.to_string()),
            };
            let old = key.as_ref().and_then(|key| older.get(key).copied());
            if let Some(key) = key
                && !seen.insert(key.clone())
            {
                self.push(Reason::Duplicate, format!("Duplicate value: {key}"));
            }
            self.walk(node.at(&list.item), item, old);
            self.path.cut(before);
        }
    }

    fn rules(&mut self, rules: &Rules, value: &Value) {
        if !rules.allowed.is_empty() && !rules.allowed_set.contains(value) {
            let allowed: Vec<String> = rules.allowed.iter().map(ToString::to_string).collect();
            let message = format!("Unsupported value: {value}: supported values: {}", allowed.join(", "));
            self.push(Reason::NotSupported, message);
        }
        match value {
            Value::String(text) => self.string(rules, text, value),
            Value::Number(number) => self.number(rules, number.as_f64().unwrap_or(0.0), value),
            Value::Array(items) => self.array(rules, items, value),
            Value::Object(map) => self.object(rules, map, value),
            _ => {}
        }
        self.logic(rules, value);
    }

    fn string(&mut self, rules: &Rules, text: &str, value: &Value) {
        let length = text.chars().count() as u64;
        if let Some(limit) = rules.max_length.filter(|limit| length > *limit) {
            self.push(Reason::TooLong, format!("Too long: may not be more than {limit} bytes"));
        }
        if let Some(limit) = rules.min_length.filter(|limit| length < *limit) {
            self.invalid(value, &format!("should be at least {limit} chars long"));
        }
        if let Some(pattern) = &rules.pattern {
            self.works((pattern.weight as u64).saturating_mul(text.len() as u64 + 1));
            if !self.ended && !pattern.is_match(text) {
                self.invalid(value, &format!("should match '{}'", pattern.text));
            }
        }
        if let Some(format) = rules.format.as_ref().filter(|format| !fits_format(format, text)) {
            self.invalid(value, &format!("must be of type {format}: {value}"));
        }
    }

    fn number(&mut self, rules: &Rules, number: f64, value: &Value) {
        if let Some(limit) = rules.maximum {
            if rules.exclusive_maximum && number >= limit {
                self.invalid(value, &format!("should be less than {limit}"));
            } else if number > limit {
                self.invalid(value, &format!("should be less than or equal to {limit}"));
            }
        }
        if let Some(limit) = rules.minimum {
            if rules.exclusive_minimum && number <= limit {
                self.invalid(value, &format!("should be greater than {limit}"));
            } else if number < limit {
                self.invalid(value, &format!("should be greater than or equal to {limit}"));
            }
        }
        let factor = rules.multiple_of.filter(|factor| *factor > 0.0);
        if let Some(factor) = factor.filter(|factor| (number / factor).fract() != 0.0) {
            self.invalid(value, &format!("should be a multiple of {factor}"));
        }
        let whole = number.fract() == 0.0;
        if rules.format.as_deref() == Some("int32") && whole && (number as i64) != i64::from(number as i32) {
            self.invalid(value, &format!("must be of type int32: {value}"));
        }
    }

    fn array(&mut self, rules: &Rules, items: &[Value], value: &Value) {
        let count = items.len() as u64;
        if let Some(limit) = rules.max_items.filter(|limit| count > *limit) {
            self.push(Reason::TooMany, format!("Too many: {count}: must have at most {limit} items"));
        }
        if let Some(limit) = rules.min_items.filter(|limit| count < *limit) {
            self.invalid(value, &format!("should have at least {limit} items"));
        }
        let mut seen = HashSet::new();
        if rules.unique_items && !items.iter().all(|item| seen.insert(item.to_string())) {
            self.invalid(value, "shouldn't contain duplicates");
        }
    }

    fn object(&mut self, rules: &Rules, map: &Map<String, Value>, value: &Value) {
        self.steps(rules.required.len());
        for name in rules.required.iter().filter(|name| !map.contains_key(&***name)) {
            if self.ended {
                return;
            }
            let before = self.path.field(name);
            self.push(Reason::Required, "Required value".to_owned());
            self.path.cut(before);
        }
        let count = map.len() as u64;
        if let Some(limit) = rules.max_properties.filter(|limit| count > *limit) {
            self.push(Reason::TooMany, format!("Too many: {count}: must have at most {limit} items"));
        }
        if let Some(limit) = rules.min_properties.filter(|limit| count < *limit) {
            self.invalid(value, &format!("should have at least {limit} properties"));
        }
        for name in ["apiVersion", "kind"].iter().filter(|_| rules.embedded) {
            if map.get(*name).and_then(Value::as_str).unwrap_or_default().is_empty() {
                let before = self.path.field(name);
                self.push(Reason::Required, "Required value: must not be empty".to_owned());
                self.path.cut(before);
            }
        }
    }

    fn logic(&mut self, rules: &Rules, value: &Value) {
        let (all, any, one) = (&rules.all_of, &rules.any_of, &rules.one_of);
        let (all_hold, any_hold, one_hold) =
            (self.holding(all, value), self.holding(any, value), self.holding(one, value));
        let not = rules.not.as_ref().is_some_and(|not| self.logic_holds(not, value));
        let path = self.path.text().to_owned();
        let mut fail = |problem: String| {
            self.push(Reason::Invalid, format!("Invalid value: \"{path}\" must {problem}"));
        };
        if all_hold < all.len() {
            fail("validate all the schemas (allOf)".into());
        }
        if !any.is_empty() && any_hold == 0 {
            fail("validate at least one schema (anyOf)".into());
        }
        match one_hold {
            1 => {}
            _ if one.is_empty() => {}
            0 => fail("validate one and only one schema (oneOf). Found none valid".into()),
            n => fail(format!("validate one and only one schema (oneOf). Found {n} valid alternatives")),
        }
        if not {
            fail("not validate the schema (not)".into());
        }
    }

    /// How many of them hold.
    fn holding(&mut self, logics: &[Logic], value: &Value) -> usize {
        logics.iter().filter(|logic| self.logic_holds(logic, value)).count()
    }

    fn logic_holds(&mut self, logic: &Logic, value: &Value) -> bool {
        self.steps(1);
        if self.ended || logic.json_type.as_ref().is_some_and(|wanted| !type_fits(wanted, value)) {
            return false;
        }
        // Told of nothing, at the same cost.
        let mut own = Validator { work: self.work, ..Validator::default() };
        own.rules(&logic.rules, value);
        self.works(own.work - self.work);
        if !own.found.is_empty() {
            return false;
        }
        match value {
            Value::Object(map) => map.iter().all(|(name, inner)| {
                let known = logic.properties.get(name.as_str());
                known.or(logic.additional.as_deref()).is_none_or(|logic| self.logic_holds(logic, inner))
            }),
            Value::Array(items) => match &logic.items {
                Some(logic) => items.iter().all(|item| self.logic_holds(logic, item)),
                None => true,
            },
            _ => true,
        }
    }
}

/// A list-map element's key fields, with the defaults its schema gives them.
fn key_of(list: &List, item: &Value) -> Option<Value> {
    let ListKind::Map(keys) = &list.kind else { return None };
    let map = item.as_object()?;
    let key: Map<String, Value> =
        keys.iter().filter_map(|key| Some((key.to_string(), map.get(&**key)?.clone()))).collect();
    (!key.is_empty()).then_some(Value::Object(key))
}

/// Formats the API server knows; unknown ones say nothing about the value.
fn fits_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(ip, length)| {
            let bits = ip.parse::<std::net::IpAddr>().map(|ip| if ip.is_ipv4() { 32 } else { 128 });
            matches!((bits, length.parse::<u8>()), (Ok(bits), Ok(length)) if length <= bits)
        }),
        "byte" => decode_base64(text).is_some(),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => {
            let hex: Vec<usize> = text.split('-').map(str::len).collect();
            hex == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
        }
        _ => true,
    }
}
