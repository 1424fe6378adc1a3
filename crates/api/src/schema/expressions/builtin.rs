//! What the built-in types are to expressions, for judging those of policies before there are objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Decl, DeclKind, Field, ListKind};

use crate::schema::{Node, Schema, Shape};

/// Types that hold themselves, or lie deeper, are not looked into.
const MAX_DEPTH: usize = 16;

/// The declaration of a built-in kind's objects.
pub fn declare(schema: &Schema) -> Arc<Decl> {
    of_node(schema.node(), &mut Vec::new())
}

/// `inside` are the messages that the walk is in.
fn of_node(node: Node<'_>, inside: &mut Vec<u32>) -> Arc<Decl> {
    let kind = match &node.ty.shape {
        Shape::String | Shape::Quantity | Shape::Duration => DeclKind::String,
        Shape::Int32 | Shape::Int64 => DeclKind::Int,
        Shape::Double => DeclKind::Double,
        Shape::Bool => DeclKind::Bool,
        Shape::Bytes => DeclKind::Bytes,
        Shape::Time | Shape::MicroTime => DeclKind::Timestamp,
        Shape::List(list) => {
            let item = of_node(node.at(&list.item), inside);
            DeclKind::List { item, kind: ListKind::Atomic }
        }
        Shape::Map(value) => DeclKind::Map(of_node(node.at(value), inside)),
        Shape::Message(index) if !inside.contains(index) && inside.len() < MAX_DEPTH => {
            inside.push(*index);
            let message = node.table.message(*index);
            let mut fields = BTreeMap::new();
            for field in &message.fields {
                if let Some(name) = cel::escape(&field.name) {
                    let decl = of_node(node.at(&field.ty), inside);
                    fields.insert(name.into_owned().into(), Field { json: field.name.clone(), decl });
                }
            }
            inside.pop();
            // The same message looks otherwise inside itself.
            let name = format!("{}.{}", message.name, inside.len());
            DeclKind::Object { name: name.into(), fields }
        }
        _ => DeclKind::Dyn,
    };
    Arc::new(Decl::new(kind, u64::MAX, 1))
}
