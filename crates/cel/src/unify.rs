//! Solving for the unknowns in types: which type fits where another is wanted.

use crate::types::Type;

/// Steps for one expression. Types share their parts, so what is small to hold may be long to walk.
const FUEL: u32 = 2_000_000;

pub struct Unifier {
    known: Vec<Option<Type>>,
    /// What to put back when an attempt fails.
    trail: Vec<(usize, Option<Type>)>,
    fuel: u32,
}

impl Default for Unifier {
    fn default() -> Self {
        Self { known: Vec::new(), trail: Vec::new(), fuel: FUEL }
    }
}

impl Unifier {
    pub fn fresh(&mut self) -> Type {
        self.known.push(None);
        Type::Var(u32::try_from(self.known.len() - 1).unwrap_or(u32::MAX))
    }

    pub fn is_exhausted(&self) -> bool {
        self.fuel == 0
    }

    fn step(&mut self) -> bool {
        self.fuel = self.fuel.saturating_sub(1);
        self.fuel > 0
    }

    fn get(&self, var: u32) -> Option<&Type> {
        self.known.get(var as usize).and_then(Option::as_ref)
    }

    fn set(&mut self, var: u32, ty: Type) {
        let index = var as usize;
        if let Some(slot) = self.known.get_mut(index) {
            self.trail.push((index, slot.replace(ty)));
        }
    }

    /// Whether all of `given` fit `wanted`, one by one; if not, nothing was learned.
    pub fn assign_all(&mut self, given: &[Type], wanted: &[Type]) -> bool {
        let mark = self.trail.len();
        let fits = given.len() == wanted.len()
            && given.iter().zip(wanted).all(|(given, wanted)| self.assignable(given, wanted));
        if !fits {
            while self.trail.len() > mark {
                if let Some((index, held)) = self.trail.pop()
                    && let Some(slot) = self.known.get_mut(index)
                {
                    *slot = held;
                }
            }
        }
        fits
    }

    pub fn assign(&mut self, given: &Type, wanted: &Type) -> bool {
        self.assign_all(std::slice::from_ref(given), std::slice::from_ref(wanted))
    }

    fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        if !self.step() {
            return true;
        }
        if let Type::Var(var) = b {
            match self.bind(a, *var) {
                (true, _) => return true,
                (false, true) => return false,
                _ => {}
            }
        }
        if let Type::Var(var) = a {
            return self.bind(b, *var).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => takes_null(other),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.assignable(a, b),
            (Type::Map(ka, va), Type::Map(kb, vb)) => self.assignable(ka, kb) && self.assignable(va, vb),
            (a, b) => a == b,
        }
    }

    /// Whether `ty` may stand for the unknown, and whether something stood for it already.
    fn bind(&mut self, ty: &Type, var: u32) -> (bool, bool) {
        if *ty == Type::Var(var) {
            return (true, true);
        }
        match self.get(var).cloned() {
            Some(held) => {
                if *ty == held {
                    return (true, true);
                }
                if !self.assignable(ty, &held) {
                    return (false, true);
                }
                let general = if less_specific(ty, &held) { ty.clone() } else { held };
                if self.free_of(var, &general) {
                    self.set(var, general);
                }
                (true, true)
            }
            None if self.free_of(var, ty) => {
                self.set(var, ty.clone());
                (true, false)
            }
            None => (false, false),
        }
    }

    fn free_of(&mut self, var: u32, ty: &Type) -> bool {
        if !self.step() {
            return false;
        }
        match ty {
            Type::Var(other) if *other == var => false,
            Type::Var(other) => match self.get(*other).cloned() {
                Some(held) => self.free_of(var, &held),
                None => true,
            },
            ty => ty.parts().into_iter().flatten().all(|part| self.free_of(var, part)),
        }
    }

    /// With what is known put in; what is not becomes `dyn`, if asked.
    pub fn resolve(&mut self, ty: &Type, unknown_is_dyn: bool) -> Type {
        if !self.step() {
            return Type::Dyn;
        }
        match ty {
            Type::Var(var) => match self.get(*var).cloned() {
                Some(held) => self.resolve(&held, unknown_is_dyn),
                None if unknown_is_dyn => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(item) => Type::list(self.resolve(item, unknown_is_dyn)),
            Type::Optional(inner) => Type::optional(self.resolve(inner, unknown_is_dyn)),
            Type::Type(inner) => Type::Type(self.resolve(inner, unknown_is_dyn).into()),
            Type::Map(key, value) => {
                let key = self.resolve(key, unknown_is_dyn);
                Type::map(key, self.resolve(value, unknown_is_dyn))
            }
            plain => plain.clone(),
        }
    }

    /// The more general of two that fit one another.
    pub fn general(a: &Type, b: &Type) -> Type {
        if less_specific(a, b) { a.clone() } else { b.clone() }
    }

    /// A declaration's types with new unknowns for its parameters.
    pub fn instantiate(&mut self, types: &[Type]) -> Vec<Type> {
        let mut names: Vec<(char, Type)> = Vec::new();
        types.iter().map(|ty| self.rename(ty, &mut names)).collect()
    }

    fn rename(&mut self, ty: &Type, names: &mut Vec<(char, Type)>) -> Type {
        match ty {
            Type::Param(name) => {
                if let Some((_, var)) = names.iter().find(|(known, _)| known == name) {
                    return var.clone();
                }
                let var = self.fresh();
                names.push((*name, var.clone()));
                var
            }
            Type::List(item) => Type::list(self.rename(item, names)),
            Type::Optional(inner) => Type::optional(self.rename(inner, names)),
            Type::Type(inner) => Type::Type(self.rename(inner, names).into()),
            Type::Map(key, value) => {
                let key = self.rename(key, names);
                Type::map(key, self.rename(value, names))
            }
            plain => plain.clone(),
        }
    }
}

fn takes_null(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Null | Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Timestamp | Type::Duration
    )
}

fn less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Var(_), _) => true,
        (_, Type::Dyn | Type::Var(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (Type::Map(ka, va), Type::Map(kb, vb)) => less_specific(ka, kb) && less_specific(va, vb),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
