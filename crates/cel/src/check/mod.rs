//! The type checker: gives every node its type, finds the functions that calls mean, and says what does not fit.

mod folds;
mod literals;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use crate::ast::{Access, Call, Element, Entry, Expr, Kind, Literal};
use crate::env::Env;
use crate::issues::Issues;
use crate::types::{self, Type};
use crate::unify::Unifier;

/// A type of more parts than this is taken as `dyn`.
const MAX_WEIGHT: usize = 1000;

/// Ways to apply an operator that is no function.
type Signatures = LazyLock<Vec<(Vec<Type>, Type)>>;

fn signatures(rows: &[(&[&'static str], &'static str)]) -> Vec<(Vec<Type>, Type)> {
    let row = |(args, result): &(&[&'static str], &'static str)| {
        (args.iter().copied().map(types::parse).collect(), types::parse(result))
    };
    rows.iter().map(row).collect()
}

static INDEX: Signatures = LazyLock::new(|| {
    signatures(&[
        (&["list<A>", "int"], "A"),
        (&["map<A, B>", "A"], "B"),
        (&["optional<list<A>>", "int"], "optional<A>"),
        (&["optional<map<A, B>>", "A"], "optional<B>"),
    ])
});

static OPTIONAL_INDEX: Signatures = LazyLock::new(|| {
    signatures(&[
        (&["list<A>", "int"], "optional<A>"),
        (&["optional<list<A>>", "int"], "optional<A>"),
        (&["map<A, B>", "A"], "optional<B>"),
        (&["optional<map<A, B>>", "A"], "optional<B>"),
    ])
});

static TERNARY: Signatures = LazyLock::new(|| signatures(&[(&["bool", "A", "A"], "A")]));
pub struct Checker<'e> {
    env: &'e Env,
    scopes: Vec<(Arc<str>, Type)>,
    unifier: Unifier,
    issues: Issues,
    used: BTreeSet<Arc<str>>,
}

/// A checked tree and the variables it reads.
pub fn check(env: &Env, source: &str, expr: Expr) -> Result<(Expr, BTreeSet<Arc<str>>), Issues> {
    let mut expr = expr;
    let mut checker = Checker {
        env,
        scopes: Vec::new(),
        unifier: Unifier::default(),
        issues: Issues::new(source),
        used: BTreeSet::new(),
    };
    checker.check(&mut expr);
    if checker.unifier.is_exhausted() {
        checker.issues.add(None, "the expression's types are too complex".to_owned());
    }
    if checker.issues.is_empty() {
        checker.settle(&mut expr);
        checker.literals(&expr, false);
    }
    if checker.issues.is_empty() { Ok((expr, checker.used)) } else { Err(checker.issues) }
}

impl Checker<'_> {
    /// Only a table: what a kind of node needs stands in a function of its own, so that deep trees take little stack.
    fn check(&mut self, expr: &mut Expr) {
        let at = expr.at;
        expr.ty = match &mut expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(_) => self.name(expr),
            Kind::Select { .. } => self.select(expr),
            Kind::Index { operand, key, optional } => self.index(at, operand, key, *optional),
            Kind::And(terms) | Kind::Or(terms) => self.junction(terms),
            Kind::Ternary(parts) => self.ternary(at, parts),
            Kind::Call(_) => self.call(expr),
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { .. } => self.object(expr),
            Kind::Fold(fold) => self.fold(at, fold),
            Kind::OptMap { target, var, body, flat } => self.opt_map(at, target, var, body, *flat),
            Kind::Bind { var, init, body } => self.bind(var, init, body),
            Kind::Broken => Type::Error,
        };
    }

    fn name(&mut self, expr: &mut Expr) -> Type {
        let Kind::Ident(name) = &expr.kind else { return Type::Error };
        let name = Arc::clone(name);
        self.ident(expr, &name)
    }

    fn index(&mut self, at: usize, operand: &mut Expr, key: &mut Expr, optional: bool) -> Type {
        self.check(operand);
        self.check(key);
        let args = [operand.ty.clone(), key.ty.clone()];
        let (name, table) = if optional { ("_[?_]", &OPTIONAL_INDEX) } else { ("_[_]", &INDEX) };
        self.operator(at, name, table, &args)
    }

    fn junction(&mut self, terms: &mut [Expr]) -> Type {
        for term in terms.iter_mut() {
            self.check(term);
        }
        for term in terms.iter() {
            self.want(term, &Type::Bool);
        }
        Type::Bool
    }

    fn ternary(&mut self, at: usize, parts: &mut [Expr; 3]) -> Type {
        for part in parts.iter_mut() {
            self.check(part);
        }
        let args = parts.each_ref().map(|part| part.ty.clone());
        self.operator(at, "_?_:_", &TERNARY, &args)
    }

    fn list(&mut self, elements: &mut [Element]) -> Type {
        let mut item = None;
        for element in elements {
            self.check(&mut element.value);
            let ty = self.maybe_optional(&element.value, element.optional);
            item = Some(self.join(item, ty));
        }
        let item = item.unwrap_or_else(|| self.unifier.fresh());
        self.bounded(Type::list(item))
    }

    fn map(&mut self, entries: &mut [Entry]) -> Type {
        let (mut key, mut value) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            key = Some(self.join(key, entry.key.ty.clone()));
            self.check(&mut entry.value);
            let ty = self.maybe_optional(&entry.value, entry.optional);
            value = Some(self.join(value, ty));
        }
        let key = key.unwrap_or_else(|| self.unifier.fresh());
        let value = value.unwrap_or_else(|| self.unifier.fresh());
        self.bounded(Type::map(key, value))
    }

    fn bind(&mut self, var: &Arc<str>, init: &mut Expr, body: &mut Expr) -> Type {
        self.check(init);
        self.scopes.push((Arc::clone(var), init.ty.clone()));
        self.check(body);
        self.scopes.pop();
        body.ty.clone()
    }

    fn bounded(&self, ty: Type) -> Type {
        if ty.weight(MAX_WEIGHT) >= MAX_WEIGHT { Type::Dyn } else { ty }
    }

    fn want(&mut self, expr: &Expr, wanted: &Type) {
        let given = expr.ty.clone();
        if !self.unifier.assign(&given, wanted) {
            let given = self.unifier.resolve(&given, true);
            self.issues.push(expr.at, format!("expected type '{wanted}' but found '{given}'"));
        }
    }

    fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.issues.push(at, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn local(&self, name: &str) -> Option<Type> {
        self.scopes.iter().rev().find(|(known, _)| **known == *name).map(|(_, ty)| ty.clone())
    }

    /// A variable, or a type's name, in which case the node becomes that type.
    fn ident(&mut self, expr: &mut Expr, name: &Arc<str>) -> Type {
        let plain = name.strip_prefix('.').unwrap_or(name);
        let local = if plain.len() == name.len() { self.local(plain) } else { None };
        if let Some(ty) = local {
            return ty;
        }
        if let Some(ty) = self.env.variable_type(plain) {
            self.used.insert(plain.into());
            expr.kind = Kind::Ident(plain.into());
            return ty;
        }
        if let Some(ty) = self.env.type_named(plain) {
            expr.kind = Kind::Literal(Literal::Type(ty.runtime_name().into()));
            return Type::Type(Arc::new(ty));
        }
        self.undeclared(expr.at, name)
    }

    /// The whole name, where a selection is nothing but names.
    fn qualified(expr: &Expr) -> Option<String> {
        match &expr.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { operand, field, how: Access::Field } => {
                Some(format!("{}.{field}", Self::qualified(operand)?))
            }
            _ => None,
        }
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        if let Some(name) = Self::qualified(expr) {
            let head = name.split('.').next().unwrap_or_default();
            let plain = name.strip_prefix('.').unwrap_or(&name);
            if self.local(head).is_none()
                && (self.env.variable_type(plain).is_some() || self.env.type_named(plain).is_some())
            {
                return self.ident(expr, &plain.into());
            }
        }
        let Kind::Select { operand, field, how } = &mut expr.kind else { return Type::Error };
        self.check(operand);
        let (field, how) = (Arc::clone(field), *how);
        let given = operand.ty.clone();
        let given = self.unifier.resolve(&given, false);
        let (target, was_optional) = match &given {
            Type::Optional(inner) => ((**inner).clone(), true),
            _ => (given, false),
        };
        let found = self.field(at, &target, &field);
        match how {
            Access::Test => Type::Bool,
            Access::Optional => Type::optional(found),
            Access::Field if was_optional => Type::optional(found),
            Access::Field => found,
        }
    }

    fn field(&mut self, at: usize, target: &Type, field: &str) -> Type {
        match target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(name) => match self.env.field_type(name, field) {
                Some(ty) => ty,
                None => {
                    self.issues.push(at, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Var(_) => {
                self.unifier.assign(&Type::Dyn, target);
                Type::Dyn
            }
            target if target.is_dyn_or_error() => Type::Dyn,
            // The libraries' own types are objects of which no field is known.
            Type::Opaque(_) => {
                self.issues.push(at, format!("undefined field '{field}'"));
                Type::Error
            }
            other => {
                let shown = self.unifier.resolve(other, true);
                self.issues.push(at, format!("type '{shown}' does not support field selection"));
                Type::Dyn
            }
        }
    }

    fn operator(&mut self, at: usize, name: &str, table: &Signatures, args: &[Type]) -> Type {
        let mut result: Option<Type> = None;
        for (wanted, gives) in table.iter() {
            let mut all = wanted.clone();
            all.push(gives.clone());
            let mut fresh = self.unifier.instantiate(&all);
            let gives = fresh.pop().unwrap_or(Type::Dyn);
            if self.unifier.assign_all(args, &fresh) {
                let gives = self.unifier.resolve(&gives, false);
                result = Some(match result {
                    Some(held) if held != gives => Type::Dyn,
                    _ => gives,
                });
            }
        }
        result.unwrap_or_else(|| self.no_overload(at, name, args, false))
    }

    fn no_overload(&mut self, at: usize, name: &str, args: &[Type], member: bool) -> Type {
        let shown: Vec<String> = args.iter().map(|arg| self.unifier.resolve(arg, true).to_string()).collect();
        let signature = match shown.split_first() {
            Some((target, rest)) if member => format!("{target}.({})", rest.join(", ")),
            _ => format!("({})", shown.join(", ")),
        };
        self.issues.push(at, format!("found no matching overload for '{name}' applied to '{signature}'"));
        Type::Error
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        let Kind::Call(call) = &mut expr.kind else { return Type::Error };
        for arg in &mut call.args {
            self.check(arg);
        }
        if let Some(target) = &mut call.target {
            // `strings.quote(x)` calls no method of a variable.
            let full = Self::qualified(target).map(|prefix| format!("{prefix}.{}", call.function));
            match full.filter(|full| self.env.library().get(full).is_some()) {
                Some(full) => {
                    call.function = full.into();
                    call.target = None;
                }
                None => self.check(target),
            }
        }
        self.resolve_call(at, call)
    }

    fn resolve_call(&mut self, at: usize, call: &mut Call) -> Type {
        let name = call.function.strip_prefix('.').unwrap_or(&call.function).to_owned();
        let Some(overloads) = self.env.library().get(&name) else {
            return self.undeclared(at, &call.function);
        };
        let member = call.target.is_some();
        let args: Vec<Type> = call.target.iter().chain(&call.args).map(|arg| arg.ty.clone()).collect();
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|overload| overload.member == member) {
            if overload.args.len() != args.len() {
                continue;
            }
            let mut all = overload.args.clone();
            all.push(overload.result.clone());
            let mut fresh = self.unifier.instantiate(&all);
            let gives = fresh.pop().unwrap_or(Type::Dyn);
            if self.unifier.assign_all(&args, &fresh) {
                call.overloads.push(Arc::clone(overload));
                let gives = self.unifier.resolve(&gives, false);
                result = Some(match result {
                    Some(held) if held != gives => Type::Dyn,
                    _ => gives,
                });
            }
        }
        match result {
            Some(ty) => self.bounded(ty),
            None => self.no_overload(at, &name, &args, member),
        }
    }

    fn maybe_optional(&mut self, value: &Expr, optional: bool) -> Type {
        let ty = value.ty.clone();
        if !optional {
            return ty;
        }
        match self.unifier.resolve(&ty, false) {
            Type::Optional(inner) => (*inner).clone(),
            ty if ty.is_dyn_or_error() => ty,
            ty => {
                let message = format!("expected type 'optional_type({ty})' but found '{ty}'");
                self.issues.push(value.at, message);
                ty
            }
        }
    }

    fn join(&mut self, held: Option<Type>, next: Type) -> Type {
        let Some(held) = held else { return next };
        if self.unifier.assign(&held, &next) {
            return Unifier::general(&held, &next);
        }
        Type::Dyn
    }

    fn object(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        let Kind::Struct { name, fields } = &mut expr.kind else { return Type::Error };
        let name = Arc::clone(name);
        for member in fields.iter_mut() {
            self.check(&mut member.value);
        }
        if !self.env.is_constructible(&name) {
            return match self.env.type_named(&name) {
                Some(ty) => {
                    self.issues.push(at, format!("'{}' is not a message type", ty.runtime_name()));
                    Type::Error
                }
                None => self.undeclared(at, &name),
            };
        }
        for member in fields.iter() {
            let Some(wanted) = self.env.field_type(&name, &member.name) else {
                self.issues.push(member.at, format!("undefined field '{}'", member.name));
                continue;
            };
            let given = self.maybe_optional(&member.value, member.optional);
            if !self.unifier.assign(&wanted, &given) {
                let given = self.unifier.resolve(&given, true);
                let message = format!(
                    "expected type of field '{}' is '{wanted}' but provided type is '{given}'",
                    member.name
                );
                self.issues.push(member.at, message);
            }
        }
        Type::Object(name)
    }

    /// Puts what has been learned into every node.
    fn settle(&mut self, expr: &mut Expr) {
        let ty = expr.ty.clone();
        expr.ty = self.unifier.resolve(&ty, true);
        match &mut expr.kind {
            Kind::Literal(_) | Kind::Ident(_) | Kind::Broken => {}
            Kind::Select { operand, .. } => self.settle(operand),
            Kind::Index { operand, key, .. } => {
                self.settle(operand);
                self.settle(key);
            }
            Kind::And(terms) | Kind::Or(terms) => terms.iter_mut().for_each(|term| self.settle(term)),
            Kind::Ternary(parts) => parts.iter_mut().for_each(|part| self.settle(part)),
            Kind::Call(call) => {
                call.target.iter_mut().chain(&mut call.args).for_each(|part| self.settle(part));
            }
            Kind::List(elements) => elements.iter_mut().for_each(|e| self.settle(&mut e.value)),
            Kind::Map(entries) => entries.iter_mut().for_each(|entry| {
                self.settle(&mut entry.key);
                self.settle(&mut entry.value);
            }),
            Kind::Struct { fields, .. } => fields.iter_mut().for_each(|f| self.settle(&mut f.value)),
            Kind::Fold(fold) => {
                self.settle(&mut fold.range);
                fold.filter.iter_mut().chain([&mut fold.body]).for_each(|part| self.settle(part));
            }
            Kind::OptMap { target: first, body, .. } | Kind::Bind { init: first, body, .. } => {
                self.settle(first);
                self.settle(body);
            }
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
        Literal::Type(name) => Type::Type(Arc::new(Type::Object(Arc::clone(name)))),
    }
}
