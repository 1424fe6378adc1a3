//! The parameters of operations. Those that many operations have are written once in the version 2 document, under the
//! names that the original gives them (clients that generate code call types by these); `parameters.tsv` holds them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// Key, name, place, type and description (as JSON) of each. What has no hash in its key is written out wherever it is.
static TABLE: &str = include_str!("parameters.tsv");

static ALL: LazyLock<BTreeMap<&'static str, Value>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let mut cells = line.splitn(5, '\t');
        let mut cell = || cells.next().unwrap_or_default();
        let (key, name, place, kind, text) = (cell(), cell(), cell(), cell(), cell());
        let text: Value = serde_json::from_str(text).unwrap_or_default();
        let mut parameter =
            json!({"name": name, "in": place, "type": kind, "description": text, "uniqueItems": true});
        if place == "path" {
            parameter["required"] = true.into();
        }
        (key, parameter)
    };
    TABLE.lines().map(row).collect()
});

pub(super) const LIST: &[&str] = &[
    "allowWatchBookmarks-HC2hJt-J",
    "continue-QfD61s0i",
    "fieldSelector-xIcQKXFG",
    "labelSelector-5Zw57w4C",
    "limit-1NfNmdNH",
    "resourceVersion-5WAnf1kx",
    "resourceVersionMatch-t8XhRHeC",
    "sendInitialEvents-rLXlEK_k",
    "shardSelector-Kgyki_3_",
    "timeoutSeconds-yvYezaOC",
    "watch-XNNPZGbK",
];

pub(super) const DELETE_COLLECTION: &[&str] = &[
    DELETE_OPTIONS,
    "continue-QfD61s0i",
    "dryRun",
    "fieldSelector-xIcQKXFG",
    "gracePeriodSeconds--K5HaBOS",
    "ignoreStoreReadErrorWithClusterBreakingPotential-QbNkfIqj",
    "labelSelector-5Zw57w4C",
    "limit-1NfNmdNH",
    "orphanDependents-uRB25kX5",
    "propagationPolicy-6jk3prlO",
    "resourceVersion-5WAnf1kx",
    "resourceVersionMatch-t8XhRHeC",
    "sendInitialEvents-rLXlEK_k",
    "shardSelector-Kgyki_3_",
    "timeoutSeconds-yvYezaOC",
];

pub(super) const DELETE: &[&str] = &[
    DELETE_OPTIONS,
    "dryRun",
    "gracePeriodSeconds--K5HaBOS",
    "ignoreStoreReadErrorWithClusterBreakingPotential-QbNkfIqj",
    "orphanDependents-uRB25kX5",
    "propagationPolicy-6jk3prlO",
];

pub(super) const PATCH: &[&str] =
    &[PATCH_BODY, "dryRun", "fieldManager-7c6nTn1T", "fieldValidation", "force-tOGGb0Yi"];

pub(super) const WRITE: &[&str] = &["dryRun", "fieldManager-Qy4HdaTW", "fieldValidation"];

pub(super) const NAMESPACE: &str = "namespace-vgWSWtn3";
pub(super) const PATH: &str = "path-z6Ciiujn";
pub(super) const PRETTY: &str = "pretty-tJGM1-ng";
const DELETE_OPTIONS: &str = "body-2Y1dVQaQ";
const PATCH_BODY: &str = "body-78PwaGsr";

/// What a connection to something takes, by the kind of its options (or the subresource's name, where there is none).
pub(super) fn of_connection(options: &str) -> &'static [&'static str] {
    match options {
        "PodAttachOptions" => {
            &["container-_Q-EJ3nR", "stderr-26jJhFUR", "stdin-sEFnN3IS", "stdout-005YMKE6", "tty-g7MlET_l"]
        }
        "PodExecOptions" => &[
            "command-Py3eQybp",
            "container-i5dOmRiM",
            "stderr-W_1TNlWc",
            "stdin-PSzNhyUC",
            "stdout--EZLRwV1",
            "tty-s0flW37O",
        ],
        "PodPortForwardOptions" => &["ports-91KROJmm"],
        "NodeProxyOptions" => &["path-rFDtV0x9"],
        "PodProxyOptions" => &["path-oPbzgLUj"],
        "ServiceProxyOptions" => &["path-QCf0eosM"],
        "log" => &[
            "container-1GeXxFDC",
            "follow-9OIXh_2R",
            "insecureSkipTLSVerifyBackend-gM00jVbe",
            "limitBytes-zwd1RXuc",
            PRETTY,
            "previous-1jxDPu3y",
            "sinceSeconds-vE2NLdnP",
            "stream-l-48cgXv",
            "tailLines-9xQLWHMV",
            "timestamps-c17fW1w_",
        ],
        _ => &[],
    }
}

/// The parameter itself.
fn whole(key: &str) -> Value {
    const META: &str = "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1";
    match key {
        DELETE_OPTIONS => {
            json!({"name": "body", "in": "body", "schema": {"$ref": format!("{META}.DeleteOptions")}})
        }
        PATCH_BODY => {
            json!({"name": "body", "in": "body", "required": true, "schema": {"$ref": format!("{META}.Patch")}})
        }
        key => ALL.get(key).cloned().unwrap_or_default(),
    }
}

/// A parameter as an operation of the version 2 document has it.
pub(super) fn written(key: &str) -> Value {
    match key.contains('-') {
        true => json!({"$ref": format!("{SHARED}{key}")}),
        false => whole(key),
    }
}

const SHARED: &str = "#/parameters/";

/// What is referred to, or the parameter itself.
pub(super) fn resolved(parameter: &Value) -> Value {
    let key = parameter.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(SHARED));
    key.map_or_else(|| parameter.clone(), whole)
}

/// The object's own name.
pub(super) fn name_of(kind: &str) -> Value {
    json!({"name": "name", "in": "path", "type": "string", "required": true, "uniqueItems": true,
        "description": format!("name of the {kind}")})
}

/// An object as a body.
pub(super) fn body(model: &str) -> Value {
    json!({"name": "body", "in": "body", "required": true, "schema": {"$ref": format!("#/definitions/{model}")}})
}

/// Puts parameters in the order of the documents: by name, and those of paths before those of queries.
pub(super) fn sorted(mut parameters: Vec<Value>) -> Vec<Value> {
    parameters.sort_by_cached_key(|parameter| {
        let parameter = resolved(parameter);
        let text = |key: &str| parameter[key].as_str().unwrap_or_default().to_owned();
        (text("name"), text("in"))
    });
    parameters
}

/// All parameters that the paths of a version 2 document refer to.
pub(super) fn shared_by(paths: &Map<String, Value>) -> Map<String, Value> {
    let operations = |item: &Value| -> Vec<Value> {
        let parts = item.as_object().into_iter().flatten();
        let lists = parts.filter_map(|(name, part)| match name.as_str() {
            "parameters" => part.as_array(),
            _ => part["parameters"].as_array(),
        });
        lists.flatten().cloned().collect()
    };
    let mut out = Map::new();
    for parameter in paths.values().flat_map(operations) {
        let key = parameter.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(SHARED));
        if let Some(key) = key.filter(|key| !out.contains_key(*key)) {
            out.insert(key.to_owned(), whole(key));
        }
    }
    out
}
