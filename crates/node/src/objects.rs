//! ConfigMaps and Secrets a pod names: what they are, fetching them, and looking into them in the kubelet's words.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Volume};

/// The worded failures end up in a pod's status, so they are spelled as the original spells them.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ObjectError {
    #[error("{kind} {name:?} not found")]
    NotFound { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key { kind: &'static str, namespace: String, name: String, key: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    ConfigMap,
    Secret,
}

/// One object of the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub kind: ObjectKind,
    pub name: String,
}

/// What was found when last asked. A name that was not asked for is not found.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    namespace: String,
    config_maps: BTreeMap<String, ConfigMap>,
    secrets: BTreeMap<String, Secret>,
}

type Pairs = Vec<(String, String)>;

impl Objects {
    pub fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    pub fn add_config_map(&mut self, name: &str, found: Option<ConfigMap>) {
        self.config_maps.extend(found.map(|object| (name.to_owned(), object)));
    }

    pub fn add_secret(&mut self, name: &str, found: Option<Secret>) {
        self.secrets.extend(found.map(|object| (name.to_owned(), object)));
    }

    pub fn config_map(&self, name: &str) -> Result<&ConfigMap, ObjectError> {
        let missing = || ObjectError::NotFound { kind: "configmap", name: name.to_owned() };
        self.config_maps.get(name).ok_or_else(missing)
    }

    pub fn secret(&self, name: &str) -> Result<&Secret, ObjectError> {
        let missing = || ObjectError::NotFound { kind: "secret", name: name.to_owned() };
        self.secrets.get(name).ok_or_else(missing)
    }

    pub fn config_map_pairs(&self, name: &str, optional: bool) -> Result<Pairs, ObjectError> {
        match self.config_map(name) {
            Ok(map) => Ok(map.data.clone().into_iter().flatten().collect()),
            Err(_) if optional => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    pub fn secret_pairs(&self, name: &str, optional: bool) -> Result<Pairs, ObjectError> {
        match self.secret(name) {
            Ok(secret) => Ok(secret
                .data
                .iter()
                .flatten()
                .map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned()))
                .collect()),
            Err(_) if optional => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    pub fn config_map_key(
        &self,
        name: &str,
        key: &str,
        optional: bool,
    ) -> Result<Option<String>, ObjectError> {
        let found =
            self.config_map(name).map(|map| map.data.as_ref().and_then(|data| data.get(key)).cloned());
        self.key("ConfigMap", name, key, optional, found)
    }

    pub fn secret_key(&self, name: &str, key: &str, optional: bool) -> Result<Option<String>, ObjectError> {
        let text = |secret: &Secret| {
            let value = secret.data.as_ref()?.get(key)?;
            Some(String::from_utf8_lossy(&value.0).into_owned())
        };
        self.key("Secret", name, key, optional, self.secret(name).map(text))
    }

    fn key(
        &self,
        kind: &'static str,
        name: &str,
        key: &str,
        optional: bool,
        found: Result<Option<String>, ObjectError>,
    ) -> Result<Option<String>, ObjectError> {
        match found {
            Ok(Some(value)) => Ok(Some(value)),
            _ if optional => Ok(None),
            Ok(None) => Err(ObjectError::Key {
                kind,
                namespace: self.namespace.clone(),
                name: name.to_owned(),
                key: key.to_owned(),
            }),
            Err(error) => Err(error),
        }
    }
}

/// Every ConfigMap and Secret the pod's containers and volumes name, and its pull secrets.
pub fn references(pod: &Pod) -> BTreeSet<ObjectName> {
    let mut all = BTreeSet::new();
    let Some(spec) = &pod.spec else { return all };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.for_each(|container| container_references(container, &mut all));
    volume_references(spec.volumes.as_deref().unwrap_or_default(), &mut all);
    all.extend(
        spec.image_pull_secrets.iter().flatten().map(|secret| named(ObjectKind::Secret, &secret.name)),
    );
    all
}

fn named(kind: ObjectKind, name: &str) -> ObjectName {
    ObjectName { kind, name: name.to_owned() }
}

fn container_references(container: &Container, all: &mut BTreeSet<ObjectName>) {
    use ObjectKind::{ConfigMap, Secret};
    for source in container.env_from.iter().flatten() {
        all.extend(source.config_map_ref.iter().map(|r| named(ConfigMap, &r.name)));
        all.extend(source.secret_ref.iter().map(|r| named(Secret, &r.name)));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        all.extend(source.config_map_key_ref.iter().map(|r| named(ConfigMap, &r.name)));
        all.extend(source.secret_key_ref.iter().map(|r| named(Secret, &r.name)));
    }
}

/// The objects whose changes concern a living pod: its volumes follow them, and a container that cannot be started for
/// want of one can be once it is there.
pub fn watched(pod: &Pod) -> BTreeSet<ObjectName> {
    references(pod)
}

fn volume_references(volumes: &[Volume], all: &mut BTreeSet<ObjectName>) {
    use ObjectKind::{ConfigMap, Secret};
    for volume in volumes {
        all.extend(volume.config_map.iter().map(|source| named(ConfigMap, &source.name)));
        all.extend(volume.secret.iter().filter_map(|s| s.secret_name.as_deref()).map(|n| named(Secret, n)));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            all.extend(source.config_map.iter().map(|s| named(ConfigMap, &s.name)));
            all.extend(source.secret.iter().map(|s| named(Secret, &s.name)));
        }
    }
}
