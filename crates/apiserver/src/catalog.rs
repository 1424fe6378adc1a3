//! The kinds that are served now: the built-in table and an entry for each served version of each
//! CustomResourceDefinition. Readers take a snapshot; a change replaces it whole.

use std::collections::HashMap;
use std::sync::Arc;

use api::kinds::{self, Kind};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use parking_lot::RwLock;

#[derive(Default)]
pub struct Catalog {
    current: RwLock<Arc<Kinds>>,
}

/// All kinds at some moment.
#[derive(Default)]
pub struct Kinds {
    by_path: HashMap<(String, String, String), Arc<Kind>>,
    /// In the order of discovery.
    all: Vec<Arc<Kind>>,
    /// Changes with every change of the definitions.
    pub generation: u64,
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

    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Kind>> {
        self.all.iter().filter(move |k| k.group == group && k.version == version)
    }
}

impl Catalog {
    pub fn snapshot(&self) -> Arc<Kinds> {
        Arc::clone(&self.current.read())
    }

    /// Rebuilds the table from the definitions that exist. A definition that cannot be compiled is left out: its
    /// own status says why.
    pub fn rebuild(&self, definitions: &[CustomResourceDefinition]) {
        let mut all: Vec<Arc<Kind>> = kinds::builtin().to_vec();
        for definition in definitions {
            match kinds::from_definition(definition) {
                Ok(mut entries) => {
                    entries.sort_by_key(|k| version_rank(&k.version));
                    all.extend(entries.into_iter().map(Arc::new));
                }
                Err(fault) => {
                    let name = definition.metadata.name.as_deref().unwrap_or_default();
                    tracing::warn!(name, fault, "a CustomResourceDefinition cannot be served");
                }
            }
        }
        let key = |k: &Arc<Kind>| (k.group.to_string(), k.version.to_string(), k.plural.to_string());
        // The built-in kinds come first and keep their places.
        let mut by_path = HashMap::new();
        for kind in &all {
            by_path.entry(key(kind)).or_insert_with(|| Arc::clone(kind));
        }
        let generation = self.current.read().generation + 1;
        *self.current.write() = Arc::new(Kinds { by_path, all, generation });
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
