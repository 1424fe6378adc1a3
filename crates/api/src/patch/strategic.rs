//! Strategic merge patch: objects merge, lists merge by key where the type says so, and directives in the patch
//! delete (`$patch: delete`), replace (`$patch: replace`), keep only some keys (`$retainKeys`), remove primitives
//! (`$deleteFromPrimitiveList/…`) and set the order (`$setElementOrder/…`).

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value};

use super::{PatchError, interleave};
use crate::schema::{Field, Node, Schema};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Result<T> = std::result::Result<T, PatchError>;
type Object = Map<String, Value>;

/// Applies the patch. Fields the schema does not know merge as objects and replace as lists.
pub fn apply(original: &Value, patch: &Value, schema: &Schema) -> Result<Value> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::NotAnObject);
    };
    Ok(Value::Object(merge_object(original.clone(), patch, Some(schema.node()))?))
}

fn fail<T>(text: String) -> Result<T> {
    Err(PatchError::Strategic(text))
}

fn bad_format<T>(what: &'static str) -> Result<T> {
    Err(PatchError::Format(what))
}

fn merge_object(mut original: Object, patch: &Object, node: Option<Node<'_>>) -> Result<Object> {
    match patch.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
        Some("replace") => {
            let mut replaced = patch.clone();
            replaced.remove(DIRECTIVE);
            return Ok(replaced);
        }
        Some("delete") => return Ok(Object::new()),
        None => {}
        Some(other) => return fail(unknown_directive(other, patch)),
    }
    retain_keys(&mut original, patch)?;
    // Lists that are given an order come first, then what is taken out of lists, then what is merged: what is taken out
    // and put in is in. (The original goes by the order of the members, mostly; clients write the former first.)
    let mut ordered = BTreeSet::new();
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(SET_ORDER) {
            set_order(&mut original, patch.get(name), name, value, node)?;
            ordered.insert(name);
        }
    }
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(&mut original, name, value);
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !is_directive(key) && !ordered.contains(key.as_str()))
    {
        merge_member(&mut original, key, value, node)?;
    }
    Ok(original)
}

fn unknown_directive(directive: &str, patch: &Object) -> String {
    format!("unknown patch type: {directive} in map: {}", super::go_shown(&Value::Object(patch.clone())))
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_PRIMITIVES) || key.starts_with(SET_ORDER)
}

fn merge_member(original: &mut Object, key: &str, patch: &Value, node: Option<Node<'_>>) -> Result<()> {
    let field = node.and_then(|node| node.field(key));
    let member = node.and_then(|node| node.member(key));
    let replaces = field.is_some_and(|field| field.strategy.replace);
    let merged = match (original.remove(key), patch) {
        (_, Value::Null) => return Ok(()),
        (Some(Value::Object(_)), Value::Object(_)) if replaces => patch.clone(),
        (Some(Value::Object(own)), Value::Object(patch)) => Value::Object(merge_object(own, patch, member)?),
        (Some(Value::Array(own)), Value::Array(patch)) => {
            Value::Array(merged_list(own, patch, field, member)?)
        }
        // There is nothing to merge with.
        (_, patch) => match taken(patch) {
            Some(taken) => taken,
            None => return Ok(()),
        },
    };
    original.insert(key.to_owned(), merged);
    Ok(())
}

/// A list of the patch with that of the object; as it is where its type does not merge.
fn merged_list(
    own: Vec<Value>,
    patch: &[Value],
    field: Option<&Field>,
    node: Option<Node<'_>>,
) -> Result<Vec<Value>> {
    match field.filter(|field| field.strategy.merge) {
        Some(field) => merge_list(own, patch, field.merge_key.as_deref(), node.and_then(Node::item)),
        None => Ok(patch.to_vec()),
    }
}

/// A part of a patch as it is, without what it would take away; nothing of an object with a directive.
fn taken(patch: &Value) -> Option<Value> {
    Some(match patch {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return None,
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.filter_map(|(key, value)| Some((key.clone(), taken(value)?))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().filter_map(taken).collect()),
        scalar => scalar.clone(),
    })
}

