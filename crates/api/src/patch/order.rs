//! The order of a merged list: elements the patch knows come in the patch's order, the others keep their place
//! relative to those elements they stood before.

/// `items` with their keys, the order the patch wants, and the order before. Elements in both orders decide.
pub(crate) fn interleave<T, K: PartialEq>(items: Vec<(K, T)>, wanted: &[K], before: &[K]) -> Vec<T> {
    let position = |order: &[K], key: &K| order.iter().position(|other| other == key);
    let (mut known, others): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|(key, _)| position(wanted, key).is_some());
    known.sort_by_key(|(key, _)| position(wanted, key));
    let mut others = others;
    others.sort_by_key(|(key, _)| position(before, key).unwrap_or(usize::MAX));
    let (mut known, mut others) = (known.into_iter().peekable(), others.into_iter().peekable());
    let mut out = Vec::new();
    loop {
        let other_first = match (known.peek(), others.peek()) {
            (Some((known, _)), Some((other, _))) => {
                matches!((position(before, known), position(before, other)), (Some(a), Some(b)) if b < a)
            }
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => return out,
        };
        let next = if other_first { others.next() } else { known.next() };
        out.extend(next.map(|(_, item)| item));
    }
}
