//! The paths of a resource and what may be done there, as version 2 says it (`v3.rs` says the same in version 3):
//! what generated clients are made of, and what `kubectl` looks for to know whether the server validates fields itself.

use serde_json::{Map, Value, json};

use super::operation::{ANY, Answer, CUSTOM, LOG, OBJECTS, Operation, WATCHED};
use super::{OpenApiResource, OpenApiSubresource, names, parameters};
use crate::schema::Gvk;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const CUSTOM_PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
const OVER_HTTP: &[&str] = &["delete", "get", "head", "options", "patch", "post", "put"];

pub(super) struct Paths<'a> {
    pub(super) resource: &'a OpenApiResource,
    /// OpenAPI names of the kind and its list.
    pub(super) model: &'a str,
    pub(super) list_model: &'a str,
}

/// What an operation is about: a kind in a form, below a path.
#[derive(Clone, Copy)]
struct About<'a> {
    kind: &'a Gvk,
    model: &'a str,
    /// The subresource, if it is one.
    sub: &'a str,
}

impl Paths<'_> {
    pub(super) fn add_to(&self, paths: &mut Map<String, Value>) {
        let r = self.resource;
        let root = format!("/{}", super::group_version_path(&r.kind.group, &r.kind.version));
        let within = if r.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{root}{within}/{}", r.plural);
        let item = format!("{collection}/{{name}}");
        let mut put = |path: String, item: Option<Value>| {
            item.into_iter().for_each(|item| drop(paths.insert(path.clone(), item)));
        };
        put(collection.clone(), self.collection());
        put(item.clone(), self.item());
        if r.namespaced && r.has("list") {
            put(format!("{root}/{}", r.plural), Some(self.everywhere("list", "")));
        }
        if r.has("watch") && r.schema.is_none() {
            let watched = format!("{root}/watch{within}/{}", r.plural);
            put(watched.clone(), Some(self.watched(&self.scope(), "List", "watchlist", false)));
            put(format!("{watched}/{{name}}"), Some(self.watched(&self.scope(), "", "watch", true)));
            if r.namespaced {
                put(format!("{root}/watch/{}", r.plural), Some(self.everywhere("watch", "List")));
            }
        }
        for sub in &r.subresources {
            if let Some(item) = self.subresource(sub) {
                put(format!("{collection}/{{name}}/{}", sub.name), Some(item));
            }
            if sub.name == "proxy" {
                let item = self.connection(sub, true);
                put(format!("{collection}/{{name}}/proxy/{{path}}"), Some(item));
            }
        }
    }

    /// `Namespaced`, for what lies in namespaces.
    fn scope(&self) -> String {
        if self.resource.namespaced { "Namespaced".to_owned() } else { String::new() }
    }

    fn own(&self) -> About<'_> {
        About { kind: &self.resource.kind, model: self.model, sub: "" }
    }

    /// Parameters of a whole path, in the order of names.
    fn path_parameters(&self, named: Option<&str>, keys: &[&str]) -> Value {
        let mut out: Vec<Value> = keys.iter().map(|key| parameters::written(key)).collect();
        out.extend(named.map(parameters::name_of));
        if self.resource.namespaced {
            out.push(parameters::written(parameters::NAMESPACE));
        }
        parameters::sorted(out).into()
    }

    fn collection(&self) -> Option<Value> {
        let r = self.resource;
        let mut keys = vec![parameters::PRETTY];
        if !r.has("list") {
            keys.extend(parameters::WRITE);
        }
        let mut out = Map::new();
        let listable = r.has("list");
        if r.has("create") {
            out.insert("post".into(), self.create(self.own(), !listable));
        }
        if listable && self.lists_by_operation() {
            out.insert("get".into(), self.list(&format!("{}{}", self.scope(), r.kind.kind), true));
        } else if listable {
            keys.extend(parameters::LIST);
            out.insert("get".into(), self.list(&format!("{}{}", self.scope(), r.kind.kind), false));
        }
        if r.has("deletecollection") {
            out.insert("delete".into(), self.delete_collection());
        }
        if out.is_empty() {
            return None;
        }
        out.insert("parameters".into(), self.path_parameters(None, &keys));
        Some(out.into())
    }

    /// Parameters that all operations of a path have are those of the path.
    fn lists_by_operation(&self) -> bool {
        self.resource.has("create") || self.resource.has("deletecollection")
    }

    /// All objects of all namespaces.
    fn everywhere(&self, verb: &str, end: &str) -> Value {
        let keys = [parameters::LIST, &[parameters::PRETTY]].concat();
        let operation = match verb {
            "list" => self.list(&format!("{}ForAllNamespaces", self.resource.kind.kind), false),
            _ => return self.watched("", &format!("{end}ForAllNamespaces"), "watchlist", false),
        };
        let written = keys.iter().map(|key| parameters::written(key)).collect();
        json!({"get": operation, "parameters": parameters::sorted(written)})
    }

    fn item(&self) -> Option<Value> {
        let r = self.resource;
        let own = self.own();
        let mut out = Map::new();
        if r.has("get") {
            out.insert("get".into(), self.read(own));
        }
        if r.has("update") {
            out.insert("put".into(), self.replace(own, true));
        }
        if r.has("patch") {
            out.insert("patch".into(), self.patch(own));
        }
        if r.has("delete") {
            out.insert("delete".into(), self.delete());
        }
        if out.is_empty() {
            return None;
        }
        out.insert("parameters".into(), self.path_parameters(Some(&r.kind.kind), &[parameters::PRETTY]));
        Some(out.into())
    }

    fn subresource(&self, sub: &OpenApiSubresource) -> Option<Value> {
        let has = |verb: &str| sub.verbs.iter().any(|v| v == verb);
        if matches!(sub.name.as_str(), "exec" | "attach" | "portforward" | "proxy") {
            return Some(self.connection(sub, false));
        }
        if sub.name == "log" {
            return Some(self.log(sub));
        }
        let custom = self.resource.schema.is_some();
        let model = super::models::model_of(&sub.kind).unwrap_or(self.model);
        let about = About {
            // Custom resources say that it is of their own kind, whatever it is.
            kind: if custom { &self.resource.kind } else { &sub.kind },
            model: if sub.kind == self.resource.kind { self.model } else { model },
            sub: &sub.name,
        };
        let mut keys = vec![parameters::PRETTY];
        let mut out = Map::new();
        let alone = !has("get");
        if has("get") {
            out.insert("get".into(), self.read(about));
        }
        if has("update") {
            out.insert("put".into(), self.replace(about, !alone));
        }
        if has("patch") {
            out.insert("patch".into(), self.patch(about));
        }
        if has("create") {
            out.insert("post".into(), self.create(about, alone));
        }
        if alone {
            keys.extend(parameters::WRITE);
        }
        out.insert("parameters".into(), self.path_parameters(Some(&about.kind.kind), &keys));
        Some(out.into())
    }

    fn operation<'b>(&'b self, about: About<'b>, verb: &str, action: &'b str, rest: &str) -> Operation<'b> {
        let kind = &self.resource.kind;
        let custom = self.resource.schema.is_some();
        Operation {
            action,
            kind: Some(about.kind),
            id: names::operation(verb, kind, rest),
            description: String::new(),
            tag: names::tag(&kind.group, &kind.version),
            consumes: if custom { CUSTOM } else { ANY },
            produces: if custom { CUSTOM } else { OBJECTS },
            parameters: Vec::new(),
            answer: Answer::Model(about.model),
            codes: &[200],
        }
    }

    /// `NamespacedPodStatus`.
    fn rest(&self, about: About<'_>) -> String {
        format!("{}{}{}", self.scope(), self.resource.kind.kind, names::title(about.sub))
    }

    /// `status of `, of a subresource.
    fn of(about: About<'_>) -> String {
        if about.sub.is_empty() { String::new() } else { format!("{} of ", about.sub) }
    }

    fn read(&self, about: About<'_>) -> Value {
        let custom = self.resource.schema.is_some();
        Operation {
            description: format!("read {}the specified {}", Self::of(about), self.resource.kind.kind),
            parameters: if custom { keyed(&["resourceVersion-5WAnf1kx"]) } else { Vec::new() },
            ..self.operation(about, "read", "get", &self.rest(about))
        }
        .write()
    }

    fn replace(&self, about: About<'_>, with_options: bool) -> Value {
        let options = if with_options { parameters::WRITE } else { &[] };
        Operation {
            description: format!("replace {}the specified {}", Self::of(about), self.resource.kind.kind),
            parameters: with_body(about.model, options),
            codes: &[200, 201],
            ..self.operation(about, "replace", "put", &self.rest(about))
        }
        .write()
    }

    fn patch(&self, about: About<'_>) -> Value {
        let custom = self.resource.schema.is_some();
        Operation {
            description: format!(
                "partially update {}the specified {}",
                Self::of(about),
                self.resource.kind.kind
            ),
            consumes: if custom { CUSTOM_PATCHES } else { PATCHES },
            parameters: keyed(parameters::PATCH),
            codes: if custom { &[200] } else { &[200, 201] },
            ..self.operation(about, "patch", "patch", &self.rest(about))
        }
        .write()
    }

    /// `alone` where what it takes is what the whole path takes.
    fn create(&self, about: About<'_>, alone: bool) -> Value {
        let options = if alone { &[] } else { parameters::WRITE };
        let noun = names::with_article(&self.resource.kind.kind);
        Operation {
            description: format!("create {}{noun}", Self::of(about)),
            parameters: with_body(about.model, options),
            codes: &[200, 201, 202],
            ..self.operation(about, "create", "post", &self.rest(about))
        }
        .write()
    }

    fn delete(&self) -> Value {
        let status = format!("{META}.Status");
        let about =
            About { model: if self.resource.answers_deleted { self.model } else { &status }, ..self.own() };
        Operation {
            description: format!("delete {}", names::with_article(&self.resource.kind.kind)),
            parameters: keyed(parameters::DELETE),
            codes: &[200, 202],
            ..self.operation(about, "delete", "delete", &self.rest(about))
        }
        .write()
    }

    fn delete_collection(&self) -> Value {
        let status = format!("{META}.Status");
        let about = About { model: &status, ..self.own() };
        let custom = self.resource.schema.is_some();
        let rest = format!("Collection{}", self.rest(about));
        Operation {
            description: format!("delete collection of {}", self.resource.kind.kind),
            parameters: keyed(if custom { parameters::LIST } else { parameters::DELETE_COLLECTION }),
            ..self.operation(about, "delete", "deletecollection", &rest)
        }
        .write()
    }

    fn list(&self, rest: &str, with_options: bool) -> Value {
        let custom = self.resource.schema.is_some();
        let about = About { model: self.list_model, ..self.own() };
        let watched = !custom && self.resource.has("watch");
        let what = if watched { "list or watch" } else { "list" };
        let operation = self.operation(about, "list", "list", rest);
        Operation {
            description: format!("{what} objects of kind {}", self.resource.kind.kind),
            produces: if custom { operation.produces } else { WATCHED },
            parameters: if with_options { keyed(parameters::LIST) } else { Vec::new() },
            ..operation
        }
        .write()
    }

    /// A path of the old way to watch.
    fn watched(&self, scope: &str, end: &str, action: &str, one: bool) -> Value {
        let kind = &self.resource.kind.kind;
        let event = format!("{META}.WatchEvent");
        let about = About { model: &event, ..self.own() };
        let instead = "deprecated: use the 'watch' parameter with a list operation instead";
        let operation = Operation {
            description: match one {
                true => format!(
                    "watch changes to an object of kind {kind}. {instead}, filtered to a single item with the \
                     'fieldSelector' parameter."
                ),
                false => format!("watch individual changes to a list of {kind}. {instead}."),
            },
            produces: WATCHED,
            ..self.operation(about, "watch", action, &format!("{scope}{kind}{end}"))
        };
        let keys = [parameters::LIST, &[parameters::PRETTY]].concat();
        let all = end.ends_with("ForAllNamespaces");
        let parameters = match all {
            true => parameters::sorted(keyed(&keys)).into(),
            false => self.path_parameters(one.then_some(&**kind), &keys),
        };
        json!({"get": operation.write(), "parameters": parameters})
    }

    fn log(&self, sub: &OpenApiSubresource) -> Value {
        let about = About { sub: "log", ..self.own() };
        let operation = Operation {
            description: format!("read log of the specified {}", self.resource.kind.kind),
            produces: LOG,
            answer: Answer::Text,
            ..self.operation(about, "read", "get", &self.rest(about))
        };
        let keys = parameters::of_connection(&sub.name);
        let parameters = self.path_parameters(Some(&self.resource.kind.kind), keys);
        json!({"get": operation.write(), "parameters": parameters})
    }

    /// What is passed on to a pod, a service or a node, by every method that it is open to.
    fn connection(&self, sub: &OpenApiSubresource, with_path: bool) -> Value {
        let about = About { kind: &sub.kind, model: "", sub: &sub.name };
        let methods = if sub.name == "proxy" { OVER_HTTP } else { &["get", "post"] };
        let mut out = Map::new();
        for method in methods {
            let end = if with_path { "WithPath" } else { "" };
            let rest = format!("{}{}{end}", names::title(method), self.rest(about));
            let operation = self.operation(about, "connect", "connect", &rest);
            let description = format!(
                "connect {} requests to {} of {}",
                method.to_uppercase(),
                sub.name,
                self.resource.kind.kind
            );
            let operation = Operation { description, produces: ANY, answer: Answer::Text, ..operation };
            // The method stands behind the group and version in the name.
            out.insert((*method).to_owned(), operation.write());
        }
        let mut keys = parameters::of_connection(&sub.kind.kind).to_vec();
        keys.extend(with_path.then_some(parameters::PATH));
        out.insert("parameters".into(), self.path_parameters(Some(&sub.kind.kind), &keys));
        out.into()
    }
}

fn keyed(keys: &[&str]) -> Vec<Value> {
    keys.iter().map(|key| parameters::written(key)).collect()
}

fn with_body(model: &str, keys: &[&str]) -> Vec<Value> {
    let mut out = vec![parameters::body(model)];
    out.extend(keyed(keys));
    out
}
