//! `x-kubernetes-validations`: the rules that a CustomResourceDefinition puts on its objects in the expression
//! language. They are compiled once, when the definition is taken, and evaluated on every write.

mod builtin;
mod compile;
mod costs;
mod declare;
mod evaluate;
mod field_path;

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Decl, Program};
use serde_json::Value;

use crate::status::FieldError;

pub use builtin::declare as declare_builtin;
pub use evaluate::evaluate;

/// The rules at one place of a schema and below it. Places without any are left out.
#[derive(Debug, Default)]
pub struct Place {
    /// What the place's values are to expressions; `None` where they are not known to them.
    decl: Option<Arc<Decl>>,
    /// The schema's `type`.
    json_type: Box<str>,
    rules: Vec<Rule>,
    properties: BTreeMap<Box<str>, Place>,
    /// Of a list's elements.
    items: Option<Box<Place>>,
    /// Of a map's values.
    values: Option<Box<Place>>,
    all_of: Vec<Place>,
    /// By which fields a list's elements are the same as those of an older list.
    list_keys: Vec<Box<str>>,
}

#[derive(Debug)]
struct Rule {
    source: String,
    program: Program,
    message: String,
    message_expression: Option<(String, Program)>,
    reason: Option<Box<str>>,
    /// Below the rule's place; empty is the place itself.
    field_path: String,
    /// Evaluated even where there is no older value.
    optional_old_self: bool,
    uses_old_self: bool,
}

impl Place {
    fn is_empty(&self) -> bool {
        self.rules.is_empty()
            && self.properties.is_empty()
            && self.items.is_none()
            && self.values.is_none()
            && self.all_of.is_empty()
    }
}

/// What is wrong with rules.
#[derive(Debug, Default)]
pub struct Faults {
    /// In how they are written down; while there are any, expressions are not judged.
    pub form: Vec<FieldError>,
    /// In what their expressions say.
    pub meaning: Vec<FieldError>,
}

impl Faults {
    /// Those that count where all else of the schema is sound.
    pub fn all(self) -> Vec<FieldError> {
        if self.form.is_empty() { self.meaning } else { self.form }
    }
}

/// Compiles all rules of an `openAPIV3Schema`. The faults' fields begin with `path`.
pub fn compile(schema: &Value, path: &str) -> (Option<Place>, Faults) {
    #[cfg(test)]
    COMPILED.set(COMPILED.get() + 1);
    compile::compile(schema, path)
}

#[cfg(test)]
thread_local! {
    static COMPILED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How often rules were compiled in this thread.
#[cfg(test)]
pub(crate) fn compiled() -> usize {
    COMPILED.get()
}
