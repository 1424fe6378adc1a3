//! A policy's `variables`: expressions by name, each evaluated when it is first asked for, and once.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};

use cel::{CALL_LIMIT, Env, Fault, MAX_DEPTH, Meter, Program, Type, Value, Variables};
use k8s_openapi::api::admissionregistration::v1::Variable;

use super::conditions::compile;
use super::variables::{AdmissionVars, evaluate, spend};

/// How deeply variables may be made of variables, counted in the depths of their expressions: their values nest as
/// deeply.
const MAX_REACH: u32 = 1000;

#[derive(Debug, Clone)]
struct One {
    /// `variables.x`
    name: String,
    program: Result<Program, String>,
    /// How deeply it recurses with the variables that it reads, when none of them is known.
    reach: u32,
}

/// A policy's variables in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Named {
    all: Vec<One>,
    places: HashMap<String, usize>,
}

impl Named {
    fn push(&mut self, name: String, program: Result<Program, String>) {
        let reach = program.as_ref().map_or(0, |program| self.reach(program));
        let (program, reach) = match reach > MAX_REACH {
            true => (Err(format!("compilation failed: variables nest too deeply: limit is {MAX_REACH}")), 0),
            false => (program, reach),
        };
        // The first of a name is the one that is read, so that none comes to read itself.
        self.places.entry(name.clone()).or_insert(self.all.len());
        self.all.push(One { name, program, reach });
    }

    fn read_by<'n>(&'n self, program: &'n Program) -> impl Iterator<Item = usize> + 'n {
        program.used().filter_map(|name| self.places.get(name).copied())
    }

    fn reach(&self, program: &Program) -> u32 {
        let deepest = self.read_by(program).filter_map(|at| self.all.get(at)).map(|one| one.reach).max();
        program.depth().saturating_add(deepest.unwrap_or_default())
    }

    /// Every variable that the expression comes to read, those first that others read.
    fn needed(&self, program: &Program) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut open: Vec<_> = self.read_by(program).collect();
        while let Some(at) = open.pop() {
            if let (true, Some(Ok(program))) = (needed.insert(at), self.all.get(at).map(|one| &one.program)) {
                open.extend(self.read_by(program));
            }
        }
        needed
    }
}

/// Compiles the variables in their order: each may use those before it. The environment knows them then.
pub(crate) fn compile_variables(env: Env, variables: Option<&[Variable]>) -> (Env, Named) {
    let mut env = env;
    let mut named = Named::default();
    for variable in variables.unwrap_or_default() {
        let program = Program::compile(&env, &variable.expression)
            .map_err(|issues| format!("compilation failed: {issues}"));
        let name = format!("variables.{}", variable.name);
        let ty = program.as_ref().map_or(Type::Dyn, |program| program.output().clone());
        env = env.variable(&name, ty);
        named.push(name, program);
    }
    (env, named)
}

/// An expression, or what is wrong with it.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    pub source: String,
    program: Result<Program, String>,
}

impl Expression {
    pub fn compile(env: &Env, source: &str, types: &[Type]) -> Self {
        Self { source: source.to_owned(), program: compile(env, source, types) }
    }

    pub fn fault(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    /// The outer error is that the budget is used up.
    pub fn evaluate<'a>(
        &self,
        variables: &Composed<'_, 'a>,
        budget: &mut i64,
    ) -> Result<Result<Value<'a>, String>, &'static str> {
        let program = match &self.program {
            Ok(program) => program,
            Err(fault) => return Ok(Err(format!("compilation error: {fault}"))),
        };
        variables.prepare(program);
        let result = evaluate(&self.source, program, variables, budget);
        // What the variables took for the expression is on the same budget.
        spend(budget, variables.spent.take())?;
        result
    }
}

/// The variables of admission and a policy's own.
pub(crate) struct Composed<'v, 'a> {
    base: &'v AdmissionVars<'a>,
    named: &'v Named,
    known: RefCell<Vec<Option<Result<Value<'a>, Fault>>>>,
    spent: Cell<u64>,
}

impl<'v, 'a> Composed<'v, 'a> {
    pub fn new(base: &'v AdmissionVars<'a>, named: &'v Named) -> Self {
        let known = RefCell::new(vec![None; named.all.len()]);
        Self { base, named, known, spent: Cell::new(0) }
    }

    /// Variables that read variables recurse. Where that may go deeper than an expression by itself may, they are
    /// evaluated beforehand, in an order in which none waits for another.
    fn prepare(&self, program: &Program) {
        if self.named.reach(program) > MAX_DEPTH {
            for at in self.named.needed(program) {
                if let Some(one) = self.named.all.get(at) {
                    let _known_now = self.find(&one.name);
                }
            }
        }
    }

    fn find(&self, name: &str) -> Result<Value<'a>, Fault> {
        let unknown = || Fault::failed(format!("no such key: {name}"));
        let index = *self.named.places.get(name).ok_or_else(unknown)?;
        if let Some(Some(known)) = self.known.borrow().get(index) {
            return known.clone();
        }
        let named = self.named.all.get(index).ok_or_else(unknown)?;
        let shown = name.trim_start_matches("variables.");
        let result = match &named.program {
            Err(fault) => {
                Err(Fault::failed(format!("composited variable {shown:?} fails to compile: {fault}")))
            }
            Ok(program) => {
                let evaluation = program.evaluate(self, CALL_LIMIT);
                self.spent.set(self.spent.get().saturating_add(evaluation.spent));
                evaluation.result.map_err(|fault| {
                    Fault::failed(format!("composited variable {shown:?} fails to evaluate: {fault}"))
                })
            }
        };
        if let Some(slot) = self.known.borrow_mut().get_mut(index) {
            *slot = Some(result.clone());
        }
        result
    }
}

impl<'a> Variables<'a> for Composed<'_, 'a> {
    fn get(&self, name: &str, meter: &mut Meter) -> Result<Option<Value<'a>>, Fault> {
        match name.starts_with("variables.") {
            true => self.find(name).map(Some),
            false => self.base.get(name, meter),
        }
    }
}
