//! Lists and sets.

use std::cmp::Ordering;

use super::Row;
use super::operators::order;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::lists::List;
use crate::meter::Meter;
use crate::value::Value;

macro_rules! rows {
    (ordered: $($t:literal),*; summed: $($s:literal $sum:ident),*; $($rest:expr),* $(,)?) => {
        &[
            $(
                Row(concat!("list<", $t, ">::isSorted(): bool"), Cost::Walk, is_sorted),
                Row(concat!("list<", $t, ">::min(): ", $t), Cost::Walk, min),
                Row(concat!("list<", $t, ">::max(): ", $t), Cost::Walk, max),
                Row(concat!("list<", $t, ">::sort(): list<", $t, ">"), Cost::Sort, sort),
                Row(
                    concat!("list<A>::@sortByAssociatedKeys(list<", $t, ">): list<A>"),
                    Cost::SortBy,
                    sort_by_keys,
                ),
            )*
            $(Row(concat!("list<", $s, ">::sum(): ", $s), Cost::Walk, $sum),)*
            $($rest),*
        ]
    };
}

pub const ROWS: &[Row] = rows! {
    ordered: "int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes";
    summed: "int" sum_ints, "uint" sum_uints, "double" sum_doubles, "duration" sum_durations;
    Row("list<A>::indexOf(A): int", Cost::Walk, index_of),
    Row("list<A>::lastIndexOf(A): int", Cost::Walk, last_index_of),
    Row("list<A>::slice(int, int): list<A>", Cost::Slice, slice),
    Row("list<list<A>>::flatten(): list<A>", Cost::Flatten, flatten),
    Row("list<dyn>::flatten(int): list<dyn>", Cost::Flatten, flatten),
    Row("list<A>::reverse(): list<A>", Cost::Reverse, reverse),
    Row("list<A>::distinct(): list<A>", Cost::Distinct, distinct),
    Row("lists.range(int): list<int>", Cost::Range, range),
    Row("sets.contains(list<A>, list<A>): bool", Cost::Sets(1.0), sets_contains),
    Row("sets.equivalent(list<A>, list<A>): bool", Cost::Sets(2.0), sets_equivalent),
    Row("sets.intersects(list<A>, list<A>): bool", Cost::Sets(1.0), sets_intersects),
};

fn list<'t, 'a>(args: &'t [Value<'a>], at: usize) -> Result<&'t List<'a>, Fault> {
    match args.get(at) {
        Some(Value::List(list)) => Ok(list),
        _ => Err(Fault::no_overload()),
    }
}

fn is_sorted<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let items = list(args, 0)?.items(meter)?;
    for pair in items.windows(2) {
        if let [a, b] = pair
            && order(a, b)? == Ordering::Greater
        {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn extreme<'a>(
    meter: &mut Meter,
    args: &[Value<'a>],
    name: &str,
    wanted: Ordering,
) -> Result<Value<'a>, Fault> {
    let mut best: Option<Value<'a>> = None;
    for item in list(args, 0)?.items(meter)? {
        match &best {
            Some(held) if order(&item, held)? != wanted => {}
            _ => best = Some(item),
        }
    }
    best.ok_or_else(|| Fault::failed(format!("{name} called on empty list")))
}

fn min<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    extreme(meter, args, "min", Ordering::Less)
}

fn max<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    extreme(meter, args, "max", Ordering::Greater)
}

fn sum<'a>(meter: &mut Meter, args: &[Value<'a>], zero: Value<'a>) -> Result<Value<'a>, Fault> {
    let mut total = zero;
    for item in list(args, 0)?.items(meter)? {
        total = match (total, item) {
            (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(b).ok_or_else(Fault::int_overflow)?),
            (Value::Uint(a), Value::Uint(b)) => {
                Value::Uint(a.checked_add(b).ok_or_else(Fault::uint_overflow)?)
            }
            (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
            (Value::Duration(a), Value::Duration(b)) => {
                Value::Duration(a.checked_add(b).ok_or_else(|| Fault::failed("duration overflow"))?)
            }
            _ => return Err(Fault::no_overload()),
        };
    }
    Ok(total)
}

fn sum_ints<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    sum(meter, args, Value::Int(0))
}

fn sum_uints<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    sum(meter, args, Value::Uint(0))
}

fn sum_doubles<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    sum(meter, args, Value::Double(0.0))
}

fn sum_durations<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    sum(meter, args, Value::Duration(0))
}

