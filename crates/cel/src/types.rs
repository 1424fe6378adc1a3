//! Types as the checker knows them, and how they are written in messages.

use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Dyn,
    /// Of what could not be checked: fits everywhere, so that one fault is reported once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    /// An object with fields, by the name it is declared under.
    Object(Arc<str>),
    /// A library's own type.
    Opaque(&'static str),
    /// A type as a value.
    Type(Arc<Type>),
    /// A parameter of a declaration.
    Param(char),
    /// An unknown that is being solved for.
    Var(u32),
}

impl Type {
    /// Whether it has more than that many types around one another.
    pub fn deeper_than(&self, limit: u32) -> bool {
        match self {
            Self::List(inner) | Self::Optional(inner) | Self::Type(inner) => {
                limit == 0 || inner.deeper_than(limit - 1)
            }
            Self::Map(key, value) => limit == 0 || key.deeper_than(limit - 1) || value.deeper_than(limit - 1),
            _ => false,
        }
    }

    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(inner: Self) -> Self {
        Self::Optional(Arc::new(inner))
    }

    pub fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// Whether all values take about the same room.
    pub fn is_scalar(&self) -> bool {
        match self {
            Self::Bool | Self::Double | Self::Duration | Self::Int | Self::Timestamp | Self::Uint => true,
            Self::Optional(inner) => inner.is_scalar(),
            _ => false,
        }
    }

    pub fn parts(&self) -> [Option<&Arc<Type>>; 2] {
        match self {
            Self::List(a) | Self::Optional(a) | Self::Type(a) => [Some(a), None],
            Self::Map(a, b) => [Some(a), Some(b)],
            _ => [None, None],
        }
    }

    /// How many nodes it has, counted up to `limit`: shared parts could make it grow without bound.
    pub fn weight(&self, limit: usize) -> usize {
        let mut weight = 1;
        for part in self.parts().into_iter().flatten() {
            if weight >= limit {
                break;
            }
            weight += part.weight(limit - weight);
        }
        weight
    }

    /// The name `type(x)` answers with.
    pub fn runtime_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(..) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Object(name) => name,
            Self::Opaque(name) => name,
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Dyn | Self::Error | Self::Param(_) | Self::Var(_) => "dyn",
        }
    }

    /// Types that a name denotes by itself.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "list" => Self::list(Self::Dyn),
            "map" => Self::map(Self::Dyn, Self::Dyn),
            "null_type" => Self::Null,
            "type" => Self::Type(Arc::new(Self::Dyn)),
            "dyn" => Self::Dyn,
            "optional_type" => Self::optional(Self::Dyn),
            "google.protobuf.Timestamp" => Self::Timestamp,
            "google.protobuf.Duration" => Self::Duration,
            _ => return None,
        })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Type(inner) => write!(f, "type({inner})"),
            Self::Param(name) => write!(f, "{name}"),
            Self::Var(id) => write!(f, "_var{id}"),
            plain => f.write_str(plain.runtime_name()),
        }
    }
}

/// Reads a type as the tables of functions write it: `list<A>`, `map<string, int>`, `optional<A>`, a single capital
/// for a parameter, anything else unknown for a library's own type.
pub fn parse(text: &'static str) -> Type {
    let text = text.trim();
    let Some(inner) = text.strip_suffix('>') else {
        let parameter = text.len() == 1 && text.starts_with(|c: char| c.is_ascii_uppercase());
        return match text {
            "timestamp" => Type::Timestamp,
            "duration" => Type::Duration,
            "null" => Type::Null,
            "type" => Type::Type(Arc::new(Type::Dyn)),
            _ if parameter => Type::Param(text.chars().next().unwrap_or('A')),
            _ => Type::named(text).unwrap_or(Type::Opaque(text)),
        };
    };
    let (head, inner) = inner.split_once('<').unwrap_or(("", inner));
    match head {
        "list" => Type::list(parse(inner)),
        "optional" => Type::optional(parse(inner)),
        "type" => Type::Type(Arc::new(parse(inner))),
        _ => {
            let (key, value) = inner.split_once(',').unwrap_or((inner, "dyn"));
            Type::map(parse(key), parse(value))
        }
    }
}
