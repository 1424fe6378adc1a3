//! The evaluator: a walk over the tree that counts what each step costs and ends when a limit is reached.

mod fold;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Access, Call, Element, Entry, Expr, Kind, Literal, Member};
use crate::cost;
use crate::fault::Fault;
use crate::functions::Overload;
use crate::meter::Meter;
use crate::value::{Key, Map, Text, Value};

/// Where variables have their values from.
pub trait Variables<'a> {
    /// `None` is a variable that has no value now. What it takes to find one goes on the meter.
    fn get(&self, name: &str, meter: &mut Meter) -> Result<Option<Value<'a>>, Fault>;
}

impl<'a> Variables<'a> for BTreeMap<&str, Value<'a>> {
    fn get(&self, name: &str, _: &mut Meter) -> Result<Option<Value<'a>>, Fault> {
        Ok(BTreeMap::get(self, name).cloned())
    }
}

pub struct Evaluator<'m, 'a> {
    variables: &'m dyn Variables<'a>,
    meter: &'m mut Meter,
    locals: Vec<(Arc<str>, Value<'a>)>,
}

type Evaluated<'a> = Result<Value<'a>, Fault>;

/// Whether a node is read as a path of names and keys, whose steps are charged one by one.
fn is_path(expr: &Expr) -> bool {
    matches!(expr.kind, Kind::Ident(_) | Kind::Select { .. } | Kind::Index { .. } | Kind::Ternary(_))
}

/// Whether reading the path was charged for itself, beside its steps.
fn is_charged_path(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Ident(_) => true,
        Kind::Select { operand, .. } | Kind::Index { operand, .. } => {
            !is_path(operand) || is_charged_path(operand)
        }
        _ => false,
    }
}

impl<'m, 'a> Evaluator<'m, 'a> {
    pub fn new(variables: &'m dyn Variables<'a>, meter: &'m mut Meter) -> Self {
        Self { variables, meter, locals: Vec::new() }
    }

