//! OpenAPI documents: version 3 by group and version, version 2 for all. A document is made when it is first asked
//! for and kept as bytes; what it is made of decides its hash, so that the index needs no document.

mod custom;
mod descriptions;
mod fixed;
mod models;
mod names;
mod operation;
mod parameters;
mod paths;
pub mod protobuf;
mod stated;
mod v3;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value, json};

pub use crate::schema::Gvk;
use fixed::Fixed;
use models::{Models, Version};
use paths::Paths;

const TITLE: &str = "Kubernetes";
/// The original says no more of its version here.
const VERSION: &str = "1.36";

/// A resource as the documents need to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenApiResource {
    pub kind: Gvk,
    pub plural: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub subresources: Vec<OpenApiSubresource>,
    /// A deletion is answered with the object.
    pub answers_deleted: bool,
    /// A custom resource's `openAPIV3Schema`; `None` for built-in kinds.
    pub schema: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpenApiSubresource {
    pub name: String,
    /// What goes in and comes out.
    pub kind: Gvk,
    pub verbs: Vec<String>,
}

impl OpenApiResource {
    /// `group` is empty for the core group.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> Self {
        let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        Self {
            kind: Gvk { group: group.into(), version: version.into(), kind: kind.into() },
            plural: plural.to_owned(),
            namespaced,
            verbs: verbs.map(str::to_owned).to_vec(),
            subresources: Vec::new(),
            answers_deleted: false,
            schema: None,
        }
    }

    fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    fn hash_into(&self, hasher: &mut DefaultHasher) {
        (&self.kind, &self.plural, self.namespaced, &self.verbs, &self.subresources).hash(hasher);
        self.answers_deleted.hash(hasher);
        self.schema.as_ref().map(Value::to_string).hash(hasher);
    }
}

#[derive(Debug)]
struct Slot {
    part: Part,
    hash: String,
    document: OnceLock<Bytes>,
}

/// What a document is of.
#[derive(Debug)]
enum Part {
    Resources(Vec<OpenApiResource>),
    /// One path that is of no resource.
    Fixed(Fixed),
}

impl Part {
    fn document(&self) -> Value {
        match self {
            Self::Resources(resources) => v3_document(resources),
            Self::Fixed(fixed) => fixed_document(fixed),
        }
    }

    fn hash(&self) -> String {
        let halves = [0u8, 1].map(|half| {
            let mut hasher = DefaultHasher::new();
            (half, env!("CARGO_PKG_VERSION"), VERSION).hash(&mut hasher);
            match self {
                Self::Resources(resources) => resources.iter().for_each(|r| r.hash_into(&mut hasher)),
                Self::Fixed(fixed) => (&fixed.path, fixed.item.to_string()).hash(&mut hasher),
            }
            hasher.finish()
        });
        format!("{:016X}{:016X}", halves[0], halves[1])
    }
}

impl Slot {
    fn new(part: Part) -> Self {
        Self { hash: part.hash(), part, document: OnceLock::new() }
    }
}

/// A document and what identifies its content (for `?hash=` and `ETag`), whichever form it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub body: Bytes,
    pub hash: String,
}

/// All documents of one set of resources.
#[derive(Debug, Default)]
pub struct OpenApi {
    slots: BTreeMap<String, Arc<Slot>>,
    everything: Option<Arc<Slot>>,
}

/// `api/v1` or `apis/apps/v1`.
pub fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

