//! Checks a custom resource against its schema and says what is wrong in the API server's words, and in its order but for
//! properties, which it goes through by chance.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value};

use super::check::Path;
use super::numbers::{go_float, is_whole};
use super::rules::{Logic, Rules};
use super::{List, ListKind, Node, Schema, Shape};
use crate::status::{quoted, too_long, too_many};

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

/// One cause of a 422; its text is `path: message`. What is said of the whole has no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub path: String,
    pub reason: Reason,
    pub message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "<nil>: {}", self.message),
            path => write!(f, "{path}: {}", self.message),
        }
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
    let mut validator = Validator::default();
    validator.walk(schema.node(), value, old);
    if let Some(why) = validator.ended {
        let message = format!("Invalid value: {why}");
        validator.found.push(Invalid { path: String::new(), reason: Reason::Invalid, message });
    }
    validator.found
}

#[derive(Default)]
struct Validator {
    path: Path,
    found: Vec<Invalid>,
    told_bytes: usize,
    work: u64,
    /// How many checks were made: of several alternatives the original tells of the one of which there were most.
    checks: u64,
    /// Too much was found, or done: the rest is not looked at. What was not looked at is not accepted.
    ended: Option<&'static str>,
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if is_integer(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether the original holds it as a whole number: all others are floats, whatever their value.
fn is_integer(number: &serde_json::Number) -> bool {
    number.is_i64()
}

/// The types that values of a shape may have.
fn types_of(shape: &Shape) -> &'static [&'static str] {
    match shape {
        Shape::Int32 | Shape::Int64 => &["integer"],
        Shape::Double => &["number"],
        Shape::Bool => &["boolean"],
        Shape::Message(_) | Shape::Map(_) => &["object"],
        Shape::List(_) => &["array"],
        Shape::IntOrString => &["integer", "string"],
        Shape::Any | Shape::Raw | Shape::FieldsV1 => &[],
        _ => &["string"],
    }
}

impl Validator {
    fn push(&mut self, reason: Reason, message: String) {
        let path = self.path.text().to_owned();
        self.push_at(path, reason, message);
    }

    fn push_at(&mut self, path: String, reason: Reason, message: String) {
        if self.ended.is_some() {
            return;
        }
        self.told_bytes += path.len() + message.len();
        self.found.push(Invalid { path, reason, message });
        if self.told_bytes > MAX_FAULT_BYTES {
            self.ended = Some("too many errors: the rest was not checked");
        }
    }

    fn works(&mut self, amount: u64) {
        self.work = self.work.saturating_add(amount);
        if self.work > MAX_WORK {
            self.ended.get_or_insert("the object takes too long to check against its schema");
        }
    }

    fn steps(&mut self, count: usize) {
        self.works((count as u64).saturating_mul(STEP));
    }

    fn invalid(&mut self, value: &Value, problem: &str) {
        let path = self.path.text();
        let message = format!("Invalid value: {}: {path} in body {problem}", shown(value));
        self.push(Reason::Invalid, message);
    }

    /// What the original says of no field.
    fn whole(&mut self, problem: String) {
        self.push_at(String::new(), Reason::Invalid, format!("Invalid value: \"\": {problem}"));
    }

    fn walk(&mut self, node: Node<'_>, value: &Value, old: Option<&Value>) {
        if self.ended.is_some() || old == Some(value) {
            return;
        }
        // What every object says of itself is looked at elsewhere, but for what a schema adds.
        if node.message().is_some_and(|message| !message.name.is_empty()) {
            return self.names(node, value, old);
        }
        self.steps(1);
        let none = Rules::default();
        let rules = node.rules().unwrap_or(&none);
        // Of values that a schema only lets be nothing is known.
        if node.rules().is_some() {
            self.types(types_of(&node.ty.shape), rules.nullable, rules, value);
        }
        if value.is_null() {
            return self.allowed(rules, value);
        }
        self.logic(rules, value);
        self.scalar(rules, value);
        if let Value::Array(items) = value {
            if let Shape::List(list) = &node.ty.shape {
                self.items(node, list, items, old);
            }
            self.array(rules, items);
        }
        self.allowed(rules, value);
        if let Value::Object(map) = value {
            self.size(rules, map);
            self.closed(rules, map);
            for (name, inner) in map {
                let Some(member) = node.member(name) else { continue };
                let before = self.path.field(name);
                self.walk(member, inner, old.and_then(|old| old.get(name)));
                self.path.cut(before);
            }
            self.required(rules, map);
        }
    }

