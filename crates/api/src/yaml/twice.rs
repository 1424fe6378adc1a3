//! Keys that a text names twice: all of them, in the words and the order of the original's reader, which tells of a value's
//! keys before it tells of the value's own, and of what an alias stands for each time. It is read for them alone, where
//! there is one.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, Spanned};

use super::YamlError;

/// So many are told of; the original knows no bound.
const TOLD_LIMIT: usize = 1000;

thread_local! {
    /// Those of the text that this thread reads.
    static TOLD: RefCell<Vec<Twice>> = const { RefCell::new(Vec::new()) };
}

/// A key that was there already.
#[derive(Clone, Debug, PartialEq)]
pub struct Twice {
    said: String,
    /// Where its value begins; an alias where the alias stands.
    line: usize,
    /// The same of what the alias stands for.
    defined: usize,
    /// Where the key is.
    key: usize,
}

impl Twice {
    /// Text in a block begins with its sign (`|`, `>`), which for the reader here is no part of it.
    fn with_sign(mut self, lines: &[&str]) -> Self {
        let line = lines.get(self.key.saturating_sub(1)).copied().unwrap_or_default();
        let code = line.split(" #").next().unwrap_or_default().trim_end();
        let code = code.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'));
        if self.line > self.key && code.ends_with(['|', '>']) {
            self.line = self.key;
        }
        self
    }
}

impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.said)
    }
}

/// What a text names twice of which the strict reader tells the first. Of a map with keys that are numbers the other reader
/// shows no key twice: then that one it is.
pub fn of(text: &str, options: Options, first: YamlError) -> Vec<Twice> {
    TOLD.take();
    let read = serde_saphyr::from_multiple_with_options::<Spanned<Node>>(text, options);
    let told = TOLD.take();
    if read.is_ok() && !told.is_empty() {
        let lines: Vec<&str> = text.lines().collect();
        return told.into_iter().map(|twice| twice.with_sign(&lines)).collect();
    }
    vec![Twice { said: first.message, line: first.line, defined: first.line, key: first.line }]
}

/// A node of which only that is of interest.
struct Node;

/// Where a node begins: by itself, and where it is defined. `before` so many were told of.
fn place(node: &Spanned<Node>, before: usize) -> (usize, usize) {
    if node.referenced != node.defined {
        // What lies in it stands where it was defined.
        TOLD.with_borrow_mut(|told| {
            told.iter_mut().skip(before).for_each(|twice| twice.line = twice.defined)
        });
    }
    (node.referenced.line() as usize, node.defined.line() as usize)
}

fn told() -> usize {
    TOLD.with_borrow(Vec::len)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

macro_rules! scalars {
    ($($visit:ident $type:ty),*) => {
        $(fn $visit<E>(self, _value: $type) -> Result<Node, E> {
            Ok(Node)
        })*
    };
}

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    scalars!(visit_bool bool, visit_i64 i64, visit_i128 i128, visit_u64 u64, visit_u128 u128, visit_f64 f64, visit_str &str, visit_bytes &[u8]);

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut before = told();
        while let Some(item) = items.next_element()? {
            place(&item, before);
            before = told();
        }
        Ok(Node)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut keys = HashSet::new();
        while let Some(name) = map.next_key::<Spanned<Name>>()? {
            let (Name(key), at) = (name.value, name.defined.line() as usize);
            let before = told();
            let (line, defined) = place(&map.next_value()?, before);
            if !keys.contains(&key) {
                keys.insert(key);
            } else {
                TOLD.with_borrow_mut(|told| {
                    if told.len() < TOLD_LIMIT {
                        let said = format!("key {key} already set in map");
                        told.push(Twice { said, line, defined, key: at });
                    }
                });
            }
        }
        Ok(Node)
    }
}

/// A key, as the original shows it: what is text in quotes.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Names)
    }
}

struct Names;

macro_rules! plain {
    ($($visit:ident $type:ty),*) => {
        $(fn $visit<E>(self, value: $type) -> Result<Name, E> {
            Ok(Name(value.to_string()))
        })*
    };
}

impl Visitor<'_> for Names {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is one value")
    }

    plain!(visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64);

    fn visit_str<E>(self, value: &str) -> Result<Name, E> {
        Ok(Name(format!("{value:?}")))
    }
}

#[cfg(test)]
mod tests {
    fn check(text: &str, expected: &[&str]) {
        let (_, twice) = crate::yaml::parse_body(text, 1000).expect("it can be read");
        let told: Vec<String> = twice.iter().map(ToString::to_string).collect();
        assert_eq!(told, expected, "{text}");
    }

    /// As seen of kube-apiserver v1.36.2.
    #[test]
    fn all_are_told_of_as_the_original_tells_of_them() {
        check("a: 1\nb: {c: 1}\n", &[]);
        check(
            "kind: A\nm:\n  n: s\n  n: t\nd:\n  a: 1\n  b: 2\n  a: 3\n  a: 4\nkind: A\n",
            &[
                "line 4: key \"n\" already set in map",
                "line 8: key \"a\" already set in map",
                "line 9: key \"a\" already set in map",
                "line 10: key \"kind\" already set in map",
            ],
        );
        check(
            "d:\n  a: 1\nd:\n  b: 1\n  b: 2\n",
            &["line 5: key \"b\" already set in map", "line 4: key \"d\" already set in map"],
        );
        check(
            "true: a\ntrue: b\n1.5: a\n1.5: b\n\"q\\\"\\t\": a\n\"q\\\"\\t\": b\n",
            &[
                "line 2: key true already set in map",
                "line 4: key 1.5 already set in map",
                "line 6: key \"q\\\"\\t\" already set in map",
            ],
        );
        check(
            "b: |\n  x\nb: |2- # y\n\n  y\nc:\nc:\ne: 1\ne:\n  2\nd: a\n  b\nd: c\n  d\n",
            &[
                "line 3: key \"b\" already set in map",
                "line 7: key \"c\" already set in map",
                "line 10: key \"e\" already set in map",
                "line 13: key \"d\" already set in map",
            ],
        );
        check("a: {b: 1,\n  b: 2}\n---\n", &["line 2: key \"b\" already set in map"]);
    }

    #[test]
    fn what_an_alias_stands_for_is_told_of_where_it_is_defined() {
        let first = "line 3: key \"b\" already set in map";
        let second = "line 12: key \"q\" already set in map";
        check(
            "x: &x\n  b: 1\n  b: 2\ny: &y {a: 1}\nz:\n- *x\n- q: *x\n  q: *x\n  r: *y\nw: &w\n  q: 1\n  q: 2\nv:\n  v: *w\n  v: *w\n",
            &[
                first,
                first,
                first,
                first,
                "line 8: key \"q\" already set in map",
                second,
                second,
                second,
                "line 15: key \"v\" already set in map",
            ],
        );
    }

    #[test]
    fn of_numbers_the_first_is_told() {
        check("1: a\n1: b\na: 1\na: 2\n", &["line 2: key \"1\" already set in map"]);
    }

    #[test]
    fn so_many_are_told_of() {
        let (_, told) = crate::yaml::parse_body(&"a: 1\n".repeat(2000), 10_000).expect("it can be read");
        assert_eq!(told.len(), super::TOLD_LIMIT);
    }
}
