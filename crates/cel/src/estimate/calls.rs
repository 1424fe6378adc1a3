//! What calls can cost at most, and how large what they give can be.

use super::{Bounds, Node, element, sized};
use crate::ast::{Call, Expr, Kind, Literal};
use crate::cost::{self, Cost, PATTERN, TRAVERSAL};
use crate::types::Type;

fn literal_number(expr: Option<&Expr>) -> Option<u64> {
    match &expr?.kind {
        Kind::Literal(Literal::Int(n)) => Some(u64::try_from(*n).unwrap_or(0)),
        _ => None,
    }
}

/// Cost and result size of one call.
pub(super) fn cost_of(cost: Cost, types: &[Type], nodes: &[Node], call: &Call) -> (Bounds, Option<Bounds>) {
    let size = |index: usize| nodes.get(index).map_or(Bounds::UNKNOWN, Node::size);
    let new_list =
        |sizes: Bounds, factor: f64| (sizes.scaled(factor).plus(Bounds::fixed(1 + cost::LIST)), Some(sizes));
    match cost {
        Cost::One => (Bounds::fixed(1), None),
        Cost::Fixed(cost) => (Bounds::fixed(cost.max(1)), None),
        Cost::Scan(times) => (size(0).scaled(times * TRAVERSAL), None),
        Cost::Mapped => (size(0).scaled(TRAVERSAL), Some(size(0))),
        Cost::Affix => (size(1).scaled(TRAVERSAL), None),
        Cost::StringToBytes => {
            let result = Bounds { min: size(0).min, max: size(0).max.saturating_mul(4) };
            (size(0).scaled(TRAVERSAL), Some(result))
        }
        Cost::BytesToString => {
            (size(0).scaled(TRAVERSAL), Some(Bounds { min: size(0).min / 4, max: size(0).max }))
        }
        Cost::Quote => {
            let max = size(0).max.saturating_mul(2).saturating_add(2);
            (size(0).scaled(TRAVERSAL), Some(Bounds { min: size(0).min.saturating_add(2), max }))
        }
        Cost::InList => (size(1), None),
        Cost::Compare => (compared(nodes), None),
        Cost::Concat => {
            let sum = size(0).plus(size(1));
            (sum.scaled(TRAVERSAL), Some(sum))
        }
        Cost::ConcatLists => (Bounds::fixed(1), Some(size(0).plus(size(1)))),
        Cost::Matches | Cost::Find => {
            let text = size(0).plus(Bounds::fixed(1)).scaled(TRAVERSAL);
            let result = (cost == Cost::Find).then(|| Bounds { min: 0, max: size(0).max });
            (text.times(size(1).scaled(PATTERN)), result)
        }
        Cost::Contains => (size(0).scaled(TRAVERSAL).times(size(1).scaled(TRAVERSAL)), None),
        Cost::Walk => (walked(types, nodes), None),
        Cost::Replace => (size(0).scaled(2.0 * TRAVERSAL), Some(replaced(size(0), size(1), size(2)))),
        Cost::Split => {
            let max = literal_number(call.args.get(1)).unwrap_or(size(0).max);
            (size(0).scaled(2.0 * TRAVERSAL), Some(Bounds { min: 0, max }))
        }
        Cost::Join => {
            let list = size(0);
            let mut total = list.times(item_size(nodes));
            if nodes.len() > 1 {
                let gaps = Bounds { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
                total = total.plus(size(1).times(gaps));
            }
            (total.scaled(TRAVERSAL), Some(total))
        }
        Cost::Selector => {
            (Bounds { min: cost::selector(size(1).min), max: cost::selector(size(1).max) }, None)
        }
        Cost::ContainsIp { text } | Cost::ContainsCidr { text } => {
            let address = Bounds { min: 4, max: 16 };
            let mut total = address.plus(address).scaled(TRAVERSAL);
            if matches!(cost, Cost::ContainsCidr { .. }) {
                total = total.plus(address.scaled(TRAVERSAL)).plus(Bounds::fixed(1));
            }
            (if text { total.plus(size(1).scaled(TRAVERSAL)) } else { total }, None)
        }
        Cost::Validate => (size(1).scaled(TRAVERSAL).scaled(128.0 * PATTERN), None),
        Cost::Sets(times) => (size(0).times(size(1)).scaled(times).plus(Bounds::fixed(1)), None),
        Cost::Slice => {
            let start = literal_number(call.args.first()).unwrap_or(0);
            let end = literal_number(call.args.get(1)).unwrap_or(size(0).max);
            new_list(Bounds::fixed(end.saturating_sub(start)), 1.0)
        }
        Cost::Range => new_list(Bounds::fixed(literal_number(call.args.first()).unwrap_or(u64::MAX)), 1.0),
        Cost::Reverse => new_list(size(0), 1.0),
        Cost::Flatten => {
            let depth = match call.args.first() {
                None => 1,
                some => literal_number(some).unwrap_or(u64::MAX),
            };
            new_list(size(0), depth as f64)
        }
        Cost::Distinct => new_list(size(0).times(size(0)), 2.0),
        Cost::Sort | Cost::SortBy => {
            let index = usize::from(cost == Cost::SortBy);
            let strings = types.get(index).is_some_and(|ty| match ty {
                Type::List(item) => matches!(**item, Type::String | Type::Bytes),
                _ => false,
            });
            new_list(size(index).times(size(index)), if strings { 2.0 + TRAVERSAL } else { 2.0 })
        }
    }
}

/// Equality and order: the shorter of two decides.
fn compared(nodes: &[Node]) -> Bounds {
    let [a, b] = nodes else { return Bounds::fixed(1) };
    if let (Type::Opaque(name), Type::Opaque(other)) = (&a.ty, &b.ty)
        && name == other
    {
        let max = match *name {
            "kubernetes.NamedFormat" => 64,
            "kubernetes.URL" => b.size.map_or(1, |size| size.max),
            _ => return Bounds::fixed(1),
        };
        return Bounds { min: 1, max }.scaled(TRAVERSAL);
    }
    let smallest = a.size().max.min(b.size().max);
    Bounds { min: u64::from(smallest > 0), max: smallest }.scaled(TRAVERSAL)
}

/// The size of a list's elements.
fn item_size(nodes: &[Node]) -> Bounds {
    let decl = nodes.first().and_then(|list| list.decl.as_deref()).and_then(element);
    decl.as_deref().map_or(Bounds::UNKNOWN, sized)
}

fn walked(types: &[Type], nodes: &[Node]) -> Bounds {
    let Some(target) = nodes.first() else { return Bounds::fixed(1) };
    match (&target.ty, types.first()) {
        (Type::List(item), _) | (_, Some(Type::List(item))) => {
            let strings = matches!(**item, Type::String | Type::Bytes);
            let each = if strings { item_size(nodes).scaled(TRAVERSAL) } else { Bounds::fixed(0) };
            target.size().times(each.plus(Bounds::fixed(1)))
        }
        _ => target.size().scaled(TRAVERSAL),
    }
}

/// How long a text can become when parts of it are replaced.
fn replaced(text: Bounds, old: Bounds, new: Bounds) -> Bounds {
    let (mut count, mut kept) = (Bounds::fixed(0), Bounds::fixed(0));
    if old.min == 0 {
        // Nothing stands between any two characters.
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if new.max <= old.min {
        kept.max = text.max;
    } else {
        count.max = text.max.div_ceil(old.min);
    }
    if old.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if old.max <= new.min {
        kept.min = text.min;
    } else {
        count.min = text.min.div_ceil(old.max);
    }
    count.times(new).plus(kept)
}