fn retain_keys(original: &mut Object, patch: &Object) -> Result<()> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Some(keys) = keys.as_array() else { return bad_format("retainKeys") };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let listed = |name: &str| keys.contains(name);
    if patch.iter().any(|(key, value)| !is_directive(key) && !value.is_null() && !listed(key)) {
        return bad_format("retainKeys");
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

/// What is no list takes nothing out, and nothing the whole list.
fn delete_primitives(original: &mut Object, name: &str, values: &Value) {
    match (values, original.get_mut(name)) {
        (Value::Null, _) => drop(original.remove(name)),
        (Value::Array(values), Some(Value::Array(items))) => {
            let values: HashSet<&Value> = values.iter().collect();
            items.retain(|item| !values.contains(item));
        }
        _ => {}
    }
}

/// The value that identifies an element: its merge key's, or the element itself.
fn key_of(item: &Value, key: Option<&str>) -> Result<Value> {
    match (item, key) {
        (Value::Object(map), Some(key)) => match map.get(key) {
            Some(value) => Ok(value.clone()),
            None => {
                fail(format!("map: {} does not contain declared merge key: {key}", super::go_shown(item)))
            }
        },
        _ => Ok(item.clone()),
    }
}

fn keys_of(items: &[Value], key: Option<&str>) -> Result<Vec<Value>> {
    items.iter().map(|item| key_of(item, key)).collect()
}

fn merge_list(
    original: Vec<Value>,
    patch: &[Value],
    key: Option<&str>,
    item: Option<Node<'_>>,
) -> Result<Vec<Value>> {
    let directive = |value: &Value| value.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    let mut items = original;
    let (mut kept, mut replaces, mut deleted) = (Vec::new(), false, HashSet::new());
    for value in patch {
        match directive(value).as_deref() {
            Some("delete") => {
                deleted.insert(key_of(value, key)?);
            }
            None => kept.push(value),
            Some("replace") => replaces = true,
            Some("merge") => return fail("merging lists cannot yet be specified in the patch".to_owned()),
            Some(other) => {
                return fail(unknown_directive(other, value.as_object().unwrap_or(&Object::new())));
            }
        }
    }
    if replaces {
        return Ok(kept.into_iter().cloned().collect());
    }
    if !deleted.is_empty() {
        items.retain(|item| key_of(item, key).map_or(true, |key| !deleted.contains(&key)));
    }
    let before = keys_of(&items, key).unwrap_or_default();
    // Of several alike the first is meant. What is merged keeps its key.
    let mut places: HashMap<Value, usize> = HashMap::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        if let Ok(key) = key_of(item, key) {
            places.entry(key).or_insert(at);
        }
    }
    let mut wanted = Vec::new();
    for value in kept {
        let own_key = key_of(value, key)?;
        let found = places.get(&own_key).and_then(|at| items.get_mut(*at));
        match (found, value) {
            (Some(Value::Object(found)), Value::Object(patch)) => {
                *found = merge_object(std::mem::take(found), patch, item)?;
            }
            (Some(_), _) => {}
            (None, value) => {
                places.insert(own_key.clone(), items.len());
                items.push(value.clone());
            }
        }
        wanted.push(own_key);
    }
    let keyed = keys_of(&items, key)?.into_iter().zip(items).collect();
    Ok(interleave(keyed, &wanted, &before))
}

/// Merges a list and puts it in order: the order must name what the patch holds, in the same order.
fn set_order(
    object: &mut Object,
    patch: Option<&Value>,
    name: &str,
    order: &Value,
    node: Option<Node<'_>>,
) -> Result<()> {
    let order = as_list(order)?;
    let own = object.get(name).map(as_list).transpose()?;
    let patch = patch.map(as_list).transpose()?;
    let field = node.and_then(|node| node.field(name));
    if let (Some(message), None) = (node.and_then(Node::message), field) {
        let name = format!(
            "unable to find api field in struct {} for the json field {name:?}",
            message.short_name()
        );
        return fail(name);
    }
    let key = field.and_then(|field| field.merge_key.as_deref());
    check_order(patch.map_or(&[], Vec::as_slice), order, key)?;
    let before = own.cloned().unwrap_or_default();
    let merged = match (own, patch) {
        (Some(own), None) => own.clone(),
        (None, Some(patch)) => patch.iter().filter_map(as_it_is).collect(),
        (Some(own), Some(patch)) => {
            merged_list(own.clone(), patch, field, node.and_then(|node| node.member(name)))?
        }
        (None, None) => return Ok(()),
    };
    let (wanted, before) = (keys_of(order, key)?, keys_of(&before, key)?);
    let keyed = keys_of(&merged, key)?.into_iter().zip(merged).collect();
    object.insert(name.to_owned(), Value::Array(interleave(keyed, &wanted, &before)));
    Ok(())
}

