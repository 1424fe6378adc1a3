//! What an expression can cost at most, from what is declared of its variables: the judgement passed on rules before
//! they are taken. What calls cost is in `calls.rs`.

mod calls;

use std::sync::Arc;

use crate::ast::{Access, Call, Element, Entry, Expr, Fold, FoldKind, Kind, Literal};
use crate::cost::{self, Cost, scaled};
use crate::decl::{Decl, DeclKind};
use crate::env::Env;
use crate::types::Type;

/// From and to: of costs and of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub min: u64,
    pub max: u64,
}

impl Bounds {
    pub const fn fixed(n: u64) -> Self {
        Self { min: n, max: n }
    }

    pub const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn scaled(self, factor: f64) -> Self {
        Self { min: scaled(self.min, factor), max: scaled(self.max, factor) }
    }

    fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// What is known of a node.
#[derive(Debug, Clone)]
struct Node {
    cost: Bounds,
    size: Option<Bounds>,
    /// The sizes of a list's or a map's keys and values.
    entry: Option<(Bounds, Bounds)>,
    /// Its declaration, where it is a part of a variable's value.
    decl: Option<Arc<Decl>>,
    ty: Type,
}

impl Node {
    fn size(&self) -> Bounds {
        self.size.unwrap_or(Bounds::UNKNOWN)
    }
}

struct Local {
    name: Arc<str>,
    node: Node,
}

pub struct Estimator<'e> {
    env: &'e Env,
    locals: Vec<Local>,
}

pub fn estimate(env: &Env, expr: &Expr) -> Bounds {
    Estimator { env, locals: Vec::new() }.node(expr).cost
}

fn sized(decl: &Decl) -> Bounds {
    Bounds { min: 0, max: decl.max_elements }
}

fn type_size(ty: &Type) -> Option<Bounds> {
    ty.is_scalar().then_some(Bounds::fixed(1))
}

