//! The priority levels and flow schemas that every cluster has, and their keeping: those that are missing are made anew,
//! and those that nobody has taken into their own hands (annotation `apf.kubernetes.io/autoupdate-spec`) are as this
//! version has them.

use ::http::{Method, Request};
use api::meta;
use api::status::ApiError;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::{lines, list, object, sent};
use crate::ApiServer;
use crate::http::body::full;

const LEVELS: &str = include_str!("priority_levels.tsv");
const SCHEMAS: &str = include_str!("flow_schemas.tsv");
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const API: &str = "flowcontrol.apiserver.k8s.io/v1";
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const MANAGER: &str = "api-priority-and-fairness-config-producer-v1";
const MANDATORY: &str = "mandatory";
/// Of this level an administrator may say how it lends.
const EXEMPT: &str = "exempt";

fn made(kind: &str, name: &str) -> Value {
    let mut object = object(API, kind, name);
    object["metadata"]["annotations"] = json!({AUTOUPDATE: "true"});
    object
}

fn number(text: &str) -> Value {
    text.parse::<i64>().map_or(Value::Null, Value::from)
}

pub fn levels() -> Vec<Value> {
    let level = |line: Vec<&str>| {
        let [_, name, kind, shares, lendable, queues, hand, length] = line.as_slice() else { return None };
        let mut level = made("PriorityLevelConfiguration", name);
        let mut own =
            json!({"nominalConcurrencyShares": number(shares), "lendablePercent": number(lendable)});
        if *kind == "Exempt" {
            level["spec"] = json!({"type": kind, "exempt": own});
            return Some(level);
        }
        own["limitResponse"] = json!({"type": kind});
        if *kind == "Queue" {
            own["limitResponse"]["queuing"] = json!({"queues": number(queues), "handSize": number(hand),
                "queueLengthLimit": number(length)});
        }
        level["spec"] = json!({"type": "Limited", "limited": own});
        Some(level)
    };
    lines(LEVELS).filter_map(level).collect()
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    Some(match (kind, name.split_once('/')) {
        ("ServiceAccount", Some((namespace, name))) => {
            json!({"kind": kind, "serviceAccount": {"namespace": namespace, "name": name}})
        }
        ("Group", _) => json!({"kind": kind, "group": {"name": text.strip_prefix("Group:")?}}),
        _ => json!({"kind": kind, "user": {"name": text.strip_prefix("User:")?}}),
    })
}

pub fn schemas() -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for line in lines(SCHEMAS) {
        let [_, name, level, precedence, distinguisher, subjects, rule @ ..] = line.as_slice() else {
            continue;
        };
        let [verbs, groups, resources, cluster, namespaces, paths] = rule else { continue };
        if all.last().is_none_or(|last| meta::name(last) != *name) {
            let mut schema = made("FlowSchema", name);
            schema["spec"] = json!({"priorityLevelConfiguration": {"name": level},
                "matchingPrecedence": number(precedence)});
            let method = list(distinguisher).first().map(|method| json!({"type": method}));
            if let Some(method) = method {
                schema["spec"]["distinguisherMethod"] = method;
            }
            let subjects: Vec<Value> = list(subjects).into_iter().filter_map(subject).collect();
            schema["spec"]["rules"] = json!([{"subjects": subjects}]);
            all.push(schema);
        }
        let Some(schema) = all.last_mut() else { continue };
        let (field, rule) = match list(paths) {
            paths if paths.is_empty() => {
                let mut rule = json!({"verbs": list(verbs), "apiGroups": list(groups),
                    "resources": list(resources), "namespaces": list(namespaces)});
                if *cluster == "yes" {
                    rule["clusterScope"] = true.into();
                }
                ("resourceRules", rule)
            }
            paths => ("nonResourceRules", json!({"verbs": list(verbs), "nonResourceURLs": paths})),
        };
        let rules = &mut schema["spec"]["rules"][0][field];
        match rules.as_array_mut() {
            Some(rules) => rules.push(rule),
            None => *rules = json!([rule]),
        }
    }
    all
}

fn is_mandatory(table: &'static str, name: &str) -> bool {
    lines(table).any(|line| matches!(line.as_slice(), [MANDATORY, own, ..] if *own == name))
}

