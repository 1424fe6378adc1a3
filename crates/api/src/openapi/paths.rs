//! The paths of a resource: what `kubectl` looks for to explain a kind and to know whether the server validates
//! fields itself.

use serde_json::{Map, Value, json};

use super::OpenApiResource;
use super::models::{Version, gvk};
use crate::schema::Gvk;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

pub(super) struct Paths<'a> {
    pub(super) version: Version,
    pub(super) resource: &'a OpenApiResource,
    /// OpenAPI names of the kind and its list.
    pub(super) model: &'a str,
    pub(super) list_model: &'a str,
}

/// One operation: its verb in the API's sense and how it is called over HTTP.
struct Operation<'a> {
    verb: &'a str,
    action: &'a str,
    kind: &'a Gvk,
    body: Option<&'a str>,
    response: &'a str,
    query: &'a [&'a str],
}

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];

impl Paths<'_> {
    pub(super) fn add_to(&self, paths: &mut Map<String, Value>) {
        let r = self.resource;
        let root = match &*r.kind.group {
            "" => format!("/api/{}", r.kind.version),
            group => format!("/apis/{group}/{}", r.kind.version),
        };
        let collection = match r.namespaced {
            true => format!("{root}/namespaces/{{namespace}}/{}", r.plural),
            false => format!("{root}/{}", r.plural),
        };
        let scoped: &[&str] = if r.namespaced { &["namespace"] } else { &[] };
        let named: &[&str] = if r.namespaced { &["name", "namespace"] } else { &["name"] };
        let status = format!("{META}.Status");
        let has = |verb: &str| r.verbs.iter().any(|own| own == verb);
        let list = Operation {
            verb: "get",
            action: "list",
            kind: &r.kind,
            body: None,
            response: self.list_model,
            query: LIST,
        };
        let mut item = self.path_item(named);
        let mut many = self.path_item(scoped);
        for (verb, action, body, response, query) in [
            ("get", "get", None, self.model, &[][..]),
            ("put", "update", Some(self.model), self.model, WRITE),
            ("patch", "patch", Some("Patch"), self.model, PATCH),
            ("delete", "delete", Some("DeleteOptions"), &status, DELETE),
        ] {
            if has(action) {
                self.operation(&mut item, &Operation { verb, action, kind: &r.kind, body, response, query });
            }
        }
        if has("list") {
            self.operation(&mut many, &list);
        }
        if has("create") {
            let create = Operation {
                verb: "post",
                action: "post",
                body: Some(self.model),
                response: self.model,
                query: WRITE,
                ..list
            };
            self.operation(&mut many, &create);
        }
        if has("deletecollection") {
            let query = [LIST, DELETE].concat();
            let all = Operation {
                verb: "delete",
                action: "deletecollection",
                body: Some("DeleteOptions"),
                response: &status,
                query: &query,
                ..list
            };
            self.operation(&mut many, &all);
        }
        if r.namespaced && has("list") {
            let mut everywhere = self.path_item(&[]);
            self.operation(&mut everywhere, &list);
            paths.insert(format!("{root}/{}", r.plural), everywhere.into());
        }
        paths.insert(collection.clone(), many.into());
        let item_path = format!("{collection}/{{name}}");
        paths.insert(item_path.clone(), item.into());
        for subresource in &r.subresources {
            let mut item = self.path_item(named);
            self.subresource(&mut item, subresource);
            paths.insert(format!("{item_path}/{subresource}"), item.into());
        }
    }

    fn subresource(&self, item: &mut Map<String, Value>, name: &str) {
        let scale = Gvk { group: "autoscaling".into(), version: "v1".into(), kind: "Scale".into() };
        let (kind, model) = match name {
            "scale" => (&scale, "io.k8s.api.autoscaling.v1.Scale"),
            _ => (&self.resource.kind, self.model),
        };
        if !matches!(name, "status" | "scale" | "ephemeralcontainers" | "resize" | "approval") {
            return;
        }
        let get = Operation { verb: "get", action: "get", kind, body: None, response: model, query: &[] };
        self.operation(item, &get);
        self.operation(
            item,
            &Operation { verb: "put", action: "put", body: Some(model), query: WRITE, ..get },
        );
        self.operation(
            item,
            &Operation { verb: "patch", action: "patch", body: Some("Patch"), query: PATCH, ..get },
        );
    }

    fn path_item(&self, names: &[&str]) -> Map<String, Value> {
        let mut parameters: Vec<Value> = names.iter().map(|name| self.parameter(name, "path")).collect();
        parameters.push(self.parameter("pretty", "query"));
        Map::from_iter([("parameters".to_owned(), Value::Array(parameters))])
    }

    fn parameter(&self, name: &str, place: &str) -> Value {
        let kind = match name {
            "allowWatchBookmarks"
            | "force"
            | "orphanDependents"
            | "sendInitialEvents"
            | "watch"
            | "ignoreStoreReadErrorWithClusterBreakingPotential" => "boolean",
            "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
            _ => "string",
        };
        let mut out = json!({"name": name, "in": place});
        match self.version {
            Version::V3 => out["schema"] = json!({"type": kind, "uniqueItems": true}),
            Version::V2 => {
                out["type"] = kind.into();
                out["uniqueItems"] = true.into();
            }
        }
        if place == "path" {
            out["required"] = true.into();
        }
        out
    }

    fn operation(&self, item: &mut Map<String, Value>, operation: &Operation<'_>) {
        let reference = |name: &str| match self.version {
            Version::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Version::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        };
        let media = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
        let patches = [
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ];
        let consumes: &[&str] = match operation.body {
            Some("Patch") => &patches,
            Some(_) => &["*/*"],
            None => &[],
        };
        let body = operation
            .body
            .map(|name| if name.contains('.') { name.to_owned() } else { format!("{META}.{name}") });
        let mut parameters: Vec<Value> =
            operation.query.iter().map(|name| self.parameter(name, "query")).collect();
        let content = |types: &[&str], schema: Value| {
            Value::Object(types.iter().map(|kind| ((*kind).to_owned(), json!({"schema": schema}))).collect())
        };
        let mut out = json!({"x-kubernetes-action": operation.action, "x-kubernetes-group-version-kind": gvk(operation.kind)});
        match self.version {
            Version::V3 => {
                if let Some(body) = &body {
                    out["requestBody"] = json!({"content": content(consumes, reference(body)), "required": operation.verb != "delete"});
                }
                out["responses"] = json!({
                    "200": {"description": "OK", "content": content(&media, reference(operation.response))},
                    "401": {"description": "Unauthorized"},
                });
            }
            Version::V2 => {
                out["produces"] = json!(media);
                out["consumes"] = json!(if consumes.is_empty() { &["*/*"][..] } else { consumes });
                out["schemes"] = json!(["https"]);
                if let Some(body) = &body {
                    parameters.push(json!({"name": "body", "in": "body", "required": operation.verb != "delete", "schema": reference(body)}));
                }
                out["responses"] = json!({
                    "200": {"description": "OK", "schema": reference(operation.response)},
                    "401": {"description": "Unauthorized"},
                });
            }
        }
        out["operationId"] =
            format!("{}{}{}{}", operation.action, self.operation_scope(), operation.kind.kind, item.len())
                .into();
        if !parameters.is_empty() {
            out["parameters"] = Value::Array(parameters);
        }
        item.insert(operation.verb.to_owned(), out);
    }

    /// `AppsV1Namespaced`, which with verb and kind makes an operation's name.
    fn operation_scope(&self) -> String {
        let kind = &self.resource.kind;
        let group = if kind.group.is_empty() { "core" } else { &*kind.group };
        let title = |text: &str| {
            text.split(['.', '-'])
                .map(|part| {
                    part.get(..1).unwrap_or_default().to_uppercase() + part.get(1..).unwrap_or_default()
                })
                .collect::<String>()
        };
        let scope = if self.resource.namespaced { "Namespaced" } else { "" };
        format!("{}{}{scope}", title(group), title(&kind.version))
    }
}
