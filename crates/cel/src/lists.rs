//! Lists: made by expressions, or lying in an object, where they may be sets or maps by key
//! (`x-kubernetes-list-type`) whose equality and concatenation are their own.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::decl::{Decl, ListKind};
use crate::fault::Fault;
use crate::meter::Meter;
use crate::value::{Key, Value};

#[derive(Debug, Clone)]
pub enum List<'a> {
    Made { items: Arc<Vec<Value<'a>>>, kind: Option<&'a ListKind> },
    Json { items: &'a [Json], decl: &'a Decl, kind: Option<&'a ListKind> },
}

impl<'a> List<'a> {
    pub fn made(items: Vec<Value<'a>>) -> Self {
        Self::Made { items: Arc::new(items), kind: None }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Made { items, .. } => items.len(),
            Self::Json { items, .. } => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kind(&self) -> Option<&'a ListKind> {
        match self {
            Self::Made { kind, .. } | Self::Json { kind, .. } => *kind,
        }
    }

    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, Fault>> {
        match self {
            Self::Made { items, .. } => items.get(index).cloned().map(Ok),
            Self::Json { items, decl, .. } => items.get(index).map(|item| decl.read(item)),
        }
    }

    /// All elements. Whoever walks a list has its length counted.
    pub fn items(&self, meter: &mut Meter) -> Result<Vec<Value<'a>>, Fault> {
        meter.work(self.len())?;
        match self {
            Self::Made { items, .. } => Ok(items.to_vec()),
            Self::Json { items, decl, .. } => items.iter().map(|item| decl.read(item)).collect(),
        }
    }

    pub fn contains(&self, value: &Value<'_>, meter: &mut Meter) -> Result<bool, Fault> {
        for item in self.items(meter)? {
            if item.equals(value, meter)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub fn equals(&self, other: &List<'_>, meter: &mut Meter) -> Result<bool, Fault> {
        if self.len() != other.len() {
            return Ok(false);
        }
        let (left, right) = (self.items(meter)?, other.items(meter)?);
        match self.kind().or(other.kind()) {
            // Order means nothing in these.
            Some(ListKind::Set | ListKind::Map(_)) => {
                for item in &left {
                    let mut found = false;
                    for candidate in &right {
                        if item.equals(candidate, meter)? {
                            found = true;
                            break;
                        }
                    }
                    if !found {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => {
                for (a, b) in left.iter().zip(&right) {
                    if !a.equals(b, meter)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    /// `x + y`: a set takes what it has not, a map by key has its elements replaced.
    pub fn concat(&self, other: &List<'a>, meter: &mut Meter) -> Result<List<'a>, Fault> {
        let mut items = self.items(meter)?;
        let added = other.items(meter)?;
        let kind = self.kind();
        match kind {
            Some(ListKind::Set) => {
                for item in added {
                    let mut found = false;
                    for held in &items {
                        if held.equals(&item, meter)? {
                            found = true;
                            break;
                        }
                    }
                    if !found {
                        items.push(item);
                    }
                }
            }
            Some(ListKind::Map(keys)) => {
                for item in added {
                    let key = element_key(&item, keys)?;
                    let mut place = None;
                    for (index, held) in items.iter().enumerate() {
                        meter.work(1)?;
                        if key.is_some() && element_key(held, keys)? == key {
                            place = Some(index);
                            break;
                        }
                    }
                    match place.and_then(|index| items.get_mut(index)) {
                        Some(held) => *held = item,
                        None => items.push(item),
                    }
                }
            }
            _ => items.extend(added),
        }
        Ok(List::Made { items: Arc::new(items), kind })
    }
}

/// An element's key fields, where it has any of them.
fn element_key(item: &Value<'_>, names: &[Box<str>]) -> Result<Option<Vec<Option<Key>>>, Fault> {
    let Value::Map(map) = item else { return Ok(None) };
    let mut keys = Vec::with_capacity(names.len());
    for name in names {
        keys.push(map.get(&Key::String((**name).into()))?.and_then(|value| value.key()));
    }
    Ok(keys.iter().any(Option::is_some).then_some(keys))
}
