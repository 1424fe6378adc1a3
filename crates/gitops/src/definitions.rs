//! The CustomResourceDefinitions of the engine's own kinds, applied when it starts on a cluster that lacks them.

use serde_json::{Value, json};

use crate::types::{KUSTOMIZE_GROUP, SOURCE_GROUP};

pub fn all() -> [Value; 2] {
    [git_repository(), kustomization()]
}

fn definition(
    group: &str,
    kind: &str,
    plural: &str,
    short: &[&str],
    columns: Value,
    spec: Value,
    status: Value,
) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"), "labels": {"app.kubernetes.io/part-of": "kedge"}},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(), "shortNames": short},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                    "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
                    "spec": spec, "status": status,
                }}},
            }],
        },
    })
}

fn string(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn duration(description: &str) -> Value {
    json!({"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$", "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn reference(required: &[&str], fields: &[(&str, &str)]) -> Value {
    let properties: serde_json::Map<String, Value> =
        fields.iter().map(|(n, d)| ((*n).to_owned(), string(d))).collect();
    json!({"type": "object", "required": required, "properties": properties})
}

fn free(description: &str) -> Value {
    json!({"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": true})
}

fn text_map(description: &str) -> Value {
    json!({"type": "object", "description": description, "additionalProperties": {"type": "string"}})
}

fn ready_columns() -> Value {
    json!([
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Status", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message"},
    ])
}

fn git_repository() -> Value {
    let mut columns = ready_columns();
    if let Value::Array(columns) = &mut columns {
        columns.insert(0, json!({"name": "URL", "type": "string", "jsonPath": ".spec.url"}));
    }
    let spec = json!({"type": "object", "required": ["interval", "url"], "properties": {
        "url": {"type": "string", "minLength": 1, "description": "https://, http://, file:// or a path on the server's machine"},
        "interval": duration("how often to look for changes where none are noticed by themselves"),
        "timeout": duration("how long a fetch may take"),
        "suspend": flag("stops looking for changes"),
        "secretRef": reference(&["name"], &[("name", "Secret with username and password, bearerToken, ca.crt, or tls.crt and tls.key")]),
        "ref": {"type": "object", "properties": {
            "branch": string("branch to follow"), "tag": string("tag"), "semver": string("range of version tags"),
            "name": string("a whole reference"), "commit": string("one commit"),
        }},
    }});
    definition(
        SOURCE_GROUP,
        "GitRepository",
        "gitrepositories",
        &["gitrepo"],
        columns,
        spec,
        free("what was found"),
    )
}

fn kustomization() -> Value {
    let patches = json!({"type": "array", "items": {"type": "object", "required": ["patch"], "properties": {
        "patch": string("strategic merge or JSON 6902 patch"),
        "target": reference(&[], &[
            ("group", "API group"), ("version", "API version"), ("kind", "kind"), ("name", "name, a regular expression"),
            ("namespace", "namespace, a regular expression"), ("labelSelector", "labels"), ("annotationSelector", "annotations"),
        ]),
    }}});
    let images = json!({"type": "array", "items": reference(&["name"], &[
        ("name", "image as it is written"), ("newName", "its other name"), ("newTag", "its other tag"), ("digest", "its digest"),
    ])});
    let health = json!({"type": "array", "items": reference(&["kind", "name"], &[
        ("apiVersion", "API version"), ("kind", "kind"), ("name", "name"), ("namespace", "namespace"),
    ])});
    let spec = json!({"type": "object", "required": ["interval", "prune", "sourceRef"], "properties": {
        "interval": duration("how often to correct what has drifted"),
        "retryInterval": duration("how soon to try again after a failure"),
        "path": string("folder of the source"),
        "prune": flag("delete what is no longer in the source"),
        "sourceRef": {"type": "object", "required": ["kind", "name"], "properties": {
            "kind": {"type": "string", "enum": ["GitRepository"]}, "name": string("name"), "namespace": string("namespace")}},
        "targetNamespace": {"type": "string", "maxLength": 63, "minLength": 1, "description": "namespace for all objects"},
        "namePrefix": string("put before names"), "nameSuffix": string("put behind names"),
        "suspend": flag("leaves everything as it is"),
        "wait": flag("ready only when all objects are healthy"),
        "timeout": duration("how long health may take"),
        "force": flag("delete and make anew what may not be changed as wanted"),
        "serviceAccountName": string("not supported: refused"),
        "kubeConfig": free("not supported: refused"), "decryption": free("not supported: refused"),
        "dependsOn": {"type": "array", "items": reference(&["name"], &[("name", "Kustomization"), ("namespace", "namespace")])},
        "healthChecks": health, "patches": patches, "images": images,
        "postBuild": {"type": "object", "properties": {
            "substitute": text_map("values for ${variables}"),
            "substituteFrom": {"type": "array", "items": {"type": "object", "required": ["kind", "name"], "properties": {
                "kind": {"type": "string", "enum": ["ConfigMap", "Secret"]}, "name": string("name"), "optional": flag("may be absent")}}},
        }},
        "commonMetadata": {"type": "object", "properties": {"labels": text_map("labels"), "annotations": text_map("annotations")}},
    }});
    definition(
        KUSTOMIZE_GROUP,
        "Kustomization",
        "kustomizations",
        &["ks"],
        ready_columns(),
        spec,
        free("what was applied"),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definitions_compile() {
        for definition in super::all() {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            assert!(api::schema::from_crd(schema).is_ok(), "{}", definition["metadata"]["name"]);
        }
    }
}
