//! Sets of field paths and their JSON form, `FieldsV1`: `f:` a field, `k:` a list-map's element, `v:` a set's
//! element, `i:` an index, `.` the path itself.

use std::cmp::Ordering;
use std::fmt::Write;

use serde_json::{Map, Value};

/// One step of a path. Keys and values are kept as their JSON text, which is also how they are compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathElement {
    Field(String),
    /// A JSON object of the key fields.
    Key(String),
    /// Any JSON scalar.
    Value(String),
    Index(i64),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid FieldsV1: {0}")]
pub struct FieldSetError(String);

/// Paths below FieldsV1 deeper than this are refused.
const MAX_DEPTH: usize = 128;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// In the order of their elements. Sets are made, joined and taken apart with every write, and each is small: a sorted
    /// list is walked once where a tree would be searched again and again.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    element: PathElement,
    /// Whether the path that ends here is in the set, and not only what is below it.
    member: bool,
    below: FieldSet,
}

impl Node {
    fn new(element: PathElement) -> Self {
        Self { element, member: false, below: FieldSet::new() }
    }

    /// Sets have no such nodes.
    fn is_idle(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl PathElement {
    fn encode(&self) -> String {
        // Of every write these are the most numerous texts: put together without the machinery of formatting.
        match self {
            Self::Field(name) => ["f:", name].concat(),
            Self::Key(json) => ["k:", json].concat(),
            Self::Value(json) => ["v:", json].concat(),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn decode(text: &str) -> Result<Self, FieldSetError> {
        let wrong = || FieldSetError(format!("cannot read the path element {text:?}"));
        let canonical = |json: &str| {
            serde_json::from_str::<Value>(json).map(|value| value.to_string()).map_err(|_| wrong())
        };
        match text.split_at_checked(2) {
            Some(("f:", name)) => Ok(Self::Field(name.to_owned())),
            Some(("k:", json)) => Ok(Self::Key(canonical(json)?)),
            Some(("v:", json)) => Ok(Self::Value(canonical(json)?)),
            Some(("i:", index)) => Ok(Self::Index(index.parse().map_err(|_| wrong())?)),
            _ => Err(wrong()),
        }
    }

    /// As conflicts name it: `.name`, `[name="x"]`, `[="x"]`, `[0]`.
    fn describe(&self, out: &mut String) {
        let result = match self {
            Self::Field(name) => write!(out, ".{name}"),
            Self::Value(json) => write!(out, "[={json}]"),
            Self::Index(index) => write!(out, "[{index}]"),
            Self::Key(json) => {
                let key: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let parts: Vec<String> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(out, "[{}]", parts.join(","))
            }
        };
        debug_assert!(result.is_ok(), "writing to a String does not fail");
    }
}

impl FieldSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// A set of plain field paths: `FieldSet::of(&["status", "metadata.uid"])`.
    pub fn of(paths: &[&str]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<_> = path.split('.').map(|name| PathElement::Field(name.to_owned())).collect();
            set.insert(&path);
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where an element is, or where it would be.
    fn place(&self, element: &PathElement) -> Result<usize, usize> {
        match self.nodes.last() {
            // Mostly they come in order.
            Some(last) if last.element < *element => Err(self.nodes.len()),
            _ => self.nodes.binary_search_by(|node| node.element.cmp(element)),
        }
    }

    fn node(&self, element: &PathElement) -> Option<&Node> {
        self.place(element).ok().map(|at| &self.nodes[at])
    }

    /// The node of an element, which is to get something.
    fn node_mut(&mut self, element: &PathElement) -> &mut Node {
        let at = match self.place(element) {
            Ok(at) => at,
            Err(at) => {
                self.nodes.insert(at, Node::new(element.clone()));
                at
            }
        };
        &mut self.nodes[at]
    }

    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => self.node_mut(last).member = true,
            [first, rest @ ..] => self.node_mut(first).below.insert(rest),
        }
    }

    pub fn contains(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.node(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.node(first).is_some_and(|node| node.below.contains(rest)),
        }
    }

    pub fn child(&self, element: &PathElement) -> Option<&FieldSet> {
        self.node(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// Whether the element itself or anything below it is in the set.
    pub fn touches(&self, element: &PathElement) -> bool {
        self.node(element).is_some()
    }

    /// Every element that is in the set or leads to one that is.
    pub(super) fn elements(&self) -> impl Iterator<Item = &PathElement> {
        self.nodes.iter().map(|node| &node.element)
    }

    pub(super) fn member(&mut self, element: &PathElement) {
        self.node_mut(element).member = true;
    }

    /// Of elements in any order, each with whether it is a member and what is below it. A list that users give may name a
    /// hundred thousand of them in an order that puts each before the last: they are sorted once instead of being
    /// inserted one by one. Of several alike the last counts.
    pub(super) fn from_elements(
        elements: impl IntoIterator<Item = (PathElement, bool, FieldSet)>,
    ) -> FieldSet {
        let nodes = elements.into_iter().map(|(element, member, below)| Node { element, member, below });
        let mut nodes: Vec<Node> = nodes.filter(|node| !node.is_idle()).collect();
        if !nodes.is_sorted_by(|a, b| a.element < b.element) {
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
            // The one that is kept is the first of two.
            nodes.dedup_by(|later, kept| {
                let same = later.element == kept.element;
                if same {
                    std::mem::swap(later, kept);
                }
                same
            });
        }
        Self { nodes }
    }

    /// All of these together. Each is joined with one of about its size, so that what there is is not walked again for
    /// each that comes.
    pub(super) fn union_of(mut sets: Vec<FieldSet>) -> FieldSet {
        while sets.len() > 1 {
            let mut pairs = sets.into_iter();
            let mut joined = Vec::new();
            while let Some(set) = pairs.next() {
                joined.push(match pairs.next() {
                    Some(other) => set.with(other),
                    None => set,
                });
            }
            sets = joined;
        }
        sets.pop().unwrap_or_default()
    }

    /// Adds an element and what is below it, of which nothing is there yet.
    pub(super) fn put(&mut self, element: PathElement, member: bool, below: FieldSet) {
        let node = Node { element, member, below };
        if node.is_idle() {
            return;
        }
        match self.place(&node.element) {
            Ok(at) => self.nodes[at] = node,
            Err(at) => self.nodes.insert(at, node),
        }
    }

    /// The set at a path, which is to get something.
    pub(super) fn at(&mut self, path: &[PathElement]) -> &mut FieldSet {
        path.iter().fold(self, |set, element| &mut set.node_mut(element).below)
    }

    /// Puts another set below each element that has anything below it; `change` says also whether the element becomes a
    /// member.
    pub(super) fn change_children(
        &mut self,
        mut change: impl FnMut(&PathElement, FieldSet) -> (bool, FieldSet),
    ) {
        for node in self.nodes.iter_mut().filter(|node| !node.below.is_empty()) {
            let (member, below) = change(&node.element, std::mem::take(&mut node.below));
            node.member |= member;
            node.below = below;
        }
        self.nodes.retain(|node| !node.is_idle());
    }

    pub fn union(&self, other: &FieldSet) -> FieldSet {
        self.clone().with(other.clone())
    }

    /// As [`FieldSet::union`], of sets that are not needed any more.
    pub fn with(self, other: FieldSet) -> FieldSet {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len() + other.nodes.len());
        let (mut own, mut others) = (self.nodes.into_iter().peekable(), other.nodes.into_iter().peekable());
        while let (Some(left), Some(right)) = (own.peek(), others.peek()) {
            match left.element.cmp(&right.element) {
                Ordering::Less => nodes.extend(own.next()),
                Ordering::Greater => nodes.extend(others.next()),
                Ordering::Equal => {
                    let both = own.next().zip(others.next());
                    nodes.extend(both.map(|(left, right)| Node {
                        element: left.element,
                        member: left.member || right.member,
                        below: left.below.with(right.below),
                    }));
                }
            }
        }
        nodes.extend(own);
        nodes.extend(others);
        Self { nodes }
    }

    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut out = Self::new();
        for (node, other) in self.nodes.iter().filter_map(|node| Some((node, other.node(&node.element)?))) {
            let below = node.below.intersection(&other.below);
            out.put(node.element.clone(), node.member && other.member, below);
        }
        out
    }

    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        self.clone().without(other)
    }

    /// As [`FieldSet::difference`], of a set that is not needed any more.
    pub fn without(self, other: &FieldSet) -> FieldSet {
        self.less(other, |node, other| {
            node.member &= !other.member;
            node.below = std::mem::take(&mut node.below).without(&other.below);
        })
    }

    /// As [`FieldSet::without`], but a member of `other` also takes away all that is below it.
    pub fn without_trees(self, other: &FieldSet) -> FieldSet {
        self.less(other, |node, other| match other.member {
            true => (node.member, node.below) = (false, FieldSet::new()),
            false => node.below = std::mem::take(&mut node.below).without_trees(&other.below),
        })
    }

    /// With each node that the other set has too made less by `take`. The smaller of both is walked: a write changes much,
    /// and each of many managers may have little.
    fn less(mut self, other: &FieldSet, take: impl Fn(&mut Node, &Node)) -> FieldSet {
        if self.nodes.len() < other.nodes.len() {
            for node in &mut self.nodes {
                if let Some(other) = other.node(&node.element) {
                    take(node, other);
                }
            }
        } else {
            for other in &other.nodes {
                let Ok(at) = self.place(&other.element) else { continue };
                take(&mut self.nodes[at], other);
            }
        }
        self.nodes.retain(|node| !node.is_idle());
        self
    }

    /// Every path as conflicts name it: `.spec.ports[port=80].name`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut String, out: &mut Vec<String>) {
        let length = prefix.len();
        for node in self.nodes.iter().filter(|node| node.member) {
            node.element.describe(prefix);
            out.push(prefix.clone());
            prefix.truncate(length);
        }
        for node in self.nodes.iter().filter(|node| !node.below.is_empty()) {
            node.element.describe(prefix);
            node.below.collect(prefix, out);
            prefix.truncate(length);
        }
    }

