//! An object on its way through the build, with what its name and namespace once were: references are made to those.

use serde_json::Value;

use super::BuildError;

#[derive(Clone, Debug)]
pub struct Object {
    pub value: Value,
    /// Every name and namespace it has had, oldest first, without the present ones.
    pub former: Vec<(String, String)>,
    /// A hash of its content goes behind its name.
    pub needs_hash: bool,
    /// The file it was read from; empty for what is generated.
    pub origin: String,
}

impl Object {
    pub fn new(value: Value) -> Self {
        Self { value, former: Vec::new(), needs_hash: false, origin: String::new() }
    }

    fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    pub fn group(&self) -> &str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    pub fn version(&self) -> &str {
        self.api_version().split_once('/').map_or(self.api_version(), |(_, version)| version)
    }

    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// Whether this is, or was, the object of that name. Without a namespace only the name counts.
    pub fn is_known_as(&self, name: &str, namespace: Option<&str>) -> bool {
        let here = |n: &str, ns: &str| {
            n == name && namespace.is_none_or(|wanted| ns == wanted || ns.is_empty() || wanted.is_empty())
        };
        here(self.name(), self.namespace()) || self.former.iter().any(|(n, ns)| here(n, ns))
    }

    pub fn rename(&mut self, name: String) {
        if name != self.name() {
            self.former.push((self.name().to_owned(), self.namespace().to_owned()));
            self.value["metadata"]["name"] = name.into();
        }
    }

    pub fn move_to(&mut self, namespace: &str) {
        if namespace != self.namespace() {
            self.former.push((self.name().to_owned(), self.namespace().to_owned()));
            self.value["metadata"]["namespace"] = namespace.into();
        }
    }

    pub fn label(&self) -> String {
        let place = match self.namespace() {
            "" => String::new(),
            namespace => format!("{namespace}/"),
        };
        format!("{} {place}{}", self.kind(), self.name())
    }

    /// Kinds that are not namespaced, as far as they are known without asking a server.
    pub fn is_cluster_scoped(&self) -> bool {
        const CLUSTER: &[&str] = &[
            "Namespace",
            "Node",
            "PersistentVolume",
            "ClusterRole",
            "ClusterRoleBinding",
            "CustomResourceDefinition",
            "StorageClass",
            "PriorityClass",
            "IngressClass",
            "RuntimeClass",
            "CSIDriver",
            "CSINode",
            "VolumeAttachment",
            "APIService",
            "MutatingWebhookConfiguration",
            "ValidatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "CertificateSigningRequest",
            "FlowSchema",
            "PriorityLevelConfiguration",
        ];
        CLUSTER.contains(&self.kind())
    }
}

/// The objects of a manifest file; lists are taken apart.
pub fn parse(path: &str, bytes: &[u8]) -> Result<Vec<Object>, BuildError> {
    let text = std::str::from_utf8(bytes).map_err(|_| BuildError::Yaml {
        path: path.to_owned(),
        line: 1,
        message: "the file is not UTF-8 text".into(),
    })?;
    let yaml = |e: api::yaml::YamlError| BuildError::Yaml {
        path: path.to_owned(),
        line: e.line,
        message: e.message,
    };
    let mut objects = Vec::new();
    for document in api::yaml::parse_documents_strict(text).map_err(yaml)? {
        let is_list = document.value["kind"].as_str().is_some_and(|k| k.ends_with("List"))
            && document.value["items"].is_array();
        let items = match document.value {
            mut list if is_list => list["items"].as_array_mut().map(std::mem::take).unwrap_or_default(),
            value => vec![value],
        };
        for value in items {
            let index = objects.len() + 1;
            let object = Object { origin: path.to_owned(), ..Object::new(value) };
            let missing = |field| BuildError::NotAnObject { path: path.to_owned(), index, field };
            for (field, present) in [
                ("apiVersion", !object.api_version().is_empty()),
                ("kind", !object.kind().is_empty()),
                ("metadata.name", !object.name().is_empty()),
            ] {
                if !present {
                    return Err(missing(field));
                }
            }
            objects.push(object);
        }
    }
    Ok(objects)
}

pub fn add(objects: &mut Vec<Object>, object: Object, by: &str) -> Result<(), BuildError> {
    let same = |o: &Object| {
        (o.group(), o.kind(), o.name(), o.namespace())
            == (object.group(), object.kind(), object.name(), object.namespace())
    };
    if objects.iter().any(same) {
        return Err(BuildError::Duplicate { path: by.to_owned(), object: object.label() });
    }
    objects.push(object);
    Ok(())
}
