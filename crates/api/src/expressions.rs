//! What this crate adds to the expression language: quantities, which the language knows no more of than that they are
//! somebody's type.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use cel::cost::Cost;
use cel::{Fault, Library, Meter, Opaque, Row, Value};

use crate::quantity::Quantity;

/// The functions of every expression in the API.
pub fn library() -> &'static Library {
    static LIBRARY: LazyLock<Library> = LazyLock::new(|| Library::standard().with(ROWS));
    &LIBRARY
}

const ROWS: &[Row] = &[
    Row("quantity(string): kubernetes.Quantity", Cost::Scan(1.0), quantity),
    Row("isQuantity(string): bool", Cost::Scan(1.0), is_quantity),
    Row("kubernetes.Quantity::sign(): int", Cost::One, sign),
    Row("kubernetes.Quantity::isGreaterThan(kubernetes.Quantity): bool", Cost::One, is_greater_than),
    Row("kubernetes.Quantity::isLessThan(kubernetes.Quantity): bool", Cost::One, is_less_than),
    Row("kubernetes.Quantity::compareTo(kubernetes.Quantity): int", Cost::One, compare_to),
    Row("kubernetes.Quantity::asApproximateFloat(): double", Cost::One, as_approximate_float),
    Row("kubernetes.Quantity::asInteger(): int", Cost::One, as_integer),
    Row("kubernetes.Quantity::isInteger(): bool", Cost::One, is_integer),
    Row("kubernetes.Quantity::add(kubernetes.Quantity): kubernetes.Quantity", Cost::One, add),
    Row("kubernetes.Quantity::add(int): kubernetes.Quantity", Cost::One, add),
    Row("kubernetes.Quantity::sub(kubernetes.Quantity): kubernetes.Quantity", Cost::One, sub),
    Row("kubernetes.Quantity::sub(int): kubernetes.Quantity", Cost::One, sub),
];

#[derive(Debug)]
struct Held(Quantity);

impl Opaque for Held {
    fn type_name(&self) -> &'static str {
        "kubernetes.Quantity"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self.0 == other.0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn value<'a>(quantity: Quantity) -> Value<'a> {
    Value::Opaque(Arc::new(Held(quantity)))
}

/// An argument: a quantity, or a whole number as one.
fn held(args: &[Value<'_>], at: usize) -> Result<Quantity, Fault> {
    match args.get(at) {
        Some(Value::Opaque(value)) => {
            value.as_any().downcast_ref::<Held>().map(|held| held.0).ok_or_else(Fault::no_overload)
        }
        Some(Value::Int(n)) => Ok(Quantity::from_units(*n)),
        _ => Err(Fault::no_overload()),
    }
}

fn parse(args: &[Value<'_>]) -> Result<Result<Quantity, String>, Fault> {
    match args {
        [Value::String(text)] => Ok(Quantity::parse(text).map_err(|error| error.to_string())),
        _ => Err(Fault::no_overload()),
    }
}

fn quantity<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    parse(args)?.map(value).map_err(Fault::Failed)
}

fn is_quantity<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(parse(args)?.is_ok()))
}

fn sign<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Int(held(args, 0)?.cmp(&Quantity::ZERO) as i64))
}

fn is_greater_than<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(held(args, 0)? > held(args, 1)?))
}

fn is_less_than<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(held(args, 0)? < held(args, 1)?))
}

fn compare_to<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Int(held(args, 0)?.cmp(&held(args, 1)?) as i64))
}

fn as_approximate_float<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Double(held(args, 0)?.to_f64()))
}

/// Whole, and no larger than a number of the language.
fn whole(quantity: Quantity) -> Option<i64> {
    let n = quantity.to_i64();
    (quantity.is_whole() && Quantity::from_units(n) == quantity).then_some(n)
}

fn as_integer<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let n = whole(held(args, 0)?);
    n.map(Value::Int).ok_or_else(|| Fault::failed("cannot convert value to integer"))
}

fn is_integer<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(whole(held(args, 0)?).is_some()))
}

fn add<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(value(held(args, 0)? + held(args, 1)?))
}

fn sub<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(value(held(args, 0)? - held(args, 1)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cel::{CALL_LIMIT, Env, Program};

    use super::*;

    #[test]
    fn quantities_are_compared_and_reckoned_with() {
        for (source, cost) in [
            ("quantity('200M') == quantity('0.2G')", 3),
            ("quantity('50M').isLessThan(quantity('50Mi'))", 3),
            ("quantity('50Mi').isGreaterThan(quantity('50M'))", 3),
            ("quantity('200M').compareTo(quantity('0.2G')) == 0", 4),
            ("quantity('50k').add(quantity('20')) == quantity('50.02k')", 5),
            ("quantity('50k').sub(20) == quantity('49980')", 4),
            ("quantity('50k').add(20).sub(quantity('100k')).asInteger() < 0", 6),
            (
                "quantity('50').isInteger() && !quantity('100m').isInteger() && !quantity('9E99').isInteger()",
                8,
            ),
            ("quantity('50.703k').asApproximateFloat() > 0.0", 3),
            ("isQuantity('20Mi') && !isQuantity('20Xi')", 3),
            ("quantity('-1').sign() == -1", 3),
            ("type(quantity('1')) == kubernetes.Quantity", 3),
        ] {
            let program = Program::compile(&Env::new(library().clone()), source);
            let program = program.unwrap_or_else(|issues| panic!("{source}: {issues}"));
            let evaluation = program.evaluate(&BTreeMap::new(), CALL_LIMIT);
            assert!(matches!(evaluation.result, Ok(Value::Bool(true))), "{source}: {:?}", evaluation.result);
            assert_eq!(evaluation.cost, cost, "{source}");
        }
    }
}
