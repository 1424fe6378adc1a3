//! What can be judged of literals alone, once all else is right.

use super::Checker;
use crate::ast::{Call, Expr, Kind};
use crate::functions::regexes;
use crate::time;
use crate::types::Type;

impl Checker<'_> {
    /// Durations, timestamps and patterns that stand in the text are read before anything is evaluated, and literal
    /// lists and maps hold one type only, unless they go to `format`.
    pub(super) fn literals(&mut self, expr: &Expr, mixed: bool) {
        let mut mixed = mixed;
        match &expr.kind {
            Kind::Call(call) => {
                mixed |= &*call.function == "format";
                self.literal_argument(call);
            }
            Kind::List(elements) if !mixed => {
                self.one_type(elements.iter().map(|element| (&element.value, element.optional)));
            }
            Kind::Map(entries) if !mixed => {
                self.one_type(entries.iter().map(|entry| (&entry.key, false)));
                self.one_type(entries.iter().map(|entry| (&entry.value, entry.optional)));
            }
            _ => {}
        }
        crate::ast::each_child(&expr.kind, &mut |child| self.literals(child, mixed));
    }

    fn one_type<'x>(&mut self, parts: impl Iterator<Item = (&'x Expr, bool)>) {
        let mut first: Option<&Type> = None;
        for (part, optional) in parts {
            let ty = match &part.ty {
                Type::Optional(inner) if optional => inner,
                ty => ty,
            };
            match first {
                None => first = Some(ty),
                Some(first) if first != ty => {
                    self.issues.push(part.at, format!("expected type '{first}' but found '{ty}'"));
                    return;
                }
                Some(_) => {}
            }
        }
    }

    fn literal_argument(&mut self, call: &Call) {
        let method = call.target.is_some();
        let (arg, fits): (Option<&Expr>, fn(&str) -> bool) = match &*call.function {
            "duration" => (call.args.first(), |text| time::parse_duration(text).is_some()),
            "timestamp" => (call.args.first(), |text| time::parse_timestamp(text).is_some()),
            "matches" | "find" | "findAll" => {
                (call.args.get(usize::from(!method)), |text| regexes::compile(text).is_ok())
            }
            _ => (None, |_| true),
        };
        if let Some(arg) = arg
            && arg.string().is_some_and(|text| !fits(text))
        {
            self.issues.push(arg.at, format!("invalid {} argument", call.function));
        }
    }
}
