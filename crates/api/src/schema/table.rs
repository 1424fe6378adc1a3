//! The embedded table: gzipped lines of tab-separated columns, trailing empty columns left out.
//!
//! - `M name flags group/version/kind`: a message; its fields follow. Flag `a`: atomic.
//! - `F name tag type flags list strategy mergeKey goName default`: a field. Flags: `p`ointer, omit`e`mpty,
//!   omit`z`ero, `r`equired, `a`tomic, `g`ranular. List: `a`, `s`, or `m` and the keys.
//! - `I tag message`: a message whose fields are inlined in JSON.
//!
//! Types: a letter for each simple type, `@n` a message, `[x` a list, `{x` a map, `([x` a list that is a message.

use std::collections::HashMap;
use std::io::Read;

use super::{Field, Gvk, List, ListKind, Message, PatchStrategy, Shape, Type};

static EMBEDDED: &[u8] = include_bytes!("builtin.bin.gz");

#[derive(Debug, Default)]
pub struct Table {
    pub(super) messages: Vec<Message>,
    by_kind: HashMap<Gvk, u32>,
    by_name: HashMap<Box<str>, u32>,
}

impl Table {
    pub fn message(&self, index: u32) -> &Message {
        &self.messages[index as usize]
    }

    /// Options, `Status`, `WatchEvent` and their like belong to every group.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<u32> {
        let key = |group: &str, version: &str| Gvk {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        };
        let shared =
            ["DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "GetOptions", "ListOptions"]
                .contains(&kind)
                || kind == "WatchEvent"
                || (group.is_empty() && version == "v1");
        self.by_kind
            .get(&key(group, version))
            .or_else(|| shared.then(|| self.by_kind.get(&key("meta.k8s.io", "v1"))).flatten())
            .copied()
    }

