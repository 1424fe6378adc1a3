//! The Common Expression Language as Kubernetes v1.36 speaks it: parser, type checker, evaluator, its libraries, and
//! the costs that are part of its API. Rules come from users and run inside the server, so nothing here panics, hangs
//! or takes more than it was given: text, trees, types, patterns, results and steps are all bounded.

mod ast;
mod check;
pub mod cost;
mod decl;
mod env;
mod estimate;
mod eval;
mod fault;
pub mod functions;
mod issues;
mod lex;
mod lists;
mod macros;
mod meter;
mod parse;
pub mod time;
pub mod types;
mod unify;
mod value;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use ast::MAX_DEPTH;
pub use decl::{Decl, DeclKind, Field, ListKind, MAX_REQUEST_BYTES, decode_base64, escape};
pub use env::{Constructible, Env};
pub use estimate::Bounds;
pub use eval::Variables;
pub use fault::Fault;
pub use functions::{Authorizer, Decision, Library, Overload, Question, Row};
pub use issues::{Issue, Issues};
pub use lists::List;
pub use meter::Meter;
pub use types::Type;
pub use value::{Key, Map, Opaque, Text, Value};

/// What one evaluation may cost.
pub const CALL_LIMIT: u64 = 1_000_000;
/// What all rules over one object may cost together.
pub const OBJECT_BUDGET: i64 = 10_000_000;
/// What the match conditions of one webhook or policy may cost together.
pub const MATCH_BUDGET: i64 = 2_500_000;

/// A compiled expression. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Program {
    expr: Arc<ast::Expr>,
    used: Arc<BTreeSet<Arc<str>>>,
    bounds: Bounds,
}

/// What an evaluation came to, and what it cost.
#[derive(Debug)]
pub struct Evaluation<'a> {
    pub result: Result<Value<'a>, Fault>,
    pub cost: u64,
    /// What counts against the budget of several evaluations: the cost, or the work where that was out of all
    /// proportion to it.
    pub spent: u64,
}

impl Program {
    pub fn compile(env: &Env, source: &str) -> Result<Self, Issues> {
        let parsed = parse::parse(source)?;
        let (expr, used) = check::check(env, source, parsed)?;
        let bounds = estimate::estimate(env, &expr);
        Ok(Self { expr: Arc::new(expr), used: Arc::new(used), bounds })
    }

    pub fn output(&self) -> &Type {
        &self.expr.ty
    }

    /// Whether the expression reads that variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.used.contains(variable)
    }

    /// The variables the expression reads.
    pub fn used(&self) -> impl Iterator<Item = &str> {
        self.used.iter().map(AsRef::as_ref)
    }

    /// How deeply its evaluation recurses; no more than `MAX_DEPTH`.
    pub fn depth(&self) -> u32 {
        self.expr.depth
    }

    /// What it may cost, by what is declared of its variables.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub fn evaluate<'a>(&self, variables: &dyn Variables<'a>, limit: u64) -> Evaluation<'a> {
        let mut meter = Meter::new(limit);
        let result = self.run(variables, &mut meter);
        Evaluation { result, cost: meter.cost(), spent: meter.spent() }
    }

    /// As a part of another evaluation, whose meter it runs on.
    pub fn run<'a>(&self, variables: &dyn Variables<'a>, meter: &mut Meter) -> Result<Value<'a>, Fault> {
        eval::Evaluator::new(variables, meter).eval(&self.expr)
    }
}