    /// The `fieldsV1` of a managed fields entry.
    pub fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        for node in &self.nodes {
            let mut inner = node.below.to_fields_v1();
            if let (Value::Object(inner), true) = (&mut inner, node.member && !node.below.is_empty()) {
                inner.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(node.element.encode(), inner);
        }
        Value::Object(map)
    }

    pub fn from_fields_v1(value: &Value) -> Result<Self, FieldSetError> {
        Self::read(value, 0)
    }

    fn read(value: &Value, depth: usize) -> Result<Self, FieldSetError> {
        let Value::Object(map) = value else { return Err(FieldSetError("expected an object".into())) };
        if depth > MAX_DEPTH {
            return Err(FieldSetError("nested too deeply".into()));
        }
        let elements = map.iter().filter(|(name, _)| *name != ".").map(|(name, inner)| {
            let below = Self::read(inner, depth + 1)?;
            let member = below.is_empty() || inner.get(".").is_some();
            Ok((PathElement::decode(name)?, member, below))
        });
        Ok(Self::from_elements(elements.collect::<Result<Vec<_>, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:ports": {
                "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}},
                "f:list": {"i:0": {}}, "f:replicas": {}},
        })
    }

    #[test]
    fn fields_v1_round_trip() {
        let set = FieldSet::from_fields_v1(&sample()).unwrap();
        assert_eq!(set.to_fields_v1(), sample());
        assert_eq!(FieldSet::from_fields_v1(&json!({})).unwrap(), FieldSet::new());
        for wrong in [json!([]), json!({"x": {}}), json!({"k:x": {}}), json!({"f:a": 1}), json!({"i:x": {}})]
        {
            assert!(FieldSet::from_fields_v1(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn paths_as_conflicts_name_them() {
        let mut paths = FieldSet::from_fields_v1(&sample()).unwrap().paths();
        paths.sort();
        assert_eq!(
            paths,
            [
                ".metadata.finalizers[=\"x\"]",
                ".metadata.labels",
                ".metadata.labels.a",
                ".spec.containers[name=\"c\"]",
                ".spec.containers[name=\"c\"].image",
                ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
                ".spec.list[0]",
                ".spec.replicas",
            ]
        );
    }

    /// A fixed walk over many sets: the laws of sets hold, and each survives its JSON form.
    #[test]
    fn laws() {
        let mut seed: u64 = 42;
        let mut next = |bound: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % bound
        };
        let mut random = || {
            let mut set = FieldSet::new();
            for _ in 0..next(12) {
                let path: Vec<PathElement> = (0..=next(3))
                    .map(|_| match next(4) {
                        0 => PathElement::Key(format!("{{\"name\":\"{}\"}}", next(3))),
                        1 => PathElement::Value(next(3).to_string()),
                        2 => PathElement::Index(next(3) as i64),
                        _ => PathElement::Field(format!("f{}", next(3))),
                    })
                    .collect();
                set.insert(&path);
            }
            set
        };
        for _ in 0..2000 {
            let (a, b) = (random(), random());
            assert_eq!(FieldSet::from_fields_v1(&a.to_fields_v1()).unwrap(), a);
            assert_eq!(a.union(&b), b.union(&a));
            assert_eq!(a.intersection(&b), b.intersection(&a));
            assert_eq!(a.difference(&b).union(&a.intersection(&b)), a);
            assert!(a.difference(&b).intersection(&b).is_empty());
            assert!(a.clone().without_trees(&a).is_empty());
            assert!(a.union(&b).without_trees(&b).paths().iter().all(|path| !b.paths().contains(path)));
        }
    }
}
