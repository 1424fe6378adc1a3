//! What text comes to once it is decoded. Two letters of a body may be a value of a list, and five an object, which takes as much
//! memory as a page of text: a few megabytes of such letters would be hundreds once they are a tree, and a tree is copied
//! on its way to the store. So a body is weighed before it is read, by its signs alone, and refused where it is too heavy.
//! Weights are bytes, as near to what is allocated as is needed to bound it: they are rather too large.

use serde_json::Value;

/// What a body may come to. A definition of a megabyte and a half, which is as much as can be stored, comes to half of that.
pub const LIMIT_BYTES: usize = 64 << 20;
/// What a byte may come to at most, whatever the form of the body.
pub const MOST_OF_A_BYTE: usize = 640;

/// Nobody reads JSON that is deeper than this: it is refused there.
const DEPTH_READ: usize = 128;
/// The first node of a map, which has room for eleven fields.
const OBJECT: usize = 640;
/// What a field takes beside what an item does.
const FIELD: usize = 64;
/// An item of a list while that grows, or the share that a field has in a node.
const ITEM: usize = 64;
/// The least that a list takes.
const LIST: usize = 64;
/// What a text takes beside its letters.
const TEXT: usize = 16;
/// An object of a known type has fields that its body does not mention.
const TYPED: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body has too many elements: decoded it would take more than {LIMIT_BYTES} bytes of memory")]
pub struct TooHeavy;

/// Refuses what weighs too much.
pub fn bounded(weight: usize) -> Result<(), TooHeavy> {
    if weight > LIMIT_BYTES { Err(TooHeavy) } else { Ok(()) }
}

/// At most what a body comes to, never more than a body may.
pub fn of_body(bytes: &[u8], content_type: &str) -> usize {
    let weight = match content_type {
        _ if content_type.contains("protobuf") => crate::proto::weigh(bytes, LIMIT_BYTES / 8),
        _ if content_type.contains("yaml") => of_yaml(bytes),
        _ => of_json(bytes),
    };
    weight.min(LIMIT_BYTES)
}

/// What JSON comes to, as far as it is read.
pub fn of_json(text: &[u8]) -> usize {
    let (mut weight, mut depth) = (text.len(), 0_usize);
    let mut at = 0;
    while let Some(letter) = text.get(at) {
        at += 1;
        match letter {
            b'"' => {
                weight += TEXT;
                at += quoted(&text[at..]);
            }
            b',' => weight += ITEM,
            b':' => weight += FIELD,
            b'{' | b'[' if depth == DEPTH_READ => return weight,
            b'{' if !ends(&text[at..], b'}') => (weight, depth) = (weight + OBJECT + ITEM, depth + 1),
            b'[' if !ends(&text[at..], b']') => (weight, depth) = (weight + LIST + ITEM, depth + 1),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    weight
}

/// How long a text is, with the quote at its end.
fn quoted(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(letter) = text.get(at) {
        at += 1;
        match letter {
            b'\\' => at += 1,
            b'"' => break,
            _ => {}
        }
    }
    at.min(text.len())
}

/// Whether what was opened has nothing in it.
fn ends(text: &[u8], end: u8) -> bool {
    text.iter().find(|letter| !letter.is_ascii_whitespace()) == Some(&end)
}

/// At most what YAML comes to: what is text and what is not is known only once it is read, so each sign counts.
fn of_yaml(text: &[u8]) -> usize {
    let of = |letter: &u8| match letter {
        b'\n' | b',' | b'-' => ITEM,
        b'[' => LIST + ITEM,
        b':' | b'{' => OBJECT + ITEM + FIELD,
        _ => 1,
    };
    text.iter().map(of).fold(0, usize::saturating_add)
}

/// What a tree takes.
pub fn of_value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => TEXT + text.len(),
        Value::Array(items) if items.is_empty() => 0,
        Value::Array(items) => LIST + items.iter().map(|item| ITEM + of_value(item)).sum::<usize>(),
        Value::Object(map) if map.is_empty() => 0,
        Value::Object(map) => {
            let of = |(key, value): (&String, &Value)| TEXT + key.len() + FIELD + ITEM + of_value(value);
            OBJECT + map.iter().map(of).sum::<usize>()
        }
    }
}

/// What is left of what a body may come to, while it is read.
#[derive(Debug)]
pub struct Left(std::cell::Cell<usize>);

impl Left {
    pub fn of(weight: usize) -> Self {
        Self(std::cell::Cell::new(weight))
    }

    pub fn get(&self) -> usize {
        self.0.get()
    }

    fn take(&self, weight: usize) -> Result<(), TooHeavy> {
        let left = self.0.get().checked_sub(weight);
        self.0.set(left.ok_or(TooHeavy)?);
        Ok(())
    }

    pub fn take_object(&self) -> Result<(), TooHeavy> {
        self.take(TYPED)
    }

    /// A value that is no object, of so many bytes.
    pub fn take_value(&self, bytes: usize) -> Result<(), TooHeavy> {
        self.take(ITEM + TEXT + bytes)
    }

    /// What is JSON in itself.
    pub fn take_json(&self, text: &[u8]) -> Result<(), TooHeavy> {
        self.take(of_json(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) {
        let value: Value = serde_json::from_str(text).expect("JSON");
        let (tree, json) = (of_value(&value), of_json(text.as_bytes()));
        assert!(json >= tree, "{text}: {json} of {tree}");
        assert!(json <= tree + text.len() + 2 * ITEM + OBJECT / 2, "{text}: {json} of {tree}");
        let body = |form: &str| of_body(text.as_bytes(), form);
        assert!(body("application/yaml") >= tree.min(LIMIT_BYTES), "{text}: {}", body("application/yaml"));
        assert!(json <= text.len() * MOST_OF_A_BYTE, "{text}: {json}");
    }

    #[test]
    fn json_weighs_what_its_tree_does() {
        for text in [
            "null",
            "{}",
            "[ ]",
            r#""a text: [1,2,3], {\"a\": 1} \\""#,
            "[1,2,3]",
            "[{},{},[],[],[[]]]",
            r#"{"a":{"b":[{"c":1},{"d":""}]},"e":"\\","f":[1]}"#,
        ] {
            check(text);
        }
        check(&format!("[{}1]", "1,".repeat(100_000)));
        check(&format!("[{}1]", r#"{"":0},"#.repeat(10_000)));
    }

    #[test]
    fn a_text_is_not_taken_for_what_it_looks_like() {
        let text = serde_json::to_string(&"{\"a\":[1,2]}\n".repeat(10_000)).expect("a text");
        assert!(of_json(text.as_bytes()) < text.len() + 100);
        // One that does not end, and a letter that does not come.
        assert!(of_json(b"\"abc") < 100 && of_json(b"\"\\") < 100);
    }

    #[test]
    fn what_is_too_deep_to_be_read_weighs_nothing() {
        let deep = "{\"a\":".repeat(500_000);
        assert!(of_json(deep.as_bytes()) < deep.len() + (DEPTH_READ + 1) * 1024);
        let read = |levels: usize| {
            let text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            serde_json::from_str::<Value>(&text).is_ok()
        };
        assert!(read(DEPTH_READ - 1) && !read(DEPTH_READ + 1));
    }

    #[test]
    fn what_is_left_runs_out() {
        let left = Left::of(3 * TYPED);
        assert_eq!(left.take_object(), Ok(()));
        assert_eq!(left.take_json(b"[1,2]"), Ok(()));
        assert!(left.take_value(2 * TYPED).is_err());
        assert!(bounded(LIMIT_BYTES).is_ok() && bounded(LIMIT_BYTES + 1).is_err());
    }
}