fn position<'a>(meter: &mut Meter, args: &[Value<'a>], last: bool) -> Result<Value<'a>, Fault> {
    let items = list(args, 0)?.items(meter)?;
    let wanted = args.get(1).ok_or_else(Fault::no_overload)?;
    let mut found = -1;
    for (index, item) in items.iter().enumerate() {
        if item.equals(wanted, meter)? {
            found = i64::try_from(index).unwrap_or(i64::MAX);
            if !last {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

fn index_of<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    position(meter, args, false)
}

fn last_index_of<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    position(meter, args, true)
}

fn slice<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let items = list(args, 0)?.items(meter)?;
    let [_, Value::Int(start), Value::Int(end)] = args else { return Err(Fault::no_overload()) };
    let fail = |why: String| Err(Fault::failed(format!("cannot slice({start}, {end}), {why}")));
    match (usize::try_from(*start), usize::try_from(*end)) {
        (Ok(from), Ok(to)) if from > to => {
            fail("start index must be less than or equal to end index".to_owned())
        }
        (Ok(from), Ok(to)) => match items.get(from..to) {
            Some(part) => Ok(Value::list(part.to_vec())),
            None => fail(format!("list is length {}", items.len())),
        },
        _ => fail("negative indexes not supported".to_owned()),
    }
}

fn flatten<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    fn into<'a>(
        meter: &mut Meter,
        list: &List<'a>,
        depth: i64,
        out: &mut Vec<Value<'a>>,
    ) -> Result<(), Fault> {
        for item in list.items(meter)? {
            match item {
                Value::List(inner) if depth > 0 => into(meter, &inner, depth - 1, out)?,
                item => out.push(item),
            }
        }
        Ok(())
    }
    let depth = match args.get(1) {
        Some(Value::Int(depth)) if *depth < 0 => return Err(Fault::failed("level must be non-negative")),
        Some(Value::Int(depth)) => (*depth).min(i64::from(crate::ast::MAX_DEPTH)),
        _ => 1,
    };
    let mut out = Vec::new();
    into(meter, list(args, 0)?, depth, &mut out)?;
    Ok(Value::list(out))
}

fn reverse<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let mut items = list(args, 0)?.items(meter)?;
    items.reverse();
    Ok(Value::list(items))
}

fn distinct<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let mut out: Vec<Value<'a>> = Vec::new();
    'items: for item in list(args, 0)?.items(meter)? {
        for held in &out {
            if held.equals(&item, meter)? {
                continue 'items;
            }
        }
        out.push(item);
    }
    Ok(Value::list(out))
}

fn range<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [Value::Int(n)] = args else { return Err(Fault::no_overload()) };
    let n = (*n).max(0);
    meter.work(usize::try_from(n).unwrap_or(usize::MAX))?;
    Ok(Value::list((0..n).map(Value::Int).collect()))
}

fn sorted<'a>(items: Vec<Value<'a>>, keys: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    if items.len() != keys.len() {
        return Err(Fault::failed(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} \
             elements respectively",
            items.len(),
            keys.len()
        )));
    }
    if let Some(first) = keys.first() {
        if order(first, first).is_err() && !matches!(first, Value::Double(_)) {
            return Err(Fault::failed("list elements must be comparable"));
        }
        if keys.iter().any(|key| key.type_name() != first.type_name()) {
            return Err(Fault::failed("list elements must have the same type"));
        }
    }
    let mut pairs: Vec<(&Value<'a>, Value<'a>)> = keys.iter().zip(items).collect();
    // What has no order (NaN) stays where it is.
    pairs.sort_by(|(a, _), (b, _)| match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
        _ => order(a, b).unwrap_or(Ordering::Equal),
    });
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

fn sort<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let items = list(args, 0)?.items(meter)?;
    let keys = items.clone();
    sorted(items, &keys)
}

fn sort_by_keys<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let items = list(args, 0)?.items(meter)?;
    let keys = list(args, 1)?.items(meter)?;
    sorted(items, &keys)
}

fn contains_all(meter: &mut Meter, a: &List<'_>, b: &List<'_>) -> Result<bool, Fault> {
    for item in b.items(meter)? {
        if !a.contains(&item, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sets_contains<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(contains_all(meter, list(args, 0)?, list(args, 1)?)?))
}

fn sets_equivalent<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (a, b) = (list(args, 0)?, list(args, 1)?);
    Ok(Value::Bool(contains_all(meter, a, b)? && contains_all(meter, b, a)?))
}

fn sets_intersects<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let (a, b) = (list(args, 0)?, list(args, 1)?);
    for item in b.items(meter)? {
        if a.contains(&item, meter)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
