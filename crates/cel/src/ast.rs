//! The tree an expression is parsed into. Macros become nodes of their own rather than nests of folds, so that a
//! tree stays as shallow as its text, and checking, estimating and evaluating them is said once each.

use std::sync::Arc;

use crate::Overload;
use crate::types::Type;

/// Trees deeper than this are refused: every walk over them recurses.
pub const MAX_DEPTH: u32 = 250;

#[derive(Debug, Clone)]
pub struct Expr {
    /// Where it stands, in code points; of operators and calls, where the operator or the parenthesis stands.
    pub at: usize,
    pub depth: u32,
    pub kind: Kind,
    /// Set by the checker.
    pub ty: Type,
}

#[derive(Debug, Clone)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    /// A type as a value; the checker puts it where a type's name stands.
    Type(Arc<str>),
}

#[derive(Debug, Clone)]
pub enum Kind {
    Literal(Literal),
    /// A variable, or a type by its name.
    Ident(Arc<str>),
    Select {
        operand: Box<Expr>,
        field: Arc<str>,
        how: Access,
    },
    Index {
        operand: Box<Expr>,
        key: Box<Expr>,
        optional: bool,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Ternary(Box<[Expr; 3]>),
    Call(Box<Call>),
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct {
        name: Arc<str>,
        fields: Vec<Member>,
    },
    Fold(Box<Fold>),
    /// `optMap` and `optFlatMap`.
    OptMap {
        target: Box<Expr>,
        var: Arc<str>,
        body: Box<Expr>,
        flat: bool,
    },
    /// A value known by a name in `body` (`sortBy` reads its list twice).
    Bind {
        var: Arc<str>,
        init: Box<Expr>,
        body: Box<Expr>,
    },
    /// Stands where the text could not be read.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Field,
    /// `has(a.b)`
    Test,
    /// `a.?b`
    Optional,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub function: Arc<str>,
    pub target: Option<Expr>,
    pub args: Vec<Expr>,
    /// What the checker found to fit, best first; more than one where a type is only known at run time.
    pub overloads: Vec<Arc<Overload>>,
}

#[derive(Debug, Clone)]
pub struct Element {
    pub value: Expr,
    pub optional: bool,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Debug, Clone)]
pub struct Member {
    pub at: usize,
    pub name: Arc<str>,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldKind {
    All,
    Exists,
    ExistsOne,
    /// `filter`: keeps the elements themselves.
    Filter,
    /// `map` and `transformList`.
    List,
    /// `transformMap`: the keys stay.
    Map,
    /// `transformMapEntry`: each step gives a map of its own.
    Entries,
}

#[derive(Debug, Clone)]
pub struct Fold {
    pub kind: FoldKind,
    pub range: Expr,
    pub var: Arc<str>,
    /// With two variables the first is the index or the key.
    pub second: Option<Arc<str>>,
    pub filter: Option<Expr>,
    pub body: Expr,
}

impl Expr {
    pub fn new(at: usize, kind: Kind) -> Self {
        let mut depth = 0;
        each_child(&kind, &mut |child| depth = depth.max(child.depth));
        // A fold's frames are larger than others'.
        let own = if matches!(kind, Kind::Fold(_)) { 3 } else { 1 };
        Self { at, depth: depth + own, kind, ty: Type::Dyn }
    }

    pub fn string(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::Literal(Literal::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether the value is known before any variable is.
    pub fn is_constant(&self) -> bool {
        match &self.kind {
            Kind::Literal(_) => true,
            Kind::List(elements) => elements.iter().all(|e| !e.optional && e.value.is_constant()),
            Kind::Map(entries) => {
                entries.iter().all(|e| !e.optional && e.key.is_constant() && e.value.is_constant())
            }
            Kind::Call(call) => {
                const CONVERSIONS: [&str; 10] = [
                    "bool",
                    "bytes",
                    "double",
                    "duration",
                    "dyn",
                    "int",
                    "string",
                    "timestamp",
                    "type",
                    "uint",
                ];
                call.target.is_none()
                    && CONVERSIONS.contains(&&*call.function)
                    && call.args.iter().all(Self::is_constant)
            }
            _ => false,
        }
    }
}

/// Calls `visit` with each direct part of a node.
pub fn each_child<'a>(kind: &'a Kind, visit: &mut dyn FnMut(&'a Expr)) {
    match kind {
        Kind::Literal(_) | Kind::Ident(_) | Kind::Broken => {}
        Kind::Select { operand, .. } => visit(operand),
        Kind::Index { operand, key, .. } => {
            visit(operand);
            visit(key);
        }
        Kind::And(terms) | Kind::Or(terms) => terms.iter().for_each(visit),
        Kind::Ternary(parts) => parts.iter().for_each(visit),
        Kind::Call(call) => {
            call.target.iter().for_each(&mut *visit);
            call.args.iter().for_each(visit);
        }
        Kind::List(elements) => elements.iter().for_each(|e| visit(&e.value)),
        Kind::Map(entries) => {
            for entry in entries {
                visit(&entry.key);
                visit(&entry.value);
            }
        }
        Kind::Struct { fields, .. } => fields.iter().for_each(|f| visit(&f.value)),
        Kind::Fold(fold) => {
            visit(&fold.range);
            fold.filter.iter().for_each(&mut *visit);
            visit(&fold.body);
        }
        Kind::OptMap { target: first, body, .. } | Kind::Bind { init: first, body, .. } => {
            visit(first);
            visit(body);
        }
    }
}
