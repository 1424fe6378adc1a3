//! Declarations: what an object's fields are, how large they can be, and how JSON is read as values of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::fault::Fault;
use crate::lists::List;
use crate::time;
use crate::types::Type;
use crate::value::{Map, Text, Value};

/// The largest request; the sizes of what has no bound of its own follow from it.
pub const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    Set,
    /// Elements are known by these fields.
    Map(Vec<Box<str>>),
}

#[derive(Debug, Clone)]
pub enum DeclKind {
    /// Any JSON; also `x-kubernetes-int-or-string`.
    Dyn,
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Timestamp,
    Date,
    Duration,
    List {
        item: Arc<Decl>,
        kind: ListKind,
    },
    Map(Arc<Decl>),
    Object {
        name: Arc<str>,
        /// By the name that expressions use.
        fields: BTreeMap<Box<str>, Field>,
    },
    /// A type that only expressions make values of.
    Other(Type),
}

#[derive(Debug, Clone)]
pub struct Field {
    /// Its name in JSON.
    pub json: Box<str>,
    pub decl: Arc<Decl>,
}

#[derive(Debug, Clone)]
pub struct Decl {
    pub kind: DeclKind,
    /// How many elements, members or characters there can be.
    pub max_elements: u64,
    /// The least number of bytes it takes as JSON.
    pub min_size: u64,
}

impl Decl {
    pub fn new(kind: DeclKind, max_elements: u64, min_size: u64) -> Self {
        Self { kind, max_elements, min_size }
    }

    /// Any value, with the size of the largest request.
    pub fn any() -> &'static Arc<Self> {
        static ANY: std::sync::LazyLock<Arc<Decl>> =
            std::sync::LazyLock::new(|| Arc::new(Decl::new(DeclKind::Dyn, u64::MAX, 1)));
        &ANY
    }

    pub fn ty(&self) -> Type {
        match &self.kind {
            DeclKind::Dyn => Type::Dyn,
            DeclKind::Bool => Type::Bool,
            DeclKind::Int => Type::Int,
            DeclKind::Double => Type::Double,
            DeclKind::String => Type::String,
            DeclKind::Bytes => Type::Bytes,
            DeclKind::Timestamp | DeclKind::Date => Type::Timestamp,
            DeclKind::Duration => Type::Duration,
            DeclKind::List { item, .. } => Type::list(item.ty()),
            DeclKind::Map(value) => Type::map(Type::String, value.ty()),
            DeclKind::Object { name, .. } => Type::Object(Arc::clone(name)),
            DeclKind::Other(ty) => ty.clone(),
        }
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self.kind, DeclKind::Object { .. })
    }

    pub(crate) fn object_name(&self) -> Option<&str> {
        match &self.kind {
            DeclKind::Object { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The name expressions use for a JSON member, where it is declared.
    pub(crate) fn member<'b>(&self, json: &'b str) -> Option<Cow<'b, str>> {
        match &self.kind {
            DeclKind::Object { fields, .. } => {
                let name = escape(json)?;
                fields.contains_key(&*name).then_some(name)
            }
            _ => Some(Cow::Borrowed(json)),
        }
    }

    /// The declaration of what expressions call `name`, and its name in JSON where that is another.
    pub(crate) fn declared(&self, name: &str) -> Option<(Option<&str>, &Decl)> {
        match &self.kind {
            DeclKind::Object { fields, .. } => {
                let field = fields.get(name)?;
                Some((Some(&field.json), &field.decl))
            }
            DeclKind::Map(value) => Some((None, value)),
            _ => Some((None, Self::any())),
        }
    }

    pub fn field(&self, name: &str) -> Option<&Arc<Decl>> {
        match &self.kind {
            DeclKind::Object { fields, .. } => fields.get(name).map(|field| &field.decl),
            _ => None,
        }
    }

    pub fn read<'a>(&'a self, json: &'a Json) -> Result<Value<'a>, Fault> {
        Ok(match (&self.kind, json) {
            (_, Json::Null) => Value::Null,
            (_, Json::Bool(b)) => Value::Bool(*b),
            (DeclKind::Double, Json::Number(n)) => Value::Double(n.as_f64().unwrap_or(0.0)),
            (DeclKind::Int, Json::Number(n)) => match (n.as_i64(), n.as_f64()) {
                (Some(n), _) => Value::Int(n),
                (None, Some(n)) => Value::Double(n),
                _ => return Err(Fault::int_overflow()),
            },
            (_, Json::Number(n)) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(n), ..) => Value::Int(n),
                (_, Some(n), _) => Value::Uint(n),
                (_, _, Some(n)) => Value::Double(n),
                _ => return Err(Fault::int_overflow()),
            },
            (kind, Json::String(text)) => read_text(kind, text)?,
            (DeclKind::List { item, kind }, Json::Array(items)) => {
                Value::List(List::Json { items, decl: item, kind: Some(kind) })
            }
            (_, Json::Array(items)) => Value::List(List::Json { items, decl: Self::any(), kind: None }),
            (_, Json::Object(members)) => Value::Map(Map::Json { members, decl: self }),
        })
    }

    /// Calls `visit` with every object type reachable from here.
    pub(crate) fn each_object(self: &Arc<Self>, visit: &mut dyn FnMut(&Arc<str>, &Arc<Decl>)) {
        match &self.kind {
            DeclKind::List { item, .. } => item.each_object(visit),
            DeclKind::Map(value) => value.each_object(visit),
            DeclKind::Object { name, fields } => {
                visit(name, self);
                for field in fields.values() {
                    field.decl.each_object(visit);
                }
            }
            _ => {}
        }
    }
}

