//! Folds: `all`, `exists`, `map` and their kin, with the costs of the loops the original makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Evaluated, Evaluator, shown};
use crate::ast::{Fold, FoldKind};
use crate::cost;
use crate::fault::Fault;
use crate::value::{Key, Value};

impl<'a> Evaluator<'_, 'a> {
    pub(super) fn fold(&mut self, fold: &Fold) -> Evaluated<'a> {
        let range = self.eval(&fold.range)?;
        let mut state = State::new(fold.kind);
        let (items, values) = match &range {
            Value::List(list) => (list.items(self.meter)?, None),
            Value::Map(map) => (map.keys(), Some(map)),
            _ => return Err(Fault::no_overload()),
        };
        for (index, item) in items.into_iter().enumerate() {
            self.meter.work(1)?;
            self.meter.charge(state.condition())?;
            if state.is_decided() {
                break;
            }
            let (first, second) = match (&fold.second, values) {
                (None, _) => (item, None),
                (Some(_), None) => (Value::Int(i64::try_from(index).unwrap_or(i64::MAX)), Some(item)),
                (Some(_), Some(map)) => {
                    let value = item.key().map(|key| map.get(&key)).transpose()?.flatten();
                    (item, Some(value.unwrap_or(Value::Null)))
                }
            };
            let depth = self.locals.len();
            self.locals.push((Arc::clone(&fold.var), first.clone()));
            if let (Some(name), Some(value)) = (&fold.second, second) {
                self.locals.push((Arc::clone(name), value));
            }
            let stepped = self.step(fold, &mut state, first);
            self.locals.truncate(depth);
            stepped?;
        }
        self.meter.charge(state.closing())?;
        state.finish()
    }

    fn step(&mut self, fold: &Fold, state: &mut State<'a>, first: Value<'a>) -> Result<(), Fault> {
        if let Some(filter) = &fold.filter {
            match self.eval(filter)? {
                Value::Bool(true) => {}
                Value::Bool(false) => return Ok(()),
                _ => return Err(Fault::no_overload()),
            }
        }
        match state {
            State::Decision { decides, decided, fault } => {
                self.meter.charge(cost::SELECT)?;
                match self.eval(&fold.body) {
                    Ok(Value::Bool(value)) => *decided |= value == *decides,
                    Ok(_) => drop(fault.get_or_insert_with(Fault::no_overload)),
                    Err(Fault::CostLimit) => return Err(Fault::CostLimit),
                    Err(other) => drop(fault.get_or_insert(other)),
                }
            }
            State::Count(count) => match self.eval(&fold.body)? {
                Value::Bool(true) => {
                    self.meter.charge(2)?;
                    *count += 1;
                }
                Value::Bool(false) => {}
                _ => return Err(Fault::no_overload()),
            },
            State::List { items, filter: true } => match self.eval(&fold.body)? {
                Value::Bool(true) => {
                    self.meter.charge(2 + cost::LIST + cost::SELECT)?;
                    items.push(first);
                }
                Value::Bool(false) => {}
                _ => return Err(Fault::no_overload()),
            },
            State::List { items, filter: false } => {
                let value = self.eval(&fold.body)?;
                // A list of one, and what was there, put together.
                let made = if fold.body.is_constant() { 0 } else { cost::LIST };
                self.meter.charge(2 + made)?;
                items.push(value);
            }
            State::Map { members, entries } => {
                let value = self.eval(&fold.body)?;
                self.meter.charge(if *entries { 2 } else { 3 })?;
                let new: Vec<(Key, Value<'a>)> = match (*entries, value) {
                    (false, value) => vec![(first.key().ok_or_else(Fault::no_overload)?, value)],
                    (true, Value::Map(map)) => {
                        let keys: Vec<Key> = map.keys().iter().filter_map(Value::key).collect();
                        self.meter.work(keys.len())?;
                        let pair = |key: Key| Ok(map.get(&key)?.map(|value| (key, value)));
                        keys.into_iter()
                            .filter_map(|key| pair(key).transpose())
                            .collect::<Result<_, Fault>>()?
                    }
                    _ => return Err(Fault::no_overload()),
                };
                for (key, value) in new {
                    if members.contains_key(&key) {
                        let key = shown(&key.value());
                        return Err(Fault::failed(format!("insert failed: key {key} already exists")));
                    }
                    members.insert(key, value);
                }
            }
        }
        Ok(())
    }
}

/// What a fold has come to.
enum State<'a> {
    /// `all` is decided by false, `exists` by true; other terms' faults do not matter then.
    Decision {
        decides: bool,
        decided: bool,
        fault: Option<Fault>,
    },
    Count(u64),
    List {
        items: Vec<Value<'a>>,
        filter: bool,
    },
    Map {
        members: BTreeMap<Key, Value<'a>>,
        entries: bool,
    },
}

impl<'a> State<'a> {
    fn new(kind: FoldKind) -> Self {
        match kind {
            FoldKind::All => Self::Decision { decides: false, decided: false, fault: None },
            FoldKind::Exists => Self::Decision { decides: true, decided: false, fault: None },
            FoldKind::ExistsOne => Self::Count(0),
            FoldKind::Filter => Self::List { items: Vec::new(), filter: true },
            FoldKind::List => Self::List { items: Vec::new(), filter: false },
            FoldKind::Map => Self::Map { members: BTreeMap::new(), entries: false },
            FoldKind::Entries => Self::Map { members: BTreeMap::new(), entries: true },
        }
    }

    /// The look whether to go on. (The empty list or map that others start from is a literal, and free.)
    fn condition(&self) -> u64 {
        match self {
            Self::Decision { decides: false, .. } => 2,
            Self::Decision { decides: true, .. } => 3,
            _ => 0,
        }
    }

    fn is_decided(&self) -> bool {
        matches!(self, Self::Decision { decided: true, .. })
    }

    fn closing(&self) -> u64 {
        if matches!(self, Self::Count(_)) { 2 } else { cost::SELECT }
    }

    fn finish(self) -> Evaluated<'a> {
        match self {
            Self::Decision { decides, decided: true, .. } => Ok(Value::Bool(decides)),
            Self::Decision { fault: Some(fault), .. } => Err(fault),
            Self::Decision { decides, .. } => Ok(Value::Bool(!decides)),
            Self::Count(count) => Ok(Value::Bool(count == 1)),
            Self::List { items, .. } => Ok(Value::list(items)),
            Self::Map { members, .. } => Ok(Value::map(members)),
        }
    }
}