/// What is to be written over an object that is there, if anything.
fn revised(wanted: &Value, present: &Value, mandatory: bool) -> Option<Value> {
    let said = present["metadata"]["annotations"][AUTOUPDATE].as_str();
    let said = said.and_then(|text| match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    });
    // Where nothing is said, nobody has changed what is still in its first generation.
    let ours = mandatory || said.unwrap_or(present["metadata"]["generation"] == 1);
    let mut expected = wanted["spec"].clone();
    if mandatory && meta::name(wanted) == EXEMPT && present["spec"]["exempt"].is_object() {
        expected["exempt"] = present["spec"]["exempt"].clone();
    }
    let outdated = ours && present["spec"] != expected;
    if said == Some(ours) && !outdated {
        return None;
    }
    let mut revised = present.clone();
    if !revised["metadata"]["annotations"].is_object() {
        revised["metadata"]["annotations"] = json!({});
    }
    revised["metadata"]["annotations"][AUTOUPDATE] = ours.to_string().into();
    if outdated {
        revised["spec"] = expected;
    }
    Some(revised)
}

/// Brings what the store holds to what there should be. Levels first: schemas refer to them.
pub async fn keep(server: &ApiServer) -> Result<(), ApiError> {
    for (plural, table, wanted) in
        [("prioritylevelconfigurations", LEVELS, levels()), ("flowschemas", SCHEMAS, schemas())]
    {
        try_join_all(wanted.into_iter().map(|wanted| keep_one(server, plural, table, wanted))).await?;
    }
    Ok(())
}

async fn keep_one(
    server: &ApiServer,
    plural: &str,
    table: &'static str,
    wanted: Value,
) -> Result<(), ApiError> {
    let kinds = server.0.catalog.snapshot();
    let kind = kinds.find(GROUP, "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let path = format!("/apis/{API}/{plural}");
    let name = meta::name(&wanted).to_owned();
    let present = server.0.objects.get(kind, "", &name).await?.map(|(_, object)| object);
    let (method, uri, body) = match present {
        None => (Method::POST, path, wanted),
        Some(present) => match revised(&wanted, &present, is_mandatory(table, &name)) {
            Some(revised) => (Method::PUT, format!("{path}/{name}"), revised),
            None => return Ok(()),
        },
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("{uri}?fieldManager={MANAGER}"))
        .header(::http::header::CONTENT_TYPE, "application/json")
        .body(full(body.to_string()))
        .map_err(ApiError::internal)?;
    // Somebody else may have been faster: what they wrote is looked at in its turn.
    sent(server, request, &[409]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_read_as_they_are_written() {
        let (levels, schemas) = (levels(), schemas());
        assert_eq!((levels.len(), schemas.len()), (8, 11), "a line is lost");
        let find = |all: &[Value], name: &str| {
            all.iter().find(|o| meta::name(o) == name).map(|o| o["spec"].clone()).unwrap_or_default()
        };
        assert_eq!(
            find(&levels, "catch-all"),
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
                "limitResponse": {"type": "Reject"}}})
        );
        assert_eq!(find(&levels, "system")["limited"]["limitResponse"]["queuing"]["queues"], 64);
        assert_eq!(
            find(&schemas, "system-node-high")["rules"],
            json!([{"subjects": [{"kind": "Group", "group": {"name": "system:nodes"}}], "resourceRules": [
                {"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "clusterScope": true, "namespaces": ["*"]},
                {"verbs": ["*"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]}]}])
        );
        assert!(find(&schemas, "probes")["distinguisherMethod"].is_null());
        for schema in &schemas {
            let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().expect("a level");
            assert!(!find(&levels, level).is_null(), "{level}");
        }
        assert!(is_mandatory(SCHEMAS, "catch-all") && !is_mandatory(SCHEMAS, "probes"));
    }

    #[test]
    fn what_somebody_has_taken_over_is_theirs_but_for_what_must_be() {
        let wanted = json!({"metadata": {"name": "x"}, "spec": {"a": 1}});
        let present = |annotation: Value, generation: i64, a: i64| json!({"metadata": {"name": "x", "generation": generation, "annotations": annotation}, "spec": {"a": a}});
        let check = |present: Value, mandatory: bool, annotation: &str, spec: Option<i64>| {
            let revised = revised(&wanted, &present, mandatory).unwrap_or(Value::Null);
            assert_eq!(revised["spec"]["a"].as_i64(), spec, "{present}");
            if spec.is_some() {
                assert_eq!(revised["metadata"]["annotations"][AUTOUPDATE], annotation, "{present}");
            }
        };
        check(present(json!({AUTOUPDATE: "true"}), 7, 1), false, "true", None);
        check(present(json!({AUTOUPDATE: "true"}), 7, 2), false, "true", Some(1));
        check(present(json!({AUTOUPDATE: "false"}), 7, 2), false, "false", None);
        check(present(json!({AUTOUPDATE: "false"}), 7, 2), true, "true", Some(1));
        check(present(json!({}), 1, 2), false, "true", Some(1));
        check(present(json!({}), 2, 2), false, "false", Some(2));
        check(present(Value::Null, 2, 2), false, "false", Some(2));
        check(present(json!({AUTOUPDATE: "perhaps"}), 1, 1), false, "true", Some(1));
    }
}
