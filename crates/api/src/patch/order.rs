//! The order of a merged list: elements the patch knows come in the patch's order, the others keep their place
//! relative to those elements they stood before.

use std::collections::HashMap;
use std::hash::Hash;

/// `items` with their keys, the order the patch wants, and the order before. Elements in both orders decide.
pub(crate) fn interleave<T, K: Eq + Hash>(items: Vec<(K, T)>, wanted: &[K], before: &[K]) -> Vec<T> {
    let positions = |order: &[K]| -> Vec<Option<usize>> {
        let by_key: HashMap<&K, usize> = order.iter().enumerate().rev().map(|(at, key)| (key, at)).collect();
        items.iter().map(|(key, _)| by_key.get(key).copied()).collect()
    };
    let (wanted, before) = (positions(wanted), positions(before));
    let mut known: Vec<(usize, Option<usize>, T)> = Vec::new();
    let mut others: Vec<(Option<usize>, T)> = Vec::new();
    for ((_, item), (wanted, before)) in items.into_iter().zip(wanted.into_iter().zip(before)) {
        match wanted {
            Some(wanted) => known.push((wanted, before, item)),
            None => others.push((before, item)),
        }
    }
    known.sort_by_key(|(wanted, _, _)| *wanted);
    others.sort_by_key(|(before, _)| before.unwrap_or(usize::MAX));
    let (mut known, mut others) = (known.into_iter().peekable(), others.into_iter().peekable());
    let mut out = Vec::new();
    loop {
        let other_first = match (known.peek(), others.peek()) {
            (Some((_, known, _)), Some((other, _))) => matches!((known, other), (Some(a), Some(b)) if b < a),
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => return out,
        };
        match other_first {
            true => out.extend(others.next().map(|(_, item)| item)),
            false => out.extend(known.next().map(|(_, _, item)| item)),
        }
    }
}
