//! The libraries: tables of signatures with what each costs and does. One file a subject.

mod authz;
mod conversions;
mod formats;
mod lists;
mod networks;
mod operators;
mod optionals;
pub mod patterns;
mod printing;
mod re2_words;
pub mod regexes;
mod semvers;
mod strings;
mod times;
mod urls;
pub mod weight;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

pub use authz::{Authorizer, Decision, Question, authorizer, request_resource};

use crate::cost::Cost;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::types::{self, Type};
use crate::value::Value;

pub type Native = for<'a> fn(&mut Meter, &[Value<'a>]) -> Result<Value<'a>, Fault>;

/// A line of a library: `target::name(args): result`, or without a target. Capitals are parameters.
pub struct Row(pub &'static str, pub Cost, pub Native);

/// One way to call a function.
#[derive(Debug)]
pub struct Overload {
    pub function: &'static str,
    pub member: bool,
    /// With the target first.
    pub args: Vec<Type>,
    pub result: Type,
    pub cost: Cost,
    pub native: Native,
}

impl Row {
    fn overload(&self) -> Overload {
        let (head, result) = self.0.rsplit_once("):").unwrap_or((self.0, "dyn"));
        let (name, args) = head.split_once('(').unwrap_or((head, ""));
        let (target, function) = match name.split_once("::") {
            Some((target, function)) => (Some(target), function),
            None => (None, name),
        };
        let mut parsed: Vec<Type> = target.into_iter().map(types::parse).collect();
        parsed.extend(split(args).into_iter().map(types::parse));
        let result = types::parse(result);
        Overload { function, member: target.is_some(), args: parsed, result, cost: self.1, native: self.2 }
    }
}

/// Parts between commas that stand in no brackets.
fn split(args: &'static str) -> Vec<&'static str> {
    let (mut depth, mut start, mut out) = (0, 0, Vec::new());
    for (index, c) in args.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                out.push(&args[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if !args[start..].trim().is_empty() {
        out.push(&args[start..]);
    }
    out
}

/// Functions by name.
#[derive(Debug, Clone, Default)]
pub struct Library(Arc<HashMap<&'static str, Vec<Arc<Overload>>>>);

impl Library {
    /// What all of Kubernetes v1.36 offers to every expression.
    pub fn standard() -> Self {
        static STANDARD: LazyLock<Library> = LazyLock::new(|| {
            Library::default().with(
                [
                    operators::ROWS,
                    conversions::ROWS,
                    times::ROWS,
                    strings::ROWS,
                    lists::ROWS,
                    optionals::ROWS,
                    regexes::ROWS,
                    urls::ROWS,
                    networks::ROWS,
                    semvers::ROWS,
                    formats::ROWS,
                    authz::ROWS,
                ]
                .into_iter()
                .flatten(),
            )
        });
        STANDARD.clone()
    }

    /// With more functions, or more overloads of those that are there.
    pub fn with<'r>(&self, rows: impl IntoIterator<Item = &'r Row>) -> Self {
        let mut table = (*self.0).clone();
        for row in rows {
            let overload = Arc::new(row.overload());
            table.entry(overload.function).or_default().push(overload);
        }
        Self(Arc::new(table))
    }

    pub fn get(&self, function: &str) -> Option<&[Arc<Overload>]> {
        self.0.get(function).map(Vec::as_slice)
    }

    /// Whether some function's name begins so, up to a dot.
    pub fn has_namespace(&self, prefix: &str) -> bool {
        self.0.keys().any(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
    }
}
