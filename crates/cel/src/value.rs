//! Values. What comes from an object is read where it lies, through its declaration, only as far as an expression
//! looks into it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::decl::Decl;
use crate::fault::Fault;
use crate::lists::List;
use crate::meter::Meter;
use crate::types::Type;

/// Text that lies in an object or was made by an expression.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Shared(text.into())
    }
}

/// A value of a library's own type.
pub trait Opaque: fmt::Debug + Send + Sync + std::any::Any {
    /// The type's name, as signatures write it.
    fn type_name(&self) -> &'static str;
    fn equals(&self, other: &dyn Opaque) -> bool;
    /// For types whose length counts when costs are reckoned.
    fn size(&self) -> u64 {
        1
    }
    fn as_any(&self) -> &dyn std::any::Any;
}

#[derive(Debug, Clone)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    Timestamp(jiff::Timestamp),
    /// Nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    Type(Arc<str>),
    Optional(Option<Arc<Value<'a>>>),
    Opaque(Arc<dyn Opaque>),
}

/// A key of a map; numbers are the same key whatever their type.
#[derive(Debug, Clone)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Arc<str>),
}

impl Key {
    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Self::Bool(b) => (0, i128::from(*b), ""),
            Self::Int(n) => (1, i128::from(*n), ""),
            Self::Uint(n) => (1, i128::from(*n), ""),
            Self::String(text) => (2, 0, text),
        }
    }

    pub fn value<'a>(&self) -> Value<'a> {
        match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => Value::Int(*n),
            Self::Uint(n) => Value::Uint(*n),
            Self::String(text) => Value::String(Text::Shared(Arc::clone(text))),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}
impl Eq for Key {}
impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

#[derive(Debug, Clone)]
pub enum Map<'a> {
    /// Made by an expression; objects that it made carry their type's name.
    Made {
        entries: Arc<BTreeMap<Key, Value<'a>>>,
        name: Option<Arc<str>>,
    },
    Json {
        members: &'a serde_json::Map<String, Json>,
        decl: &'a Decl,
    },
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Made { entries, .. } => entries.len(),
            Self::Json { members, decl } => match decl.is_object() {
                true => members.keys().filter(|name| decl.member(name).is_some()).count(),
                false => members.len(),
            },
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The member of that key.
    pub fn get(&self, key: &Key) -> Result<Option<Value<'a>>, Fault> {
        match (self, key) {
            (Self::Made { entries, .. }, key) => Ok(entries.get(key).cloned()),
            (Self::Json { members, decl }, Key::String(name)) => {
                let Some((json, decl)) = decl.declared(name) else { return Ok(None) };
                members.get(json.unwrap_or(name)).map(|value| decl.read(value)).transpose()
            }
            _ => Ok(None),
        }
    }

    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Made { entries, .. } => entries.keys().map(Key::value).collect(),
            Self::Json { members, decl } => members
                .keys()
                .filter_map(|name| decl.member(name))
                .map(|name| match name {
                    std::borrow::Cow::Borrowed(name) => Value::String(Text::Borrowed(name)),
                    std::borrow::Cow::Owned(name) => Value::String(name.into()),
                })
                .collect(),
        }
    }

    pub fn type_name(&self) -> &str {
        match self {
            Self::Made { name, .. } => name.as_deref().unwrap_or("map"),
            Self::Json { decl, .. } => decl.object_name().unwrap_or("map"),
        }
    }
}

impl<'a> Value<'a> {
    pub fn text(text: &str) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    pub fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(List::made(items))
    }

    pub fn map(entries: BTreeMap<Key, Value<'a>>) -> Self {
        Self::Map(Map::Made { entries: Arc::new(entries), name: None })
    }

    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(b) => Key::Bool(*b),
            Self::Int(n) => Key::Int(*n),
            Self::Uint(n) => Key::Uint(*n),
            Self::Double(n) if n.fract() == 0.0 && n.abs() < 9e15 => Key::Int(*n as i64),
            Self::String(text) => Key::String((**text).into()),
            _ => return None,
        })
    }

    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(map) => map.type_name(),
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Opaque(value) => value.type_name(),
        }
    }

    /// Whether a function's parameter of that type takes the value. Elements are not looked at.
    pub fn fits(&self, ty: &Type) -> bool {
        match (ty, self) {
            (Type::Dyn | Type::Param(_) | Type::Var(_) | Type::Error, _) => true,
            (Type::List(_), Self::List(_)) | (Type::Map(..), Self::Map(_)) => true,
            (Type::Optional(_), Self::Optional(_)) | (Type::Type(_), Self::Type(_)) => true,
            (ty, value) => ty.runtime_name() == value.type_name(),
        }
    }

    /// As [`Value::fits`], with a look at a list's first element, which is how overloads over lists are told apart.
    pub fn fits_deeply(&self, ty: &Type) -> bool {
        match (ty, self) {
            (Type::List(item), Self::List(list)) => {
                item.is_dyn_or_error()
                    || list.get(0).is_none_or(|first| first.is_ok_and(|first| first.fits_deeply(item)))
            }
            _ => self.fits(ty),
        }
    }

    /// How much of a value an operation walks over, as costs are reckoned.
    pub fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Optional(Some(inner)) => return inner.size(),
            Self::Opaque(value) => return value.size(),
            _ => 1,
        };
        size as u64
    }

    pub fn equals(&self, other: &Self, meter: &mut Meter) -> Result<bool, Fault> {
        meter.work(1)?;
        Ok(match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => **a == **b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b, meter)?,
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::Opaque(a), Self::Opaque(b)) => a.equals(&**b),
            (Self::List(a), Self::List(b)) => a.equals(b, meter)?,
            (Self::Map(a), Self::Map(b)) => maps_equal(a, b, meter)?,
            (a, b) => compare_numbers(a, b) == Some(Ordering::Equal),
        })
    }
}

fn maps_equal(a: &Map<'_>, b: &Map<'_>, meter: &mut Meter) -> Result<bool, Fault> {
    if a.len() != b.len()
        || (a.type_name() != b.type_name() && (a.type_name() == "map") == (b.type_name() == "map"))
    {
        return Ok(false);
    }
    for key in a.keys() {
        let Some(key) = key.key() else { return Ok(false) };
        let (Some(left), Some(right)) = (a.get(&key)?, b.get(&key)?) else { return Ok(false) };
        if !left.equals(&right, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Numbers of any two types, by what they are; `None` where there is no order.
pub fn compare_numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    fn whole(value: &Value<'_>) -> Option<i128> {
        match value {
            Value::Int(n) => Some(i128::from(*n)),
            Value::Uint(n) => Some(i128::from(*n)),
            _ => None,
        }
    }
    match (whole(a), whole(b), a, b) {
        (Some(a), Some(b), ..) => Some(a.cmp(&b)),
        (_, _, Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (_, Some(n), Value::Double(d), _) => compare_double(*d, n),
        (Some(n), _, _, Value::Double(d)) => compare_double(*d, n).map(Ordering::reverse),
        _ => None,
    }
}

/// Without the loss that turning a large whole number into a double would bring.
fn compare_double(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    if double >= 2f64.powi(65) {
        return Some(Ordering::Greater);
    }
    if double <= -(2f64.powi(65)) {
        return Some(Ordering::Less);
    }
    let floor = double.floor();
    let order = (floor as i128).cmp(&whole);
    Some(if order == Ordering::Equal && double > floor { Ordering::Greater } else { order })
}