impl Estimator<'_> {
    /// A node with a declaration or without: its size follows from either.
    fn part(&self, cost: Bounds, decl: Option<Arc<Decl>>, ty: &Type) -> Node {
        let size = decl.as_deref().map(sized).or_else(|| type_size(ty));
        Node { cost, size, entry: None, decl, ty: ty.clone() }
    }

    fn plain(cost: Bounds, ty: &Type) -> Node {
        Node { cost, size: type_size(ty), entry: None, decl: None, ty: ty.clone() }
    }

    /// Only a table, so that deep trees take little stack.
    fn node(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(Literal::Type(_)) => self.type_name(&expr.ty),
            Kind::Literal(literal) => literal_node(literal, &expr.ty),
            Kind::Ident(name) => self.ident(name, &expr.ty),
            Kind::Select { operand, field, how } => self.select(operand, field, *how, &expr.ty),
            Kind::Index { operand, key, .. } => self.index(operand, key, &expr.ty),
            Kind::And(terms) | Kind::Or(terms) => self.junction(terms, &expr.ty),
            Kind::Ternary(parts) => self.ternary(parts, &expr.ty),
            Kind::Call(call) => self.call(call, &expr.ty),
            Kind::List(elements) => self.list(elements, &expr.ty),
            Kind::Map(entries) => self.map(entries, &expr.ty),
            Kind::Struct { fields, .. } => {
                let mut cost = Bounds::fixed(cost::OBJECT);
                fields.iter().for_each(|field| cost = cost.plus(self.node(&field.value).cost));
                Self::plain(cost, &expr.ty)
            }
            Kind::Fold(fold) => self.fold(fold, &expr.ty),
            Kind::OptMap { target, var, body, flat } => self.opt_map(target, var, body, *flat, &expr.ty),
            Kind::Bind { var, init, body } => self.bind(var, init, body),
            Kind::Broken => Self::plain(Bounds::fixed(0), &expr.ty),
        }
    }

    fn index(&mut self, operand: &Expr, key: &Expr, ty: &Type) -> Node {
        let (operand, key) = (self.node(operand), self.node(key));
        let cost = operand.cost.plus(key.cost).plus(Bounds::fixed(1));
        let decl = operand.decl.as_deref().and_then(element);
        let mut node = self.part(cost, decl, ty);
        node.size = operand.entry.map(|(_, value)| value).or(node.size);
        node
    }

    /// Only the first is sure to be looked at.
    fn junction(&mut self, terms: &[Expr], ty: &Type) -> Node {
        let mut sum = Bounds::fixed(0);
        let mut first = None;
        for term in terms {
            let cost = self.node(term).cost;
            first.get_or_insert(cost.min);
            sum = sum.plus(cost);
        }
        Self::plain(Bounds { min: first.unwrap_or(0), max: sum.max }, ty)
    }

    fn ternary(&mut self, parts: &[Expr; 3], ty: &Type) -> Node {
        let [condition, yes, no] = parts;
        let (condition, yes, no) = (self.node(condition).cost, self.node(yes), self.node(no));
        let entry = yes.entry.zip(no.entry).map(|(a, b)| (a.0.union(b.0), a.1.union(b.1)));
        let cost = condition.plus(yes.cost.union(no.cost));
        let size = Some(yes.size().union(no.size()));
        Node { size, entry, ..Self::plain(cost, ty) }
    }

    fn list(&mut self, elements: &[Element], ty: &Type) -> Node {
        let mut cost = Bounds::fixed(cost::LIST);
        let mut values: Option<Bounds> = None;
        for element in elements {
            let node = self.node(&element.value);
            cost = cost.plus(node.cost);
            values = Some(values.map_or(node.size(), |held| held.union(node.size())));
        }
        let entry = Some((Bounds::fixed(1), values.unwrap_or(Bounds::fixed(0))));
        let size = Some(Bounds::fixed(elements.len() as u64));
        Node { size, entry, ..Self::plain(cost, ty) }
    }

    fn map(&mut self, entries: &[Entry], ty: &Type) -> Node {
        let mut cost = Bounds::fixed(cost::MAP);
        let mut sizes: Option<(Bounds, Bounds)> = None;
        for entry in entries {
            let (key, value) = (self.node(&entry.key), self.node(&entry.value));
            cost = cost.plus(key.cost).plus(value.cost);
            let new = (key.size(), value.size());
            sizes = Some(sizes.map_or(new, |held| (held.0.union(new.0), held.1.union(new.1))));
        }
        let entry = Some(sizes.unwrap_or((Bounds::fixed(0), Bounds::fixed(0))));
        let size = Some(Bounds::fixed(entries.len() as u64));
        Node { size, entry, ..Self::plain(cost, ty) }
    }

    fn bind(&mut self, var: &Arc<str>, init: &Expr, body: &Expr) -> Node {
        let bound = self.node(init);
        let cost = Bounds::fixed(cost::LIST).plus(bound.cost);
        self.locals.push(Local { name: Arc::clone(var), node: bound });
        let body = self.node(body);
        self.locals.pop();
        Node { cost: cost.plus(body.cost), ..body }
    }

    /// The size of what a rule is about: the original takes it for that of names it knows nothing of.
    fn whole(&self) -> Option<Bounds> {
        self.env.variable_decl("self").map(|decl| sized(decl))
    }

    fn type_name(&self, ty: &Type) -> Node {
        Node { size: self.whole(), ..Self::plain(Bounds::fixed(1), ty) }
    }

    fn ident(&mut self, name: &str, ty: &Type) -> Node {
        let steps = 1 + name.matches('.').count() as u64;
        if let Some(local) = self.locals.iter().rev().find(|local| *local.name == *name) {
            return Node { cost: Bounds::fixed(steps), ..local.node.clone() };
        }
        let decl = self.env.variable_decl(name).cloned();
        self.part(Bounds::fixed(steps), decl, ty)
    }

    fn select(&mut self, operand: &Expr, field: &str, how: Access, ty: &Type) -> Node {
        let operand = self.node(operand);
        match how {
            Access::Test => return Self::plain(operand.cost, ty),
            // A call: its cost is one, and nothing is known of what it gives.
            Access::Optional => return Self::plain(operand.cost.plus(Bounds::fixed(1)), ty),
            Access::Field => {}
        }
        let step = u64::from(matches!(operand.ty, Type::Map(..) | Type::Object(_) | Type::Opaque(_)));
        let decl = operand.decl.as_deref().and_then(|decl| match &decl.kind {
            DeclKind::Object { .. } => decl.field(field).cloned(),
            _ => None,
        });
        self.part(operand.cost.plus(Bounds::fixed(step)), decl, ty)
    }

    fn fold(&mut self, fold: &Fold, ty: &Type) -> Node {
        let range = self.node(&fold.range);
        let is_list = matches!(range.ty, Type::List(_));
        let (key_type, value_type) = match &range.ty {
            Type::List(item) => (Type::Int, (**item).clone()),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            _ => (Type::Dyn, Type::Dyn),
        };
        let key_decl = range.decl.as_deref().and_then(key_of);
        let mut key = self.part(Bounds::fixed(1), key_decl, &key_type);
        let mut value = self.part(Bounds::fixed(1), range.decl.as_deref().and_then(element), &value_type);
        if let Some((keys, values)) = range.entry {
            key.size = key.decl.as_deref().map(sized).or(type_size(&key_type)).or(Some(keys));
            value.size = value.decl.as_deref().map(sized).or(type_size(&value_type)).or(Some(values));
        }
        // What a list or map made by the expression holds is, to the original, as large as the whole.
        if let (None, Some(whole)) = (&range.decl, self.whole()) {
            (key.size, value.size) = (Some(whole), Some(whole));
        }
        let depth = self.locals.len();
        match &fold.second {
            Some(name) => {
                self.locals.push(Local { name: Arc::clone(&fold.var), node: key });
                self.locals.push(Local { name: Arc::clone(name), node: value });
            }
            None => {
                let node = if is_list { value } else { key };
                self.locals.push(Local { name: Arc::clone(&fold.var), node });
            }
        }
        let filter = fold.filter.as_ref().map(|filter| self.node(filter));
        let body = self.node(&fold.body);
        let var = self.ident(&fold.var, &Type::Dyn);
        self.locals.truncate(depth);
        let count = range.size();
        let (opening, step, closing) = step_costs(fold.kind, &body);
        // What is kept only where a condition holds.
        let step = match (&filter, fold.kind) {
            (Some(filter), _) => filter.cost.plus(step.union(Bounds::fixed(1))),
            _ => step,
        };
        let cost =
            range.cost.plus(Bounds::fixed(opening)).plus(count.times(step)).plus(Bounds::fixed(closing));
        let mut node = Self::plain(cost, ty);
        match fold.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => node.size = Some(Bounds::fixed(1)),
            FoldKind::Filter | FoldKind::List => {
                node.size = Some(count);
                let item = if fold.kind == FoldKind::Filter { var.size() } else { body.size() };
                node.entry = Some((Bounds::fixed(1), Bounds { min: 0, max: item.max }));
            }
            FoldKind::Map | FoldKind::Entries => node.size = Some(count),
        }
        node
    }

    fn opt_map(&mut self, target: &Expr, var: &Arc<str>, body: &Expr, flat: bool, ty: &Type) -> Node {
        let target = self.node(target);
        let inner = match &target.ty {
            Type::Optional(inner) => (**inner).clone(),
            _ => Type::Dyn,
        };
        let local = self.part(Bounds::fixed(1), target.decl.clone(), &inner);
        self.locals.push(Local { name: Arc::clone(var), node: local });
        let body = self.node(body);
        self.locals.pop();
        // The empty list of the binding, the target once more, `value`, what is made of it.
        let taken = Bounds::fixed(cost::LIST + 1 + u64::from(!flat)).plus(target.cost).plus(body.cost);
        let cost = target.cost.plus(Bounds::fixed(1)).plus(taken.union(Bounds::fixed(1)));
        Self::plain(cost, ty)
    }

    fn call(&mut self, call: &Call, ty: &Type) -> Node {
        if &*call.function == "dyn"
            && let [arg] = call.args.as_slice()
        {
            let arg = self.node(arg);
            return Node { cost: arg.cost.plus(Bounds::fixed(1)), ty: ty.clone(), decl: None, ..arg };
        }
        let nodes: Vec<Node> = call.target.iter().chain(&call.args).map(|arg| self.node(arg)).collect();
        let parts = nodes.iter().fold(Bounds::fixed(0), |sum, node| sum.plus(node.cost));
        let mut own: Option<Bounds> = None;
        let mut size: Option<Bounds> = None;
        for overload in &call.overloads {
            let (cost, result) = calls::cost_of(overload.cost, &overload.args, &nodes, call);
            own = Some(own.map_or(cost, |held| held.union(cost)));
            if let Some(result) = result {
                size = Some(size.map_or(result, |held| held.union(result)));
            }
        }
        let mut node = Self::plain(parts.plus(own.unwrap_or(Bounds::fixed(0))), ty);
        node.size = size.or(node.size);
        if let (Some(Cost::ConcatLists), [a, b]) = (call.overloads.first().map(|o| o.cost), nodes.as_slice())
        {
            node.entry = a.entry.zip(b.entry).map(|(a, b)| (a.0.union(b.0), a.1.union(b.1)));
        }
        node
    }
}