    fn names(&mut self, node: Node<'_>, value: &Value, old: Option<&Value>) {
        for (name, inner) in value.as_object().into_iter().flatten() {
            let Some(member) = node.member(name).filter(|member| member.rules().is_some()) else { continue };
            let before = self.path.field(name);
            self.walk(member, inner, old.and_then(|old| old.get(name)));
            self.path.cut(before);
        }
    }

    fn items(&mut self, node: Node<'_>, list: &List, items: &[Value], old: Option<&Value>) {
        // Only a list whose elements have keys can be told from its older self element by element.
        let key = |item: &Value| super::unique::key_of(list, item).map(|key| key.to_string());
        let older = old.and_then(Value::as_array).filter(|_| matches!(list.kind, ListKind::Map(_)));
        let older: HashMap<String, &Value> =
            older.into_iter().flatten().filter_map(|item| Some((key(item)?, item))).collect();
        for (index, item) in items.iter().enumerate() {
            let before = self.path.index(index);
            let old = key(item).filter(|_| !older.is_empty()).and_then(|key| older.get(&key).copied());
            self.walk(node.at(&list.item), item, old);
            self.path.cut(before);
        }
    }

    /// A text with a format is looked at by that alone, and a list where such a text belongs by nothing.
    fn types(&mut self, types: &[&str], nullable: bool, rules: &Rules, value: &Value) {
        let format = rules.format.as_deref().unwrap_or_default();
        if types.is_empty() && format.is_empty() {
            return;
        }
        self.checks += 2;
        let wrong = |wanted: &str, found: &str| {
            (
                Reason::TypeInvalid,
                format!("Invalid value: \"{found}\": {{path}} in body must be of type {wanted}: \"{found}\""),
            )
        };
        let own = type_name(value);
        let numeric = types.contains(&"integer") || types.contains(&"number");
        let is_float_int =
            own == "number" && types.contains(&"integer") && value.as_f64().is_some_and(is_whole);
        let fits = types.contains(&own) || is_float_int || own == "integer" && types.contains(&"number");
        let of_numbers = match own {
            "integer" => "int64",
            "number" => "float64",
            _ => "",
        };
        let found = match value {
            Value::Null if types.is_empty() || nullable => return,
            Value::Null => wrong(&types.join(","), "null"),
            Value::String(_) | Value::Array(_) if !format.is_empty() && !numeric => return,
            Value::String(_) | Value::Array(_) if fits => return,
            _ if fits || !format.is_empty() && format == of_numbers => return,
            Value::String(_) | Value::Array(_) => wrong(&types.join(","), own),
            _ if !format.is_empty() => wrong(format, of_numbers),
            _ => wrong(&types.join(","), own),
        };
        let path = self.path.text().to_owned();
        self.push(found.0, found.1.replace("{path}", &path));
    }

    fn scalar(&mut self, rules: &Rules, value: &Value) {
        match value {
            Value::String(text) => self.string(rules, text, value),
            Value::Number(number) => self.number(rules, number, value),
            _ => {}
        }
    }

    /// Of length and pattern the first that is wrong is told.
    fn string(&mut self, rules: &Rules, text: &str, value: &Value) {
        self.checks += 1;
        let length = text.chars().count() as u64;
        let above = rules.max_length.filter(|limit| length > *limit);
        let below = rules.min_length.filter(|limit| length < *limit);
        if let Some(limit) = above {
            self.push(Reason::TooLong, too_long(limit));
        } else if let Some(limit) = below {
            self.invalid(value, &format!("should be at least {limit} chars long"));
        } else if let Some(pattern) = &rules.pattern {
            self.works((pattern.weight as u64).saturating_mul(text.len() as u64 + 1));
            if self.ended.is_none() && !pattern.is_match(text) {
                self.invalid(value, &format!("should match '{}'", pattern.text));
            }
        }
        if let (Some(format), Some(name)) = (rules.text_format, &rules.format) {
            self.checks += 1;
            if !format.fits(text) {
                let path = self.path.text();
                let told = quoted(text);
                let message = format!("Invalid value: {told}: {path} in body must be of type {name}: {told}");
                self.push(Reason::TypeInvalid, message);
            }
        }
    }