    pub fn model(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Every kind, in no particular order.
    pub fn kinds(&self) -> impl Iterator<Item = (&Gvk, &Message)> {
        self.by_kind.iter().map(|(gvk, index)| (gvk, self.message(*index)))
    }

    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub(super) fn push(&mut self, message: Message) -> u32 {
        self.messages.push(message);
        self.messages.len() as u32 - 1
    }

    /// Copies a message and all it refers to from another table.
    pub(super) fn import(&mut self, from: &Table, index: u32, seen: &mut HashMap<u32, u32>) -> u32 {
        if let Some(own) = seen.get(&index) {
            return *own;
        }
        let own = self.push(Message::default());
        seen.insert(index, own);
        let mut message = from.message(index).clone();
        for field in &mut message.fields {
            self.import_type(from, &mut field.ty, seen);
        }
        message.inlines.clear();
        self.messages[own as usize] = message;
        own
    }

    fn import_type(&mut self, from: &Table, ty: &mut Type, seen: &mut HashMap<u32, u32>) {
        match &mut ty.shape {
            Shape::Message(index)
            | Shape::PropsOrArray(index)
            | Shape::PropsOrBool(index)
            | Shape::PropsOrStrings(index) => *index = self.import(from, *index, seen),
            Shape::List(list) => self.import_type(from, &mut list.item, seen),
            Shape::Map(value) => self.import_type(from, value, seen),
            _ => {}
        }
    }
}

/// The embedded bytes are ours: that they decode is proven by a test, so a failure is a broken build.
pub(super) fn decode_embedded() -> Table {
    let mut text = String::new();
    if let Err(error) = flate2::read::GzDecoder::new(EMBEDDED).read_to_string(&mut text) {
        panic!("the embedded table of built-in types is damaged: {error}");
    }
    let mut table = Table::default();
    for line in text.lines() {
        let mut columns = line.split('\t');
        let first = columns.next().unwrap_or_default();
        let columns: [&str; 9] = std::array::from_fn(|_| columns.next().unwrap_or_default());
        match (first, table.messages.last_mut()) {
            ("M", _) => table.messages.push(read_message(&columns)),
            ("F", Some(message)) => message.fields.push(read_field(&columns)),
            ("I", Some(message)) => message.inlines.push((number(columns[0]), number(columns[1]))),
            _ => panic!("the embedded table of built-in types has an unknown line: {line}"),
        }
    }
    flatten(&mut table);
    for (index, message) in table.messages.iter().enumerate() {
        table.by_name.insert(message.name.clone(), index as u32);
        if let Some(kind) = &message.kind {
            table.by_kind.insert(kind.clone(), index as u32);
        }
    }
    table
}

/// Puts the fields of inlined messages beside a message's own, innermost first.
fn flatten(table: &mut Table) {
    fn inlined(table: &Table, index: u32, out: &mut Vec<Field>) {
        for (_, inline) in &table.message(index).inlines {
            out.extend(table.message(*inline).fields.iter().map(|field| Field { tag: 0, ..field.clone() }));
            inlined(table, *inline, out);
        }
    }
    let extra: Vec<Vec<Field>> = (0..table.messages.len() as u32)
        .map(|index| {
            let mut fields = Vec::new();
            inlined(table, index, &mut fields);
            fields
        })
        .collect();
    for (message, extra) in table.messages.iter_mut().zip(extra) {
        message.fields.extend(extra);
        message.fields.sort_by(|a, b| a.name.cmp(&b.name));
        message.fields.dedup_by(|a, b| a.name == b.name);
    }
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_default()
}

fn optional(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn read_message(columns: &[&str; 9]) -> Message {
    let mut parts = columns[2].splitn(3, '/');
    let mut part = || parts.next().map(Box::<str>::from);
    let kind = match (part(), part(), part()) {
        (Some(group), Some(version), Some(kind)) => Some(Gvk { group, version, kind }),
        _ => None,
    };
    Message { name: columns[0].into(), atomic: columns[1].contains('a'), kind, ..Message::default() }
}

fn read_field(columns: &[&str; 9]) -> Field {
    let [name, tag, ty, flags, list, strategy, merge_key, go_name, default] = *columns;
    let mut ty = read_type(ty);
    if let Shape::List(inner) = &mut ty.shape {
        inner.kind = match list.split_at_checked(1) {
            Some(("s", _)) => ListKind::Set,
            Some(("m", keys)) => ListKind::Map(keys.split(',').map(Into::into).collect()),
            _ => ListKind::Atomic,
        };
    }
    // Of a list or a map it may be that of the elements.
    match (&mut ty.shape, go_name.strip_prefix('[')) {
        (Shape::List(list), Some(element)) => list.item.go_name = optional(element),
        (Shape::Map(value), Some(element)) => value.go_name = optional(element),
        _ => ty.go_name = optional(go_name),
    }
    ty.atomic = match (flags.contains('a'), flags.contains('g')) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    Field {
        name: name.into(),
        tag: number(tag),
        ty,
        pointer: flags.contains('p'),
        omit_empty: flags.contains('e'),
        omit_zero: flags.contains('z'),
        required: flags.contains('r'),
        strategy: PatchStrategy {
            merge: strategy.contains("merge"),
            replace: strategy.contains("replace"),
            retain_keys: strategy.contains("retainKeys"),
        },
        merge_key: optional(merge_key),
        default: serde_json::from_str(default).ok(),
    }
}

fn read_type(code: &str) -> Type {
    let Some((first, rest)) = code.split_at_checked(1) else { return Type::of(Shape::Any) };
    let props = || number(rest.trim_start_matches('@'));
    Type::of(match first {
        "s" => Shape::String,
        "i" => Shape::Int32,
        "l" => Shape::Int64,
        "d" => Shape::Double,
        "b" => Shape::Bool,
        "y" => Shape::Bytes,
        "q" => Shape::Quantity,
        "o" => Shape::IntOrString,
        "t" => Shape::Time,
        "u" => Shape::MicroTime,
        "D" => Shape::Duration,
        "f" => Shape::FieldsV1,
        "R" => Shape::Raw,
        "@" => Shape::Message(number(rest)),
        "A" => Shape::PropsOrArray(props()),
        "B" => Shape::PropsOrBool(props()),
        "C" => Shape::PropsOrStrings(props()),
        "[" => Shape::List(Box::new(List { item: read_type(rest), kind: ListKind::Atomic, wrapped: false })),
        "{" => Shape::Map(Box::new(read_type(rest))),
        "(" => match read_type(rest) {
            Type { shape: Shape::List(list), .. } => Shape::List(Box::new(List { wrapped: true, ..*list })),
            other => other.shape,
        },
        _ => Shape::Any,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_table_is_whole() {
        let table = decode_embedded();
        assert!(table.messages.len() > 1000);
        let field = |model: &str, field: &str| {
            table.message(table.model(model).unwrap()).field(field).unwrap().clone()
        };
        let ports = field("io.k8s.api.core.v1.Container", "ports");
        assert!(ports.strategy.merge);
        assert_eq!(ports.merge_key.as_deref(), Some("containerPort"));
        let Shape::List(list) = &ports.ty.shape else { panic!("{ports:?}") };
        assert_eq!(list.kind, ListKind::Map(vec!["containerPort".into(), "protocol".into()]));
        assert!(field("io.k8s.api.apps.v1.DeploymentSpec", "replicas").pointer);
        assert!(field("io.k8s.api.apps.v1.DeploymentSpec", "strategy").strategy.retain_keys);
        assert_eq!(field("io.k8s.api.core.v1.ContainerPort", "protocol").default, Some("TCP".into()));
        // Inlined: a volume's sources stand beside its name.
        assert_eq!(field("io.k8s.api.core.v1.Volume", "hostPath").tag, 0);
        for (group, version, kind) in [("", "v1", "Pod"), ("apps", "v1", "Scale"), ("", "v1", "Status")] {
            let found = table.kind(group, version, kind).is_some();
            assert_eq!(found, kind != "Scale", "{group}/{version} {kind}");
        }
        assert!(table.kind("apps", "v1", "DeleteOptions").is_some());
    }
}
