//! Who owns whom, over all kinds: only metadata, indexed by uid. Planning what to do about one object is a pure
//! question to this graph.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::meta;

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Number of its resource in the list of those served.
    pub resource: usize,
    pub namespace: String,
    pub name: String,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
    pub resource_version: Option<String>,
}

impl Node {
    pub fn new(resource: usize, object: &ObjectMeta) -> Self {
        Self {
            resource,
            namespace: meta::namespace(object).to_owned(),
            name: meta::name(object).to_owned(),
            owners: object.owner_references.clone().unwrap_or_default(),
            finalizers: object.finalizers.clone().unwrap_or_default(),
            deleting: meta::is_deleting(object),
            resource_version: object.resource_version.clone(),
        }
    }

    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    /// It goes after those that depend on it.
    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Take this owner out of a dependent's references.
    Disown {
        dependent: String,
        owners: Vec<String>,
    },
    RemoveFinalizer(&'static str),
    Delete(Policy),
    /// Owners that this graph does not know: ask the API before anything is deleted.
    Verify(Vec<OwnerReference>),
}

#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &String> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// Takes in an object and returns whom to look at because of it.
    pub fn set(&mut self, uid: &str, node: Node) -> Vec<String> {
        let mut look: Vec<String> = Vec::new();
        let old = self.nodes.get(uid);
        let owners_changed = old.is_none_or(|old| old.owners != node.owners);
        if (owners_changed && !node.owners.is_empty()) || node.deleting {
            look.push(uid.to_owned());
        }
        if node.waits_for_dependents() && !old.is_some_and(Node::waits_for_dependents) {
            look.extend(self.dependents(uid).cloned());
        }
        if owners_changed {
            let former: Vec<String> =
                old.iter().flat_map(|o| o.owners.iter().map(|r| r.uid.clone())).collect();
            former.iter().for_each(|owner| self.unlink(owner, uid));
            for owner in &node.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
            }
            look.extend(former.into_iter().filter(|o| self.nodes.get(o).is_some_and(|n| n.deleting)));
        }
        self.nodes.insert(uid.to_owned(), node);
        look
    }

    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(gone) = self.nodes.remove(uid) else { return Vec::new() };
        let mut look: Vec<String> = self.dependents(uid).cloned().collect();
        for owner in &gone.owners {
            self.unlink(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(Node::waits_for_dependents) {
                look.push(owner.uid.clone());
            }
        }
        look
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// Uids of all objects of a resource, to find those that are gone after it was listed anew.
    pub fn of_resource(&self, resource: usize) -> Vec<String> {
        self.nodes.iter().filter(|(_, n)| n.resource == resource).map(|(uid, _)| uid.clone()).collect()
    }

    /// What to do about an object. `absent` are owners of which the API has just said that they do not exist.
    pub fn plan(&self, uid: &str, absent: &HashSet<String>) -> Vec<Action> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        if node.deleting && node.has(ORPHAN) {
            return self.orphan(uid);
        }
        if node.waits_for_dependents() {
            return self.finish_foreground(uid);
        }
        if node.deleting || node.owners.is_empty() {
            return Vec::new();
        }
        self.judge(uid, node, absent)
    }

    fn orphan(&self, uid: &str) -> Vec<Action> {
        let disown = |dependent: &String| Action::Disown {
            dependent: dependent.clone(),
            owners: vec![uid.to_owned()],
        };
        let mut actions: Vec<Action> = self.dependents(uid).map(disown).collect();
        actions.push(Action::RemoveFinalizer(ORPHAN));
        actions
    }

    fn finish_foreground(&self, uid: &str) -> Vec<Action> {
        let blocks = |dependent: &&String| {
            let node = self.nodes.get(dependent.as_str());
            let references = node.iter().flat_map(|n| &n.owners);
            references.into_iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
        };
        match self.dependents(uid).any(|d| blocks(&d)) {
            true => Vec::new(),
            false => vec![Action::RemoveFinalizer(FOREGROUND)],
        }
    }

    fn judge(&self, uid: &str, node: &Node, absent: &HashSet<String>) -> Vec<Action> {
        let (mut solid, mut unknown, mut useless, mut waiting) = (0, Vec::new(), Vec::new(), false);
        for owner in &node.owners {
            match self.nodes.get(&owner.uid) {
                Some(there) if there.waits_for_dependents() => {
                    waiting = true;
                    useless.push(owner.uid.clone());
                }
                Some(_) => solid += 1,
                None if absent.contains(&owner.uid) => useless.push(owner.uid.clone()),
                None => unknown.push(owner.clone()),
            }
        }
        if !unknown.is_empty() {
            return vec![Action::Verify(unknown)];
        }
        match (solid, useless.is_empty()) {
            (0, _) => {}
            (_, true) => return Vec::new(),
            (_, false) => return vec![Action::Disown { dependent: uid.to_owned(), owners: useless }],
        }
        // An owner that waits must not be let go before what depends on this object in turn.
        let policy = match () {
            () if node.has(ORPHAN) => Policy::Orphan,
            () if node.has(FOREGROUND) => Policy::Foreground,
            () if waiting && self.dependents(uid).next().is_some() => Policy::Foreground,
            () => Policy::Background,
        };
        vec![Action::Delete(policy)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(owners: &[&str]) -> Node {
        let reference = |uid: &&str| OwnerReference {
            uid: (*uid).into(),
            block_owner_deletion: Some(true),
            ..Default::default()
        };
        Node {
            resource: 0,
            namespace: "ns".into(),
            name: "x".into(),
            owners: owners.iter().map(reference).collect(),
            finalizers: Vec::new(),
            deleting: false,
            resource_version: None,
        }
    }

    fn going(mut node: Node, finalizer: &str) -> Node {
        node.deleting = true;
        node.finalizers.push(finalizer.into());
        node
    }

    fn none() -> HashSet<String> {
        HashSet::new()
    }

    #[test]
    fn what_lost_its_only_owner_goes_once_that_is_sure() {
        let mut graph = Graph::default();
        graph.set("owner", node(&[]));
        assert_eq!(graph.set("child", node(&["owner"])), ["child"]);
        assert!(graph.plan("child", &none()).is_empty());
        assert_eq!(graph.remove("owner"), ["child"]);
        assert!(matches!(graph.plan("child", &none())[..], [Action::Verify(_)]));
        assert_eq!(
            graph.plan("child", &HashSet::from(["owner".into()])),
            [Action::Delete(Policy::Background)]
        );
    }

    #[test]
    fn one_owner_left_keeps_it() {
        let mut graph = Graph::default();
        graph.set("a", node(&[]));
        graph.set("child", node(&["a", "b"]));
        let disown = Action::Disown { dependent: "child".into(), owners: vec!["b".into()] };
        assert_eq!(graph.plan("child", &HashSet::from(["b".into()])), [disown]);
    }

    #[test]
    fn orphaning_frees_dependents_first() {
        let mut graph = Graph::default();
        graph.set("child", node(&["owner"]));
        graph.set("owner", going(node(&[]), ORPHAN));
        let disown = Action::Disown { dependent: "child".into(), owners: vec!["owner".into()] };
        assert_eq!(graph.plan("owner", &none()), [disown, Action::RemoveFinalizer(ORPHAN)]);
    }

    #[test]
    fn foreground_waits_for_those_that_block() {
        let mut graph = Graph::default();
        graph.set("owner", node(&[]));
        graph.set("child", node(&["owner"]));
        graph.set("grandchild", node(&["child"]));
        let look = graph.set("owner", going(node(&[]), FOREGROUND));
        assert!(look.contains(&"child".to_owned()));
        assert!(graph.plan("owner", &none()).is_empty());
        assert_eq!(graph.plan("child", &none()), [Action::Delete(Policy::Foreground)]);
        graph.remove("grandchild");
        assert_eq!(graph.plan("child", &none()), [Action::Delete(Policy::Background)]);
        assert_eq!(graph.remove("child"), ["owner"]);
        assert_eq!(graph.plan("owner", &none()), [Action::RemoveFinalizer(FOREGROUND)]);
    }
}