    fn number(&mut self, rules: &Rules, number: &serde_json::Number, value: &Value) {
        self.checks += 2;
        let integer = number.as_i64();
        let float = number.as_f64().unwrap_or(0.0);
        self.range(rules, "Checked", float, integer);
        // A whole number is compared with whole limits, where they can be that.
        let as_whole = |limit: f64| integer.filter(|_| !rules.is_integer || limit.fract() == 0.0);
        let limit = |limit: f64| match as_whole(limit) {
            Some(integer) => ((limit as i64).to_string(), integer.cmp(&(limit as i64))),
            None => (go_float(limit), float.total_cmp(&limit)),
        };
        if let Some(factor) = rules.multiple_of {
            self.range(rules, "MultipleOf", factor, None);
            let (told, holds) = match as_whole(factor) {
                Some(integer) => {
                    let factor = factor as i64;
                    (factor.to_string(), (factor > 0).then(|| integer % factor == 0))
                }
                None => {
                    let quotient = if factor < 1.0 { 1.0 / factor * float } else { float / factor };
                    (go_float(factor), (factor > 0.0).then(|| is_whole(quotient)))
                }
            };
            match holds {
                Some(true) => {}
                Some(false) => self.invalid(value, &format!("should be a multiple of {told}")),
                None => {
                    let path = self.path.text();
                    let detail = format!("factor MultipleOf declared for {path} must be positive: {told}");
                    self.push(Reason::Invalid, format!("Invalid value: {told}: {detail}"));
                }
            }
        }
        if let Some(minimum) = rules.minimum {
            self.range(rules, "Minimum boundary", minimum, None);
            let (told, order) = limit(minimum);
            match rules.exclusive_minimum {
                true if order.is_le() => self.invalid(value, &format!("should be greater than {told}")),
                false if order.is_lt() => {
                    self.invalid(value, &format!("should be greater than or equal to {told}"));
                }
                _ => {}
            }
        }
        if let Some(maximum) = rules.maximum {
            self.range(rules, "Maximum boundary", maximum, None);
            let (told, order) = limit(maximum);
            match rules.exclusive_maximum {
                true if order.is_ge() => self.invalid(value, &format!("should be less than {told}")),
                false if order.is_gt() => {
                    self.invalid(value, &format!("should be less than or equal to {told}"))
                }
                _ => {}
            }
        }
    }

    /// Whether a number, or what limits it, can be held as its type and format say.
    fn range(&mut self, rules: &Rules, what: &str, number: f64, integer: Option<i64>) {
        let format = rules.format.as_deref().unwrap_or_default();
        let holds = match (rules.is_integer, format) {
            (true, "int32") => match integer {
                Some(integer) => i32::try_from(integer).is_ok(),
                None => number.fract() == 0.0 && number.abs() < 1e21 && f64::from(number as i32) == number,
            },
            (true, _) => integer.is_some() || number.fract() == 0.0 && number.abs() < i64::MAX as f64,
            (false, "float") => number.abs() <= f64::from(f32::MAX),
            _ => true,
        };
        if holds {
            return;
        }
        let kind = if rules.is_integer { "integer" } else { "number" };
        let format =
            if format.is_empty() { "(default format)".to_owned() } else { format!("with format {format}") };
        let path = self.path.text();
        self.whole(format!("{what} value must be of type {kind} {format} in {path}"));
    }

    fn array(&mut self, rules: &Rules, items: &[Value]) {
        self.checks += 2;
        let count = items.len() as u64;
        let told = Value::from(count);
        if let Some(limit) = rules.min_items.filter(|limit| count < *limit) {
            self.invalid(&told, &format!("should have at least {limit} items"));
        }
        if let Some(limit) = rules.max_items.filter(|limit| count > *limit) {
            self.push(Reason::TooMany, too_many(count, limit));
        }
    }

    fn allowed(&mut self, rules: &Rules, value: &Value) {
        self.checks += 1;
        if rules.allowed.is_empty() || rules.allows(value) {
            return;
        }
        let text = |value: &Value| match value {
            Value::String(text) => quoted(text),
            other => quoted(&other.to_string()),
        };
        let allowed: Vec<String> = rules.allowed.iter().map(text).collect();
        let message =
            format!("Unsupported value: {}: supported values: {}", shown(value), allowed.join(", "));
        self.push(Reason::NotSupported, message);
    }

    fn size(&mut self, rules: &Rules, map: &Map<String, Value>) {
        self.checks += 1;
        let count = map.len() as u64;
        if let Some(limit) = rules.min_properties.filter(|limit| count < *limit) {
            self.invalid(&count.into(), &format!("should have at least {limit} properties"));
        }
        if let Some(limit) = rules.max_properties.filter(|limit| count > *limit) {
            self.push(Reason::TooMany, too_many(count, limit));
        }
    }