fn as_list(value: &Value) -> Result<&Vec<Value>> {
    let Value::Array(items) = value else {
        let found = crate::schema::typed::go_type(value);
        return fail(format!("expected a []interface {{}}, but received a {found}"));
    };
    Ok(items)
}

/// A part of a patch without its directives, but with what it holds of nothing.
fn as_it_is(patch: &Value) -> Option<Value> {
    Some(match patch {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return None,
        Value::Object(map) => {
            let kept = map.iter().filter_map(|(key, value)| Some((key.clone(), as_it_is(value)?)));
            Value::Object(kept.collect())
        }
        Value::Array(items) => Value::Array(items.iter().filter_map(as_it_is).collect()),
        scalar => scalar.clone(),
    })
}

/// Whether the elements of the patch come in the order, in their order.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut left = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        loop {
            let Some(next) = left.next() else {
                let (patch, order) = (Value::from(patch.to_vec()), Value::from(order.to_vec()));
                return fail(format!(
                    "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                    super::go_shown(&patch),
                    super::go_shown(&order)
                ));
            };
            if key_of(item, key)? == key_of(next, key)? {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema;

    fn deployment(pod: Value, patch: Value) -> Value {
        let schema = schema::of_kind("apps", "v1", "Deployment").unwrap();
        let original = json!({"spec": {"template": {"spec": pod}}});
        let patch = json!({"spec": {"template": {"spec": patch}}});
        apply(&original, &patch, &schema).unwrap()["spec"]["template"]["spec"].clone()
    }

    /// The walk through of "Update API Objects in Place Using kubectl patch".
    #[test]
    fn containers_merge_by_name_and_tolerations_are_replaced() {
        let original = json!({
            "containers": [{"name": "patch-demo-ctr", "image": "nginx"}],
            "tolerations": [{"key": "dedicated", "value": "test-team", "effect": "NoSchedule"}],
        });
        let patch = json!({
            "containers": [{"name": "patch-demo-ctr-2", "image": "redis"}],
            "tolerations": [{"key": "disktype", "value": "ssd", "effect": "NoSchedule"}],
        });
        assert_eq!(
            deployment(original, patch),
            json!({
                "containers": [{"name": "patch-demo-ctr-2", "image": "redis"}, {"name": "patch-demo-ctr", "image": "nginx"}],
                "tolerations": [{"key": "disktype", "value": "ssd", "effect": "NoSchedule"}],
            })
        );
    }

    #[test]
    fn retain_keys_of_the_deployment_strategy() {
        let schema = schema::of_kind("apps", "v1", "Deployment").unwrap();
        let original =
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "30%"}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        assert_eq!(
            apply(&original, &patch, &schema).unwrap(),
            json!({"spec": {"strategy": {"type": "Recreate"}}})
        );
        let wrong = json!({"spec": {"strategy": {"$retainKeys": ["x"], "type": "Recreate"}}});
        assert!(apply(&original, &wrong, &schema).is_err());
    }

    #[test]
    fn directives_on_elements_and_lists() {
        let original = json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]},
                                             {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]});
        assert_eq!(
            deployment(
                original.clone(),
                json!({"containers": [{"name": "b", "$patch": "delete"},
                {"name": "a", "env": [{"name": "x", "value": null}, {"name": "y", "value": "2"}]}]})
            ),
            json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "x"}, {"name": "y", "value": "2"}]},
                                  {"name": "c", "image": "3"}]})
        );
        assert_eq!(
            deployment(original.clone(), json!({"containers": [{"$patch": "replace"}, {"name": "z"}]})),
            json!({"containers": [{"name": "z"}]})
        );
        assert_eq!(
            deployment(
                original.clone(),
                json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]})
            ),
            // `b`, which the order does not name, stood before `c` and stays before it.
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"},
                {"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]}]})
        );
        assert_eq!(
            deployment(original, json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "n"}, {"name": "b"}, {"name": "c"}],
                                        "containers": [{"name": "n"}]}))["containers"]
                .as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect::<Vec<_>>(),
            ["a", "n", "b", "c"]
        );
    }

    #[test]
    fn what_goes_goes_first_and_orders_are_checked() {
        let ports = |patch: Value| {
            let schema = schema::of_kind("", "v1", "Service").unwrap();
            let original = json!({"spec": {"ports": [{"port": 80, "name": "old"}]}});
            apply(&original, &json!({"spec": patch}), &schema)
                .map(|o| o["spec"]["ports"].clone())
                .map_err(|e| e.to_string())
        };
        let both = json!({"ports": [{"port": 80, "name": "new"}, {"port": 80, "$patch": "delete"}]});
        assert_eq!(ports(both), Ok(json!([{"port": 80, "name": "new"}])));
        let order = json!([{"port": 81}, {"port": 82}]);
        let turned = json!({"ports": [{"port": 82}, {"port": 81}], "$setElementOrder/ports": order});
        let why = "The order in patch list:\n[map[port:82] map[port:81]]\n doesn't match $setElementOrder list:\n[map[port:81] map[port:82]]\n";
        assert_eq!(ports(turned), Err(why.to_owned()));
        let unknown = json!({"$setElementOrder/bogus": [{"port": 1}]});
        assert!(
            ports(unknown).is_err_and(|e| e.ends_with("in struct ServiceSpec for the json field \"bogus\""))
        );
        let text = json!({"$setElementOrder/ports": "x"});
        assert_eq!(ports(text), Err("expected a []interface {}, but received a string".to_owned()));
    }

    /// As kube-apiserver v1.36.2 answers it.
    #[test]
    fn primitive_lists() {
        let schema = schema::of_kind("", "v1", "Pod").unwrap();
        let check = |patch: Value, expected: Value| {
            let original = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
            let patched = apply(&original, &json!({"metadata": patch}), &schema).unwrap();
            let left = patched["metadata"]["finalizers"].as_array().filter(|left| !left.is_empty());
            assert_eq!(left.cloned().map_or(Value::Null, Value::Array), expected, "{patch}");
        };
        const DELETE: &str = "$deleteFromPrimitiveList/finalizers";
        const ORDER: &str = "$setElementOrder/finalizers";
        check(json!({DELETE: ["b"]}), json!(["a", "c"]));
        check(json!({DELETE: ["b"], "finalizers": ["d"]}), json!(["d", "a", "c"]));
        check(json!({DELETE: ["b"], "finalizers": ["b", "d"]}), json!(["b", "d", "a", "c"]));
        check(json!({DELETE: ["a", "b", "c"]}), Value::Null);
        check(json!({DELETE: ["a", "b", "c"], "finalizers": ["d"]}), json!(["d"]));
        check(json!({DELETE: ["b"], "finalizers": null}), Value::Null);
        check(json!({DELETE: null}), Value::Null);
        for nothing in [json!([]), json!(["z"]), json!("b")] {
            check(json!({DELETE: nothing}), json!(["a", "b", "c"]));
        }
        check(json!({"$deleteFromPrimitiveList/nope": ["a"]}), json!(["a", "b", "c"]));
        check(
            json!({DELETE: ["b"], "finalizers": ["d", "a"], ORDER: ["d", "a", "c"]}),
            json!(["d", "a", "c"]),
        );
        check(json!({DELETE: ["b"], "finalizers": ["d"], ORDER: ["d", "b"]}), json!(["d", "a", "c"]));
    }

    #[test]
    fn objects() {
        let original = json!({"nodeSelector": {"a": "1", "b": "2"}, "securityContext": {"runAsUser": 1, "runAsGroup": 2},
                              "dnsConfig": {"nameservers": ["x"]}});
        assert_eq!(
            deployment(
                original,
                json!({"nodeSelector": {"a": null, "c": "3"}, "affinity": {"podAffinity": null},
                "securityContext": {"$patch": "replace", "runAsUser": 5}, "dnsConfig": {"$patch": "delete"},
                "hostname": null})
            ),
            json!({"nodeSelector": {"b": "2", "c": "3"}, "securityContext": {"runAsUser": 5}, "dnsConfig": {}, "affinity": {}})
        );
        let schema = schema::of_kind("", "v1", "Service").unwrap();
        let ports = json!({"spec": {"ports": [{"port": 80, "targetPort": 1}, {"port": 81}]}});
        let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 2}]}});
        assert_eq!(
            apply(&ports, &patch, &schema).unwrap(),
            json!({"spec": {"ports": [{"port": 80, "targetPort": 2}, {"port": 81}]}})
        );
        let keyless = json!({"spec": {"ports": [{"targetPort": 2}]}});
        let error = apply(&ports, &keyless, &schema).unwrap_err().to_string();
        assert_eq!(error, "map: map[targetPort:2] does not contain declared merge key: port");
    }
}
