//! The types of folds and of `optMap`.

use std::sync::{Arc, LazyLock};

use super::{Checker, Signatures, TERNARY, signatures};
use crate::ast::{Expr, Fold, FoldKind};
use crate::types::Type;

static INSERT: Signatures = LazyLock::new(|| signatures(&[(&["map<A, B>", "map<A, B>"], "map<A, B>")]));

impl Checker<'_> {
    pub(super) fn fold(&mut self, at: usize, fold: &mut Fold) -> Type {
        self.check(&mut fold.range);
        let range = fold.range.ty.clone();
        let range = self.unifier.resolve(&range, false);
        let (first, second) = match &range {
            Type::List(item) => (Type::Int, (**item).clone()),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error => (Type::Dyn, Type::Dyn),
            Type::Var(_) => {
                self.unifier.assign(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issues.push(fold.range.at, message);
                (Type::Error, Type::Error)
            }
        };
        // One variable alone is a list's element or a map's key.
        let single = if matches!(range, Type::List(_)) { second.clone() } else { first.clone() };
        let scopes = self.scopes.len();
        match &fold.second {
            Some(name) => {
                self.scopes.push((Arc::clone(&fold.var), first.clone()));
                self.scopes.push((Arc::clone(name), second));
            }
            None => self.scopes.push((Arc::clone(&fold.var), single.clone())),
        }
        for part in fold.filter.iter_mut().chain([&mut fold.body]) {
            self.check(part);
        }
        self.scopes.truncate(scopes);
        let result = match fold.kind {
            FoldKind::All | FoldKind::Exists => {
                self.want(&fold.body, &Type::Bool);
                return Type::Bool;
            }
            FoldKind::ExistsOne => {
                let args = [fold.body.ty.clone(), Type::Int, Type::Int];
                self.operator(at, "_?_:_", &TERNARY, &args);
                return Type::Bool;
            }
            FoldKind::Filter => Type::list(single),
            FoldKind::List => Type::list(fold.body.ty.clone()),
            FoldKind::Map => Type::map(first, fold.body.ty.clone()),
            FoldKind::Entries => {
                let empty = Type::map(self.unifier.fresh(), self.unifier.fresh());
                self.operator(at, "cel.@mapInsert", &INSERT, &[empty, fold.body.ty.clone()])
            }
        };
        let condition = match fold.kind {
            FoldKind::Filter => Some(&fold.body),
            _ => fold.filter.as_ref(),
        };
        if let Some(condition) = condition {
            let args = [condition.ty.clone(), result.clone(), result.clone()];
            self.operator(at, "_?_:_", &TERNARY, &args);
        }
        self.bounded(result)
    }

    pub(super) fn opt_map(
        &mut self,
        at: usize,
        target: &mut Expr,
        var: &Arc<str>,
        body: &mut Expr,
        flat: bool,
    ) -> Type {
        self.check(target);
        let given = target.ty.clone();
        let inner = match self.unifier.resolve(&given, false) {
            Type::Optional(inner) => (*inner).clone(),
            ty if ty.is_dyn_or_error() => Type::Dyn,
            ty => {
                self.no_overload(at, "hasValue", &[ty], true);
                Type::Error
            }
        };
        self.scopes.push((Arc::clone(var), inner));
        self.check(body);
        self.scopes.pop();
        let ty = body.ty.clone();
        if !flat {
            return Type::optional(ty);
        }
        let none = Type::optional(self.unifier.fresh());
        self.operator(at, "_?_:_", &TERNARY, &[Type::Bool, ty, none])
    }
}
