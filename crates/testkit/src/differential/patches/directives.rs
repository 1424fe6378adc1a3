//! What makes a patch of parts: members that are nothing, directives, orders.

use serde_json::{Map, Value, json};

use super::random::Random;

/// As a merge, but what is null stays and is sent.
pub(super) fn merge_keeping_nulls(into: &mut Value, part: &Value) {
    match (into, part) {
        (Value::Object(into), Value::Object(part)) => {
            for (key, value) in part {
                merge_keeping_nulls(into.entry(key.clone()).or_insert_with(|| json!({})), value);
            }
        }
        (into, part) => into.clone_from(part),
    }
}

/// Some member anywhere becomes null.
pub(super) fn nulled(value: &mut Value, random: &mut Random) {
    let Value::Object(map) = value else { return };
    let at = random.below(map.len());
    let Some((_, inner)) = map.iter_mut().nth(at) else { return };
    match inner.is_object() && random.chance(70) {
        true => nulled(inner, random),
        false => *inner = Value::Null,
    }
}

/// Some object anywhere gets a directive.
pub(super) fn directed(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(map) => {
            if map.is_empty() || random.chance(20) {
                direct(map, random);
                return;
            }
            let at = random.below(map.len());
            if let Some((_, inner)) = map.iter_mut().nth(at) {
                directed(inner, random);
            }
        }
        Value::Array(items) => match items.first().is_some_and(Value::is_object) {
            true if random.chance(25) => items.push(json!({"$patch": "replace"})),
            true => {
                let at = random.below(items.len());
                if let Some(item) = items.get_mut(at) {
                    directed(item, random);
                }
            }
            false => {}
        },
        _ => {}
    }
}

fn direct(map: &mut Map<String, Value>, random: &mut Random) {
    match random.below(6) {
        0 | 1 => drop(map.insert("$patch".into(), "delete".into())),
        2 => drop(map.insert("$patch".into(), "replace".into())),
        3 => drop(map.insert("$patch".into(), "merge".into())),
        4 => {
            let keys: Vec<Value> = map.keys().map(|key| key.as_str().into()).collect();
            map.insert("$retainKeys".into(), keys.into());
        }
        _ => {
            let lists: Vec<(String, Value)> = map
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), order(value.as_array()?)?)))
                .collect();
            for (key, order) in lists {
                map.insert(format!("$setElementOrder/{key}"), order);
            }
        }
    }
}

/// Some object anywhere gets a directive that may not fit: keys that are not there, orders that lack some or have too many.
pub(super) fn misdirected(value: &mut Value, random: &mut Random) {
    if random.chance(50) {
        return directed(value, random);
    }
    let Value::Object(map) = value else { return directed(value, random) };
    let nested = map.iter_mut().filter(|(_, inner)| inner.is_object()).map(|(_, inner)| inner);
    let mut nested: Vec<&mut Value> = nested.collect();
    if !nested.is_empty() && random.chance(70) {
        let at = random.below(nested.len());
        return misdirected(nested[at], random);
    }
    let lists: Vec<(String, Value)> =
        map.iter().filter_map(|(key, value)| Some((key.clone(), order(value.as_array()?)?))).collect();
    match (random.below(5), lists.into_iter().next()) {
        (0, _) => drop(map.insert("$retainKeys".into(), json!(["name", "type"]))),
        (1, _) => drop(map.insert("$retainKeys".into(), json!("type"))),
        (2, Some((key, mut order))) => {
            order.as_array_mut().into_iter().for_each(|order| drop(order.pop()));
            map.insert(format!("$setElementOrder/{key}"), order);
        }
        (3, Some((key, mut order))) => {
            order.as_array_mut().into_iter().for_each(|order| {
                order.reverse();
                order.insert(0, json!({"name": "none", "type": "none", "key": "none"}));
            });
            map.insert(format!("$setElementOrder/{key}"), order);
        }
        (4, Some((key, order))) => {
            map.remove(&key);
            map.insert(format!("$setElementOrder/{key}"), order);
        }
        _ => drop(map.insert("$patch".into(), "unknown".into())),
    }
}

/// The elements by what they are known by, the other way round.
fn order(items: &[Value]) -> Option<Value> {
    let known = |item: &Value| {
        ["name", "port", "containerPort", "uid", "ip", "topologyKey", "key", "type"]
            .iter()
            .find_map(|key| Some(json!({*key: item.get(*key)?})))
    };
    let named: Option<Vec<Value>> = items
        .iter()
        .rev()
        .map(|item| if item.is_object() { known(item) } else { Some(item.clone()) })
        .collect();
    named.map(Value::Array)
}