fn literal_node(literal: &Literal, ty: &Type) -> Node {
    let size = match literal {
        Literal::String(text) => Some(text.chars().count() as u64),
        Literal::Bytes(bytes) => Some(bytes.len() as u64),
        _ => Some(1),
    };
    Node { size: size.map(Bounds::fixed), ..Estimator::plain(Bounds::fixed(0), ty) }
}

fn element(decl: &Decl) -> Option<Arc<Decl>> {
    match &decl.kind {
        DeclKind::List { item, .. } => Some(Arc::clone(item)),
        DeclKind::Map(value) => Some(Arc::clone(value)),
        _ => None,
    }
}

/// A map's keys are strings of which no length is declared.
fn key_of(decl: &Decl) -> Option<Arc<Decl>> {
    match &decl.kind {
        DeclKind::Map(_) => Some(Arc::new(Decl::new(DeclKind::String, 0, 2))),
        _ => None,
    }
}

/// What a fold starts with, what each element costs, and what the end costs.
fn step_costs(kind: FoldKind, body: &Node) -> (u64, Bounds, u64) {
    let maybe = |fixed: u64| Bounds { min: fixed, max: body.cost.max.saturating_add(fixed) };
    match kind {
        FoldKind::All => (0, maybe(3), 1),
        FoldKind::Exists => (0, maybe(4), 1),
        FoldKind::ExistsOne => (0, body.cost.plus(Bounds { min: 1, max: 2 }), 2),
        FoldKind::Filter => (cost::LIST, body.cost.plus(Bounds { min: 1, max: cost::LIST + 3 }), 1),
        FoldKind::List => (cost::LIST, body.cost.plus(Bounds::fixed(cost::LIST + 2)), 1),
        FoldKind::Map => (cost::MAP, body.cost.plus(Bounds::fixed(3)), 1),
        FoldKind::Entries => (cost::MAP, body.cost.plus(Bounds::fixed(2)), 1),
    }
}