impl OpenApi {
    /// Documents already made are taken over from `previous` where their resources are the same.
    pub fn new(resources: Vec<OpenApiResource>, previous: Option<&OpenApi>) -> Self {
        let mut by_version: BTreeMap<String, Vec<OpenApiResource>> = BTreeMap::new();
        for resource in &resources {
            let path = group_version_path(&resource.kind.group, &resource.kind.version);
            by_version.entry(path).or_default().push(resource.clone());
        }
        let keep = |slot: Slot, old: Option<&Arc<Slot>>| match old {
            Some(old) if old.hash == slot.hash => old.clone(),
            _ => Arc::new(slot),
        };
        let of_versions = by_version.into_iter().map(|(path, resources)| (path, Part::Resources(resources)));
        let of_others = fixed_parts(&resources).into_iter();
        let of_others = of_others.map(|fixed| (fixed.document.clone(), Part::Fixed(fixed)));
        let slots = of_versions
            .chain(of_others)
            .map(|(path, part)| {
                let old = previous.and_then(|previous| previous.slots.get(&path));
                let slot = keep(Slot::new(part), old);
                (path, slot)
            })
            .collect();
        let old = previous.and_then(|previous| previous.everything.as_ref());
        Self { slots, everything: Some(keep(Slot::new(Part::Resources(resources)), old)) }
    }

    /// The answer to `/openapi/v3`.
    pub fn index(&self) -> Value {
        let paths: Map<String, Value> = self
            .slots
            .iter()
            .map(|(path, slot)| {
                let url = format!("/openapi/v3/{path}?hash={}", slot.hash);
                (path.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        json!({"paths": paths})
    }

    /// The document of one group and version, by its path below `/openapi/v3/`.
    pub fn v3(&self, path: &str) -> Option<Document> {
        let slot = self.slots.get(path)?;
        let json = slot.document.get_or_init(|| write(&slot.part.document()));
        Some(Document { body: json.clone(), hash: slot.hash.clone() })
    }

    /// The answer to `/openapi/v2`, in JSON.
    pub fn v2(&self) -> Document {
        let Some(slot) = &self.everything else {
            return Document { body: Bytes::new(), hash: String::new() };
        };
        let json = slot.document.get_or_init(|| write(&v2_of(slot)));
        Document { body: json.clone(), hash: slot.hash.clone() }
    }
}

/// Documents in protobuf are made anew each time: their clients keep what they got.
impl OpenApi {
    /// What [`OpenApi::v3`] is in protobuf.
    pub fn v3_protobuf(&self, path: &str) -> Option<Document> {
        let slot = self.slots.get(path)?;
        let body = Bytes::from(protobuf::v3::encode(&slot.part.document()));
        Some(Document { body, hash: slot.hash.clone() })
    }

    /// What [`OpenApi::v2`] is in protobuf.
    pub fn v2_protobuf(&self) -> Document {
        let Some(slot) = &self.everything else { return self.v2() };
        let body = Bytes::from(protobuf::v2::encode(&v2_of(slot)));
        Document { body, hash: slot.hash.clone() }
    }
}

fn write(document: &Value) -> Bytes {
    Bytes::from(document.to_string())
}

/// Groups and versions of kinds that are built in, in the order of their resources.
fn own_versions(resources: &[OpenApiResource]) -> Vec<(&str, &str)> {
    let mut out = Vec::new();
    for resource in resources.iter().filter(|r| r.schema.is_none()) {
        let version = (&*resource.kind.group, &*resource.kind.version);
        if !out.contains(&version) {
            out.push(version);
        }
    }
    out
}

/// Paths that are of no resource, each a document of its own.
fn fixed_parts(resources: &[OpenApiResource]) -> Vec<Fixed> {
    let mut out = fixed::of_server();
    let mut groups: Vec<&str> = own_versions(resources).into_iter().map(|(group, _)| group).collect();
    groups.dedup();
    out.extend(groups.into_iter().filter(|group| !group.is_empty()).map(fixed::of_group));
    out
}

/// Paths of some resources, as version 2 says them, and the schemas of those that are custom.
fn content(models: &mut Models, resources: &[OpenApiResource]) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in resources {
        let list = Gvk { kind: format!("{}List", resource.kind.kind).into(), ..resource.kind.clone() };
        let (model, list_model) = match &resource.schema {
            Some(schema) => {
                models.add_custom(&resource.kind, &resource.plural, schema);
                (custom::name_of(&resource.kind), custom::name_of(&list))
            }
            None => {
                let Some(model) = models::model_of(&resource.kind) else { continue };
                let list_model = models::model_of(&list).unwrap_or(model);
                (model.to_owned(), list_model.to_owned())
            }
        };
        Paths { resource, model: &model, list_model: &list_model }.add_to(&mut paths);
    }
    for (group, version) in own_versions(resources) {
        let (path, item) = fixed::of_version(group, version);
        paths.insert(path, item);
    }
    paths
}

fn security() -> Value {
    json!({"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization",
        "in": "header"}})
}

fn v3_document(resources: &[OpenApiResource]) -> Value {
    let of = resources.first().map(|r| (&*r.kind.group, &*r.kind.version));
    let mut models = Models::new(Version::V3, of);
    let paths = content(&mut models, resources);
    models.add_referred(&paths);
    v3_written(&paths, models.schemas)
}

fn fixed_document(fixed: &Fixed) -> Value {
    let mut models = Models::new(Version::V3, Some(("", "v1")));
    let paths = Map::from_iter([(fixed.path.clone(), fixed.item.clone())]);
    models.add_referred(&paths);
    v3_written(&paths, models.schemas)
}

fn v3_written(paths: &Map<String, Value>, schemas: Map<String, Value>) -> Value {
    let paths: Map<String, Value> =
        paths.iter().map(|(path, item)| (path.clone(), v3::path_item(item))).collect();
    let mut components = json!({"securitySchemes": security()});
    if !schemas.is_empty() {
        components["schemas"] = schemas.into();
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": VERSION},
        "paths": paths,
        "components": components,
    })
}

