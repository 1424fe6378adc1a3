//! The kinds that are served now: the built-in table and an entry for each served version of each
//! CustomResourceDefinition. Readers take a snapshot; a change replaces it whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::kinds::{self, Kind, definitions};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionSpec,
};
use parking_lot::{Mutex, RwLock};

use crate::conversion::Converter;

#[derive(Default)]
pub struct Catalog {
    current: RwLock<Arc<Kinds>>,
    /// What each definition came to, by its name. Compiling is what costs: it is done anew for what has changed only.
    definitions: Mutex<BTreeMap<String, Arc<Defined>>>,
}

/// All kinds at some moment.
#[derive(Default)]
pub struct Kinds {
    by_path: HashMap<(String, String, String), Arc<Kind>>,
    /// In the order of discovery.
    all: Vec<Arc<Kind>>,
    converters: HashMap<(String, String), Arc<Converter>>,
    /// Changes with every change of the definitions.
    pub generation: u64,
}

/// What a definition came to.
struct Defined {
    spec: CustomResourceDefinitionSpec,
    is_served: bool,
    entries: Vec<Arc<Kind>>,
    converter: Option<Arc<Converter>>,
}

impl Kinds {
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    pub fn all(&self) -> &[Arc<Kind>] {
        &self.all
    }

    /// By kind, preferring the first version in discovery order.
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.all.iter().find(|k| k.group == group && k.kind == kind)
    }

    /// By resource, in the first version in discovery order.
    pub fn of_resource(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.all.iter().find(|k| k.group == group && k.plural == plural)
    }

    /// Groups in order, each with its versions in order.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for kind in &self.all {
            let at = match groups.iter().position(|(group, _)| *group == kind.group) {
                Some(at) => at,
                None => {
                    groups.push((kind.group.to_string(), Vec::new()));
                    groups.len() - 1
                }
            };
            if !groups[at].1.iter().any(|v| *v == kind.version) {
                groups[at].1.push(kind.version.to_string());
            }
        }
        groups
    }

    /// What turns one version of a custom resource into another, where that is more than a name.
    pub fn converter(&self, group: &str, plural: &str) -> Option<Arc<Converter>> {
        if self.converters.is_empty() {
            return None;
        }
        self.converters.get(&(group.to_owned(), plural.to_owned())).cloned()
    }

    /// The other versions of a resource: their objects are the same.
    pub fn equivalents(&self, kind: &Kind) -> Vec<Arc<Kind>> {
        let same = |other: &&Arc<Kind>| {
            !kind.is_virtual()
                && other.storage == kind.storage
                && (&other.group, &other.version) != (&kind.group, &kind.version)
        };
        self.all.iter().filter(same).cloned().collect()
    }

    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Kind>> {
        self.all.iter().filter(move |k| k.group == group && k.version == version)
    }
}

impl Catalog {
    pub fn snapshot(&self) -> Arc<Kinds> {
        Arc::clone(&self.current.read())
    }

    /// Rebuilds the table from the definitions that exist.
    pub fn rebuild(&self, definitions: &[CustomResourceDefinition]) {
        let mut held = self.definitions.lock();
        let before = std::mem::take(&mut *held);
        for definition in definitions {
            let name = definition.metadata.name.clone().unwrap_or_default();
            let defined = match before.get(&name).filter(|d| d.is_of(definition)) {
                Some(same) => Arc::clone(same),
                None => Arc::new(Defined::new(definition)),
            };
            held.insert(name, defined);
        }
        self.publish(&held);
    }

    /// Takes one definition as it is now; `None` when there is none of that name any more.
    pub fn update(&self, name: &str, definition: Option<&CustomResourceDefinition>) {
        let mut held = self.definitions.lock();
        match definition {
            Some(definition) if held.get(name).is_some_and(|d| d.is_of(definition)) => return,
            Some(definition) => drop(held.insert(name.to_owned(), Arc::new(Defined::new(definition)))),
            None if held.remove(name).is_none() => return,
            None => {}
        }
        self.publish(&held);
    }

    fn publish(&self, definitions: &BTreeMap<String, Arc<Defined>>) {
        let mut all: Vec<Arc<Kind>> = kinds::builtin().to_vec();
        all.extend(definitions.values().flat_map(|d| d.entries.iter().cloned()));
        let key = |k: &Arc<Kind>| (k.group.to_string(), k.version.to_string(), k.plural.to_string());
        // The built-in kinds come first and keep their places.
        let mut by_path = HashMap::with_capacity(all.len());
        for kind in &all {
            by_path.entry(key(kind)).or_insert_with(|| Arc::clone(kind));
        }
        let converter = |d: &Arc<Defined>| {
            let converter = Arc::clone(d.converter.as_ref()?);
            Some(((d.spec.group.clone(), d.spec.names.plural.clone()), converter))
        };
        let converters = definitions.values().filter_map(converter).collect();
        let generation = self.current.read().generation + 1;
        *self.current.write() = Arc::new(Kinds { by_path, all, converters, generation });
    }
}

impl Defined {
    /// A definition that cannot be compiled has no entries, nor has one whose names are another's: its own status says why.
    fn new(definition: &CustomResourceDefinition) -> Self {
        let is_served = definitions::is_served(definition);
        let compiled = match is_served {
            true => kinds::from_definition(definition),
            false => Ok(Vec::new()),
        };
        let mut entries = compiled.unwrap_or_else(|fault| {
            let name = definition.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(name, fault, "a CustomResourceDefinition cannot be served");
            Vec::new()
        });
        entries.sort_by_key(|k| version_rank(&k.version));
        Self {
            entries: entries.into_iter().map(Arc::new).collect(),
            converter: Converter::of(&definition.spec).map(Arc::new),
            spec: definition.spec.clone(),
            is_served,
        }
    }

    fn is_of(&self, definition: &CustomResourceDefinition) -> bool {
        self.spec == definition.spec && self.is_served == definitions::is_served(definition)
    }
}

/// Orders versions as the API does: `v2` before `v1` before `v1beta1` before `v1alpha1`.
fn version_rank(version: &str) -> (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>, String) {
    let rest = version.strip_prefix('v').unwrap_or_default();
    let (major, suffix) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    let major: u32 = major.parse().unwrap_or(0);
    let minor = |kind: &str| suffix.strip_prefix(kind).and_then(|n| n.parse().ok());
    let (stage, minor) = match (suffix, minor("beta"), minor("alpha")) {
        ("", _, _) if major > 0 => (0, 0),
        (_, Some(n), _) => (1, n),
        (_, _, Some(n)) => (2, n),
        _ => (3, 0),
    };
    (stage, std::cmp::Reverse(major), std::cmp::Reverse(minor), version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ranked_by_stability() {
        let mut versions = ["v1alpha1", "v1", "v2beta1", "v10", "foo", "v2", "v1beta2"];
        versions.sort_by_key(|v| version_rank(v));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]);
    }
}