    /// Only a table: what a kind of node needs stands in a function of its own, so that deep trees take little stack.
    pub fn eval(&mut self, expr: &Expr) -> Evaluated<'a> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(constant(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, how } => self.select(operand, field, *how),
            Kind::Index { operand, key, optional } => self.index(operand, key, *optional),
            Kind::And(terms) => self.junction(terms, false),
            Kind::Or(terms) => self.junction(terms, true),
            Kind::Ternary(parts) => self.ternary(parts),
            Kind::Call(_) | Kind::List(_) | Kind::Map(_) if expr.is_constant() => self.free(expr),
            Kind::Fold(fold) => self.fold(fold),
            Kind::OptMap { target, var, body, flat } => self.opt_map(target, var, body, *flat),
            Kind::Bind { var, init, body } => self.bind(var, init, body),
            Kind::Broken => Err(Fault::failed("the expression is broken")),
            _ => self.made(expr),
        }
    }

    fn ternary(&mut self, parts: &[Expr; 3]) -> Evaluated<'a> {
        let [condition, yes, no] = parts;
        let Value::Bool(holds) = self.eval(condition)? else { return Err(Fault::no_overload()) };
        let branch = if holds { yes } else { no };
        let value = self.eval(branch)?;
        if is_charged_path(branch) {
            self.meter.refund(cost::SELECT);
        }
        Ok(value)
    }

    /// What is known before any variable is costs nothing.
    fn free(&mut self, expr: &Expr) -> Evaluated<'a> {
        let before = self.meter.cost();
        let value = self.made(expr)?;
        let spent = self.meter.cost() - before;
        self.meter.refund(spent);
        Ok(value)
    }

    fn bind(&mut self, var: &Arc<str>, init: &Expr, body: &Expr) -> Evaluated<'a> {
        let value = self.eval(init)?;
        self.with(var, value, |this| this.eval(body))
    }

    fn made(&mut self, expr: &Expr) -> Evaluated<'a> {
        match &expr.kind {
            Kind::Call(call) => self.call(call),
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.object(name, fields),
            _ => Err(Fault::no_overload()),
        }
    }

    fn list(&mut self, elements: &[Element]) -> Evaluated<'a> {
        let mut items = Vec::with_capacity(elements.len());
        for element in elements {
            let value = self.eval(&element.value)?;
            items.extend(present(value, element.optional)?);
        }
        self.meter.charge(cost::LIST)?;
        self.meter.work(items.len())?;
        Ok(Value::list(items))
    }

    fn map(&mut self, entries: &[Entry]) -> Evaluated<'a> {
        let mut members = BTreeMap::new();
        for entry in entries {
            let key = self.eval(&entry.key)?;
            let value = self.eval(&entry.value)?;
            let unsupported = || Fault::failed(format!("unsupported key type: {}", key.type_name()));
            let key = key.key().ok_or_else(unsupported)?;
            if let Some(value) = present(value, entry.optional)? {
                members.insert(key, value);
            }
        }
        self.meter.charge(cost::MAP)?;
        self.meter.work(members.len())?;
        Ok(Value::map(members))
    }

    fn object(&mut self, name: &Arc<str>, fields: &[Member]) -> Evaluated<'a> {
        let mut members = BTreeMap::new();
        for member in fields {
            let value = self.eval(&member.value)?;
            if let Some(value) = present(value, member.optional)? {
                members.insert(Key::String(Arc::clone(&member.name)), value);
            }
        }
        self.meter.charge(cost::OBJECT)?;
        let name = Some(Arc::clone(name));
        Ok(Value::Map(Map::Made { entries: Arc::new(members), name }))
    }

    fn with<T>(&mut self, name: &Arc<str>, value: Value<'a>, run: impl FnOnce(&mut Self) -> T) -> T {
        self.locals.push((Arc::clone(name), value));
        let out = run(self);
        self.locals.pop();
        out
    }

    fn ident(&mut self, name: &str) -> Evaluated<'a> {
        // Each dot is a selection.
        let steps = 1 + name.matches('.').count() as u64;
        self.meter.charge(steps * cost::SELECT)?;
        if let Some((_, value)) = self.locals.iter().rev().find(|(known, _)| **known == *name) {
            return Ok(value.clone());
        }
        let value = self.variables.get(name, self.meter)?;
        value.ok_or_else(|| Fault::failed(format!("no such attribute(s): {name}")))
    }

    fn operand(&mut self, operand: &Expr) -> Evaluated<'a> {
        let value = self.eval(operand)?;
        if !is_path(operand) {
            self.meter.charge(cost::SELECT)?;
        }
        Ok(value)
    }

    fn select(&mut self, operand: &Expr, field: &Arc<str>, how: Access) -> Evaluated<'a> {
        let value = self.operand(operand)?;
        let key = Key::String(Arc::clone(field));
        let (value, optional) = match value {
            Value::Optional(None) if how == Access::Test => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            value => (value, how == Access::Optional),
        };
        let Value::Map(map) = value else {
            return Err(Fault::failed(match value {
                Value::Opaque(_) => format!("no such key: {field}"),
                _ => "no such overload".to_owned(),
            }));
        };
        let found = map.get(&key)?;
        match how {
            // The test itself costs nothing.
            Access::Test => Ok(Value::Bool(found.is_some())),
            _ if optional => self.optional(found),
            _ => {
                self.meter.charge(cost::SELECT)?;
                found.ok_or_else(|| Fault::failed(format!("no such key: {field}")))
            }
        }
    }

    fn optional(&mut self, found: Option<Value<'a>>) -> Evaluated<'a> {
        Ok(match found {
            Some(value) => {
                self.meter.charge(cost::SELECT)?;
                Value::some(value)
            }
            None => Value::Optional(None),
        })
    }

    fn index(&mut self, operand: &Expr, key: &Expr, optional: bool) -> Evaluated<'a> {
        let value = self.operand(operand)?;
        let index = self.eval(key)?;
        let step = if is_path(key) { 0 } else { cost::SELECT };
        let (value, optional) = match value {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            value => (value, optional),
        };
        let (found, missing) = match &value {
            Value::List(list) => {
                let Some(Key::Int(_) | Key::Uint(_)) = index.key() else { return Err(Fault::no_overload()) };
                let at = match index.key() {
                    Some(Key::Int(n)) => usize::try_from(n).ok(),
                    Some(Key::Uint(n)) => usize::try_from(n).ok(),
                    _ => None,
                };
                (at.and_then(|at| list.get(at)).transpose()?, "index out of bounds")
            }
            Value::Map(map) => {
                let Some(key) = index.key() else { return Err(Fault::no_overload()) };
                (map.get(&key)?, "no such key")
            }
            _ => return Err(Fault::no_overload()),
        };
        if optional {
            return self.optional(found);
        }
        self.meter.charge(step)?;
        found.ok_or_else(|| Fault::failed(format!("{missing}: {}", shown(&index))))
    }

    /// `&&` and `||`: one deciding term is enough, whatever became of those before it.
    fn junction(&mut self, terms: &[Expr], decides: bool) -> Evaluated<'a> {
        let mut fault = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => drop(fault.get_or_insert_with(Fault::no_overload)),
                Err(Fault::CostLimit) => return Err(Fault::CostLimit),
                Err(other) => drop(fault.get_or_insert(other)),
            }
        }
        fault.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn call(&mut self, call: &Call) -> Evaluated<'a> {
        let count = call.args.len() + usize::from(call.target.is_some());
        let mut args = Vec::with_capacity(count);
        let mut fault = None;
        for arg in call.target.iter().chain(&call.args) {
            match self.eval(arg) {
                Ok(value) => args.push(value),
                // Of two arguments both are looked at, and the call is paid for, before a fault shows.
                Err(Fault::Failed(message)) if count <= 2 => {
                    fault.get_or_insert(Fault::Failed(message));
                    args.push(Value::Null);
                }
                Err(other) => return Err(other),
            }
            // The alternative to a value that is there is not looked at.
            let chooses = call.target.is_some() && matches!(&*call.function, "or" | "orValue");
            if let (true, [Value::Optional(Some(inner))]) = (chooses, args.as_slice()) {
                let held = if &*call.function == "or" { args[0].clone() } else { (**inner).clone() };
                return Ok(held);
            }
        }
        if let Some(fault) = fault {
            let cost = call.overloads.first().map_or(0, |overload| overload.cost.actual(&args, &Value::Null));
            self.meter.charge(cost)?;
            return Err(fault);
        }
        let overload = choose(&call.overloads, &args).ok_or_else(|| no_such_overload(call, &args))?;
        // A literal list is looked up, not walked.
        let free = overload.cost == cost::Cost::InList
            && call.args.get(1).is_some_and(|list| matches!(list.kind, Kind::List(_)) && list.is_constant());
        // What would be too much is not even begun.
        let before = overload.cost.is_known_before() && !free;
        if before {
            self.meter.charge(overload.cost.actual(&args, &Value::Null))?;
        }
        let result = (overload.native)(self.meter, &args);
        if !before && !free {
            self.meter.charge(overload.cost.actual(&args, result.as_ref().unwrap_or(&Value::Null)))?;
        }
        result
    }

    fn opt_map(&mut self, target: &Expr, var: &Arc<str>, body: &Expr, flat: bool) -> Evaluated<'a> {
        let before = self.meter.cost();
        let Value::Optional(held) = self.eval(target)? else { return Err(Fault::no_overload()) };
        let spent = self.meter.cost() - before;
        let Some(inner) = held else {
            // `hasValue`, `optional.none`.
            self.meter.charge(2)?;
            return Ok(Value::Optional(None));
        };
        // `hasValue`, the target once more, `value`, `optional.of`.
        self.meter.charge(spent + 2 + u64::from(!flat))?;
        let value = self.with(var, (*inner).clone(), |this| this.eval(body))?;
        match (flat, value) {
            (false, value) => Ok(Value::some(value)),
            (true, value @ Value::Optional(_)) => Ok(value),
            (true, _) => Err(Fault::no_overload()),
        }
    }
}

