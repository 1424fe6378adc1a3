//! Macros: calls that the parser turns into nodes of their own.

use std::sync::Arc;

use crate::ast::{Access, Expr, Fold, FoldKind, Kind};
use crate::parse::Parser;

const ACCUMULATORS: [&str; 2] = ["__result__", "@result"];

/// `has(a.b)`, or a plain call.
pub fn global(parser: &mut Parser<'_>, at: usize, name: &str, args: Vec<Expr>) -> Expr {
    if name != "has" || args.len() != 1 {
        return parser.call(at, name, None, args);
    }
    let arg = args.into_iter().next().unwrap_or_else(|| Expr::new(at, Kind::Broken));
    match arg.kind {
        Kind::Select { operand, field, how: Access::Field } => {
            parser.node(at, Kind::Select { operand, field, how: Access::Test })
        }
        Kind::Broken => arg,
        _ => fail(parser, arg.at, "invalid argument to has() macro"),
    }
}

/// How a call of this name and number of arguments is read: what it does, how many variables, whether it filters.
fn fold_of(name: &str, args: usize) -> Option<(FoldKind, usize, bool)> {
    Some(match (name, args) {
        ("all", 2) => (FoldKind::All, 1, false),
        ("exists", 2) => (FoldKind::Exists, 1, false),
        ("exists_one" | "existsOne", 2) => (FoldKind::ExistsOne, 1, false),
        ("filter", 2) => (FoldKind::Filter, 1, false),
        ("map", 2) => (FoldKind::List, 1, false),
        ("map", 3) => (FoldKind::List, 1, true),
        ("all", 3) => (FoldKind::All, 2, false),
        ("exists", 3) => (FoldKind::Exists, 2, false),
        ("exists_one" | "existsOne", 3) => (FoldKind::ExistsOne, 2, false),
        ("transformList", 3 | 4) => (FoldKind::List, 2, args == 4),
        ("transformMap", 3 | 4) => (FoldKind::Map, 2, args == 4),
        ("transformMapEntry", 3 | 4) => (FoldKind::Entries, 2, args == 4),
        _ => return None,
    })
}

pub fn member(parser: &mut Parser<'_>, at: usize, target: Expr, name: &str, args: Vec<Expr>) -> Expr {
    if let Some((kind, variables, filters)) = fold_of(name, args.len()) {
        return fold(parser, at, target, args, (kind, variables, filters));
    }
    match (name, args.len()) {
        ("optMap" | "optFlatMap", 2) => opt_map(parser, at, target, args, name == "optFlatMap"),
        ("sortBy", 2) => sort_by(parser, at, target, args),
        _ => parser.call(at, name, Some(target), args),
    }
}

fn fail(parser: &mut Parser<'_>, at: usize, message: &str) -> Expr {
    parser.issues.push(at, message.to_owned());
    Expr::new(at, Kind::Broken)
}

fn fold(
    parser: &mut Parser<'_>,
    at: usize,
    range: Expr,
    args: Vec<Expr>,
    (kind, variables, filters): (FoldKind, usize, bool),
) -> Expr {
    let simple_name =
        variables == 2 || matches!(kind, FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne);
    let complaint =
        if simple_name { "argument must be a simple name" } else { "argument is not an identifier" };
    let mut args = args.into_iter();
    let mut names: Vec<Arc<str>> = Vec::new();
    for arg in args.by_ref().take(variables) {
        match variable(&arg) {
            Ok(name) if names.contains(&name) => {
                return fail(parser, arg.at, &format!("duplicate variable name: {name}"));
            }
            Ok(name) => names.push(name),
            Err(Name::Accumulator) => {
                return fail(parser, arg.at, "iteration variable overwrites accumulator variable");
            }
            Err(Name::None) => return fail(parser, arg.at, complaint),
        }
    }
    let filter = if filters { args.next() } else { None };
    let mut names = names.into_iter();
    let (Some(var), second, Some(body)) = (names.next(), names.next(), args.next()) else {
        return fail(parser, at, complaint);
    };
    parser.node(at, Kind::Fold(Box::new(Fold { kind, range, var, second, filter, body })))
}

enum Name {
    None,
    Accumulator,
}

fn variable(expr: &Expr) -> Result<Arc<str>, Name> {
    match &expr.kind {
        Kind::Ident(name) if ACCUMULATORS.contains(&&**name) => Err(Name::Accumulator),
        Kind::Ident(name) if !name.starts_with('.') => Ok(Arc::clone(name)),
        _ => Err(Name::None),
    }
}

fn opt_map(parser: &mut Parser<'_>, at: usize, target: Expr, args: Vec<Expr>, flat: bool) -> Expr {
    let name = if flat { "optFlatMap" } else { "optMap" };
    let mut args = args.into_iter();
    let (Some(first), Some(body)) = (args.next(), args.next()) else { return fail(parser, at, "argument") };
    match variable(&first) {
        Ok(var) => {
            parser.node(at, Kind::OptMap { target: Box::new(target), var, body: Box::new(body), flat })
        }
        Err(_) => fail(parser, first.at, &format!("{name}() variable name must be a simple identifier")),
    }
}

/// The list is bound to a name, its keys are computed by a `map`, and both go to one function.
fn sort_by(parser: &mut Parser<'_>, at: usize, target: Expr, args: Vec<Expr>) -> Expr {
    const INPUT: &str = "@__sortBy_input__";
    let sortable = matches!(
        target.kind,
        Kind::List(_)
            | Kind::Select { .. }
            | Kind::Ident(_)
            | Kind::Fold(_)
            | Kind::Call(_)
            | Kind::Index { .. }
            | Kind::Bind { .. }
            | Kind::OptMap { .. }
            | Kind::Ternary(_)
            | Kind::Broken
    );
    if !sortable {
        let message =
            "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
        return fail(parser, target.at, message);
    }
    let mut args = args.into_iter();
    let (Some(first), Some(key)) = (args.next(), args.next()) else { return fail(parser, at, "argument") };
    let var = match variable(&first) {
        Ok(var) => var,
        Err(Name::Accumulator) => {
            return fail(parser, first.at, "iteration variable overwrites accumulator variable");
        }
        Err(Name::None) => return fail(parser, first.at, "argument is not an identifier"),
    };
    let input = || Expr::new(at, Kind::Ident(INPUT.into()));
    let keys = Fold { kind: FoldKind::List, range: input(), var, second: None, filter: None, body: key };
    let keys = parser.node(at, Kind::Fold(Box::new(keys)));
    let sorted = parser.call(at, "@sortByAssociatedKeys", Some(input()), vec![keys]);
    parser.node(at, Kind::Bind { var: INPUT.into(), init: Box::new(target), body: Box::new(sorted) })
}