    fn closed(&mut self, rules: &Rules, map: &Map<String, Value>) {
        for name in map.keys().filter(|_| rules.closed) {
            let message = format!(
                "Invalid value: {}: {}.{name} in body is a forbidden property",
                quoted(name),
                self.path.text()
            );
            self.push(Reason::Invalid, message);
        }
    }

    fn required(&mut self, rules: &Rules, map: &Map<String, Value>) {
        self.steps(rules.required.len());
        for name in rules.required.iter().filter(|name| !map.contains_key(&***name)) {
            if self.ended.is_some() {
                return;
            }
            let before = self.path.field(name);
            self.push(Reason::Required, "Required value".to_owned());
            self.path.cut(before);
        }
    }

    /// Alternatives: with what does not hold the faults are told of that which came closest.
    fn logic(&mut self, rules: &Rules, value: &Value) {
        self.checks += 2;
        let path = quoted(self.path.text());
        if !rules.any_of.is_empty() {
            let judged = self.judged(&rules.any_of, value, true);
            if judged.holding == 0 {
                self.whole(format!("{path} must validate at least one schema (anyOf)"));
                self.found.extend(judged.closest);
            }
        }
        if !rules.one_of.is_empty() {
            let judged = self.judged(&rules.one_of, value, false);
            let why = match judged.holding {
                0 => "Found none valid".to_owned(),
                holding => format!("Found {holding} valid alternatives"),
            };
            if judged.holding != 1 {
                self.whole(format!("{path} must validate one and only one schema (oneOf). {why}"));
                self.found.extend(judged.closest);
            }
        }
        let mut holding = 0;
        for logic in &rules.all_of {
            let (faults, _) = self.aside(logic, value);
            holding += usize::from(faults.is_empty());
            self.found.extend(faults);
        }
        if holding < rules.all_of.len() {
            let none = if holding == 0 { ". None validated" } else { "" };
            self.whole(format!("{path} must validate all the schemas (allOf){none}"));
        }
        if let Some(not) = &rules.not
            && self.aside(not, value).0.is_empty()
        {
            self.whole(format!("{path} must not validate the schema (not)"));
        }
    }

    fn judged(&mut self, logics: &[Logic], value: &Value, one_is_enough: bool) -> Judged {
        let mut judged = Judged { holding: 0, closest: Vec::new() };
        let mut most = 0;
        for logic in logics {
            let (faults, checks) = self.aside(logic, value);
            if faults.is_empty() {
                judged.holding += 1;
                judged.closest.clear();
                if one_is_enough {
                    break;
                }
            } else if judged.holding == 0 && (judged.closest.is_empty() || checks > most) {
                (judged.closest, most) = (faults, checks);
            }
        }
        judged
    }

    /// The faults of an alternative, and how much was checked.
    fn aside(&mut self, logic: &Logic, value: &Value) -> (Vec<Invalid>, u64) {
        let (found, checks) = (std::mem::take(&mut self.found), std::mem::take(&mut self.checks));
        let told_bytes = self.told_bytes;
        self.restriction(logic, value);
        self.told_bytes = told_bytes;
        (std::mem::replace(&mut self.found, found), std::mem::replace(&mut self.checks, checks))
    }

    fn restriction(&mut self, logic: &Logic, value: &Value) {
        self.steps(1);
        if self.ended.is_some() {
            return;
        }
        let (rules, types) = (&logic.rules, logic.json_type.as_deref());
        self.types(types.as_slice(), rules.nullable, rules, value);
        if value.is_null() {
            return self.allowed(rules, value);
        }
        self.logic(rules, value);
        self.scalar(rules, value);
        if let Value::Array(items) = value {
            for (index, item) in items.iter().enumerate() {
                let Some(inner) = &logic.items else { break };
                let before = self.path.index(index);
                self.restriction(inner, item);
                self.path.cut(before);
            }
            self.array(rules, items);
        }
        self.allowed(rules, value);
        if let Value::Object(map) = value {
            self.size(rules, map);
            for (name, inner) in map {
                let known = logic.properties.get(name.as_str());
                let Some(logic) = known.or(logic.additional.as_deref()) else { continue };
                let before = self.path.field(name);
                self.restriction(logic, inner);
                self.path.cut(before);
            }
            self.required(rules, map);
        }
    }
}

struct Judged {
    holding: usize,
    closest: Vec<Invalid>,
}

/// Floats that are whole are written as whole numbers.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => go_float(number.as_f64().unwrap_or(0.0)),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}