/// An optional element that is absent is left out.
fn present(value: Value<'_>, optional: bool) -> Result<Option<Value<'_>>, Fault> {
    match (optional, value) {
        (false, value) => Ok(Some(value)),
        (true, Value::Optional(inner)) => Ok(inner.map(|inner| (*inner).clone())),
        (true, other) => {
            let what = other.type_name();
            Err(Fault::failed(format!(
                "cannot initialize optional entry from non-optional value of type {what}"
            )))
        }
    }
}

fn choose<'o>(overloads: &'o [Arc<Overload>], args: &[Value<'_>]) -> Option<&'o Overload> {
    let fits = |overload: &&Arc<Overload>, deep: bool| {
        overload.args.iter().zip(args).all(|(ty, arg)| if deep { arg.fits_deeply(ty) } else { arg.fits(ty) })
    };
    let found = match overloads {
        [only] => Some(only).filter(|only| fits(only, false)),
        several => several.iter().find(|o| fits(o, true)),
    };
    found.map(|found| &**found)
}

fn no_such_overload(call: &Call, args: &[Value<'_>]) -> Fault {
    let operator = !call.function.starts_with(|c: char| c.is_ascii_alphabetic());
    if operator {
        return Fault::no_overload();
    }
    let types: Vec<&str> = args.iter().map(Value::type_name).collect();
    Fault::failed(format!("no such overload: {}({})", call.function, types.join(", ")))
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Double(n) => n.to_string(),
        Value::String(text) => text.to_string(),
        other => other.type_name().to_owned(),
    }
}

fn constant<'a>(literal: &Literal) -> Value<'a> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(n) => Value::Double(*n),
        Literal::String(text) => Value::String(Text::Shared(Arc::clone(text))),
        Literal::Bytes(bytes) => Value::Bytes(Arc::clone(bytes)),
        Literal::Type(name) => Value::Type(Arc::clone(name)),
    }
}
