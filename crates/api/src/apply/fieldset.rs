//! Sets of field paths and their JSON form, `FieldsV1`: `f:` a field, `k:` a list-map's element, `v:` a set's
//! element, `i:` an index, `.` the path itself.

use std::collections::{BTreeMap, BTreeSet};
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
    members: BTreeSet<PathElement>,
    /// No empty sets in here.
    children: BTreeMap<PathElement, FieldSet>,
}

impl PathElement {
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(json) => format!("k:{json}"),
            Self::Value(json) => format!("v:{json}"),
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
        self.members.is_empty() && self.children.is_empty()
    }

    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub fn contains(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|child| child.contains(rest)),
        }
    }

    pub fn child(&self, element: &PathElement) -> Option<&FieldSet> {
        self.children.get(element)
    }

    /// Whether the element itself or anything below it is in the set.
    pub fn touches(&self, element: &PathElement) -> bool {
        self.members.contains(element) || self.children.contains_key(element)
    }

    /// Every element that is in the set or leads to one that is.
    pub(super) fn elements(&self) -> impl Iterator<Item = &PathElement> {
        let leading = self.children.keys().filter(|element| !self.members.contains(*element));
        self.members.iter().chain(leading)
    }

    pub(super) fn member(&mut self, element: PathElement) {
        self.members.insert(element);
    }

    /// The set at a path, which is to get something.
    pub(super) fn at(&mut self, path: &[PathElement]) -> &mut FieldSet {
        path.iter().fold(self, |set, element| set.children.entry(element.clone()).or_default())
    }

    /// As [`FieldSet::put_child`], copying the element only where there is a child.
    pub(super) fn put_child_of(&mut self, element: &PathElement, child: FieldSet) {
        if !child.is_empty() {
            self.children.insert(element.clone(), child);
        }
    }

    /// Instead of what is below it; nothing where the child is empty.
    pub(super) fn put_child(&mut self, element: PathElement, child: FieldSet) {
        match child.is_empty() {
            true => self.children.remove(&element),
            false => self.children.insert(element, child),
        };
    }

    pub(super) fn take_children(&mut self) -> BTreeMap<PathElement, FieldSet> {
        std::mem::take(&mut self.children)
    }

    pub fn union(&self, other: &FieldSet) -> FieldSet {
        self.clone().with(other.clone())
    }

    /// As [`FieldSet::union`], of sets that are not needed any more.
    pub fn with(mut self, other: FieldSet) -> FieldSet {
        if self.is_empty() {
            return other;
        }
        self.members.extend(other.members);
        for (element, child) in other.children {
            let own = self.children.entry(element).or_default();
            *own = std::mem::take(own).with(child);
        }
        self
    }

    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut out =
            Self { members: self.members.intersection(&other.members).cloned().collect(), ..Self::default() };
        for (element, child) in &self.children {
            if let Some(other) = other.children.get(element) {
                out.put_child(element.clone(), child.intersection(other));
            }
        }
        out
    }

    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        self.clone().without(other)
    }

    /// As [`FieldSet::difference`], of a set that is not needed any more.
    pub fn without(mut self, other: &FieldSet) -> FieldSet {
        self.members.retain(|member| !other.members.contains(member));
        self.without_in_children(other, FieldSet::without)
    }

    /// As [`FieldSet::without`], but a member of `other` also takes away all that is below it.
    pub fn without_trees(mut self, other: &FieldSet) -> FieldSet {
        for element in &other.members {
            self.members.remove(element);
            self.children.remove(element);
        }
        self.without_in_children(other, FieldSet::without_trees)
    }

    fn without_in_children(mut self, other: &FieldSet, take: fn(Self, &FieldSet) -> Self) -> FieldSet {
        for (element, other) in &other.children {
            let Some(child) = self.children.remove(element) else { continue };
            self.put_child(element.clone(), take(child, other));
        }
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
        for element in &self.members {
            element.describe(prefix);
            out.push(prefix.clone());
            prefix.truncate(length);
        }
        for (element, child) in &self.children {
            element.describe(prefix);
            child.collect(prefix, out);
            prefix.truncate(length);
        }
    }

    /// The `fieldsV1` of a managed fields entry.
    pub fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        for element in &self.members {
            map.insert(element.encode(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            let mut inner = child.to_fields_v1();
            if let (Value::Object(inner), true) = (&mut inner, self.members.contains(element)) {
                inner.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(element.encode(), inner);
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
        let mut set = Self::default();
        for (name, inner) in map.iter().filter(|(name, _)| *name != ".") {
            let element = PathElement::decode(name)?;
            let child = Self::read(inner, depth + 1)?;
            if child.is_empty() || inner.get(".").is_some() {
                set.members.insert(element.clone());
            }
            set.put_child(element, child);
        }
        Ok(set)
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