fn v2_of(slot: &Slot) -> Value {
    match &slot.part {
        Part::Resources(resources) => v2_document(resources),
        Part::Fixed(_) => Value::Null,
    }
}

fn v2_document(resources: &[OpenApiResource]) -> Value {
    let mut models = Models::new(Version::V2, None);
    let mut paths = content(&mut models, resources);
    paths.extend(fixed_parts(resources).into_iter().map(|fixed| (fixed.path, fixed.item)));
    models.add_referred(&paths);
    json!({
        "swagger": "2.0",
        "info": {"title": TITLE, "version": VERSION},
        "parameters": parameters::shared_by(&paths),
        "paths": paths,
        "definitions": models.schemas,
        "securityDefinitions": security(),
        "security": [{"BearerToken": []}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> Vec<OpenApiResource> {
        let mut deployment = OpenApiResource::new("apps", "v1", "Deployment", "deployments", true);
        let verbs = || ["get", "patch", "update"].map(str::to_owned).to_vec();
        let scale = Gvk { group: "autoscaling".into(), version: "v1".into(), kind: "Scale".into() };
        let status =
            OpenApiSubresource { name: "status".into(), kind: deployment.kind.clone(), verbs: verbs() };
        deployment.subresources =
            vec![status, OpenApiSubresource { name: "scale".into(), kind: scale, verbs: verbs() }];
        let mut custom = OpenApiResource::new("stable.example.com", "v1", "CronTab", "crontabs", true);
        custom.schema =
            Some(json!({"type": "object", "description": "a tab", "properties": {"spec": {"type": "object",
            "properties": {"n": {"type": "integer", "nullable": true, "anyOf": [{"minimum": 1}]}}}}}));
        vec![
            OpenApiResource::new("", "v1", "Pod", "pods", true),
            OpenApiResource::new("", "v1", "Node", "nodes", false),
            deployment,
            custom,
        ]
    }

    fn parsed(document: &Document) -> Value {
        serde_json::from_slice(&document.body).unwrap()
    }

    /// Every reference points to a schema in the same document.
    fn check_references(document: &Value, at: &Value) {
        match at {
            Value::Object(map) => {
                if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some_and(Value::is_object), "{reference}");
                }
                map.values().for_each(|inner| check_references(document, inner));
            }
            Value::Array(items) => items.iter().for_each(|inner| check_references(document, inner)),
            _ => {}
        }
    }

    #[test]
    fn documents_are_closed() {
        let api = OpenApi::new(resources(), None);
        for path in ["api/v1", "apis/apps/v1", "apis/stable.example.com/v1"] {
            let document = parsed(&api.v3(path).unwrap());
            check_references(&document, &document);
        }
        let document = parsed(&api.v2());
        check_references(&document, &document);
        assert!(api.v3("apis/none/v1").is_none());
    }

    #[test]
    fn what_kubectl_looks_for() {
        let document = parsed(&OpenApi::new(resources(), None).v3("apis/apps/v1").unwrap());
        let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
        let patch = &document["paths"][path]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        assert!(
            patch["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
        );
        assert!(document["paths"][format!("{path}/status")]["patch"].is_object());
        assert_eq!(
            document["paths"][format!("{path}/scale")]["get"]["x-kubernetes-group-version-kind"]["kind"],
            "Scale"
        );
        let schemas = &document["components"]["schemas"];
        let pod = &schemas["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(pod["required"], json!(["containers"]));
        let containers = &pod["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-type"], "map");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert!(
            containers["description"]
                .as_str()
                .unwrap()
                .starts_with("List of containers belonging to the pod.")
        );
        let reference = &containers["items"]["$ref"];
        assert_eq!(reference, "#/components/schemas/io.k8s.api.core.v1.Container");
        assert_eq!(
            schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
        );
        assert_eq!(schemas["io.k8s.api.core.v1.LabelSelector"], Value::Null);
        let selector = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"];
        assert_eq!(selector["x-kubernetes-map-type"], "atomic");
        assert_eq!(schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]["oneOf"][0]["type"], "string");
    }

    #[test]
    fn custom_resources() {
        let api = OpenApi::new(resources(), None);
        let document = parsed(&api.v3("apis/stable.example.com/v1").unwrap());
        let schema = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
        assert_eq!(schema["description"], "a tab");
        assert_eq!(schema["properties"]["spec"]["properties"]["n"]["nullable"], true);
        assert_eq!(
            schema["properties"]["metadata"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        assert!(document["components"]["schemas"]["com.example.stable.v1.CronTabList"].is_object());
        let old = parsed(&api.v2());
        assert!(
            old["definitions"]["com.example.stable.v1.CronTab"]["properties"]["spec"]["properties"]["n"]
                .get("anyOf")
                .is_none()
        );
    }

    #[test]
    fn documents_are_kept_while_their_resources_are_the_same() {
        let first = OpenApi::new(resources(), None);
        let (apps, custom) =
            (first.v3("apis/apps/v1").unwrap(), first.v3("apis/stable.example.com/v1").unwrap());
        let mut changed = resources();
        changed[3].schema = None;
        let second = OpenApi::new(changed, Some(&first));
        assert_eq!(second.v3("apis/apps/v1").unwrap().body.as_ptr(), apps.body.as_ptr());
        assert_ne!(second.v3("apis/stable.example.com/v1").unwrap().hash, custom.hash);
        let index = first.index();
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
        assert_eq!(url, format!("/openapi/v3/apis/apps/v1?hash={}", apps.hash));
    }

    /// What every kind of the table says about itself is a document without loose ends.
    #[test]
    fn every_builtin_kind() {
        let mut models = Models::new(Version::V3, None);
        let names: Vec<_> =
            crate::schema::builtin().kinds().map(|(_, message)| message.name.clone()).collect();
        assert!(names.iter().all(|name| models.add(name)));
        let document = json!({"components": {"schemas": models.schemas}});
        check_references(&document, &document);
        let described = document["components"]["schemas"]["io.k8s.api.core.v1.Pod"]["description"].as_str();
        assert!(described.is_some());
    }
}