fn read_text<'a>(kind: &DeclKind, text: &'a str) -> Result<Value<'a>, Fault> {
    Ok(match kind {
        DeclKind::Bytes => match decode_base64(text) {
            Some(bytes) => Value::Bytes(bytes.into()),
            None => return Err(Fault::failed(format!("Invalid byte formatted string {text}"))),
        },
        DeclKind::Timestamp => match time::parse_timestamp(text) {
            Some(time) => Value::Timestamp(time),
            None => return Err(Fault::failed(format!("Invalid date-time formatted string {text}"))),
        },
        DeclKind::Date => match time::parse_timestamp(&format!("{text}T00:00:00Z")) {
            Some(time) => Value::Timestamp(time),
            None => return Err(Fault::failed(format!("Invalid date formatted string {text}"))),
        },
        DeclKind::Duration => match time::parse_duration(text) {
            Some(nanos) => Value::Duration(nanos),
            None => return Err(Fault::failed(format!("Invalid duration formatted string {text}"))),
        },
        _ => Value::String(Text::Borrowed(text)),
    })
}

/// Standard base64 with padding.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    if !digits.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3);
    let last = digits.len() / 4;
    for (index, group) in digits.chunks_exact(4).enumerate() {
        let padding = group.iter().rev().take_while(|b| **b == b'=').count();
        if padding > 2 || (padding > 0 && index + 1 != last) {
            return None;
        }
        let mut word = 0u32;
        for digit in group.iter().take(4 - padding) {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            word = (word << 6) | u32::from(value);
        }
        word <<= 6 * padding;
        out.extend(word.to_be_bytes().into_iter().skip(1).take(3 - padding));
    }
    Some(out)
}

const KEYWORDS: [&str; 18] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
];

/// The name by which expressions know a field: what is no name in them is spelled out. `None` where that cannot be.
pub fn escape(name: &str) -> Option<Cow<'_, str>> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if KEYWORDS.contains(&name) {
        return Some(Cow::Owned(format!("__{name}__")));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/')) {
        return None;
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return Some(Cow::Borrowed(name));
    }
    let escaped = name.replace("__", "__underscores__");
    let escaped = escaped.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__");
    Some(Cow::Owned(escaped))
}
