//! Each node's own range of pod addresses: the lowest of the cluster's that no other node has. A node keeps its own for as
//! long as its object is there. One controller gives them, one after the other, from what the API says then: objects of their own
//! cannot be compared with each other when they are written.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base::constants::ranges::{NODE_POD_PREFIX, POD_CIDR};
use client::{Cache, Controller, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{ListParams, Patch};
use serde_json::json;

use crate::context::{self, Context};
use crate::meta;

/// When a node that got none is looked at again, if no other has gone until then.
const AGAIN: Duration = Duration::from_secs(300);

pub fn start(context: &Context) -> Vec<Controller> {
    let nodes = context.caches.of::<Node>();
    let reconciler = Ranges {
        recorder: context.recorder("node-ipam-controller"),
        nodes: Arc::clone(&nodes),
        context: context.clone(),
    };
    let all = Arc::clone(&nodes);
    // One at a time: two that look at once would find the same range free.
    let controller = Controller::new("nodeipam", reconciler).workers(1).watches(&nodes, move |change| {
        match &change.new {
            Some(node) if range_of(node).is_none() => vec![Key::of(&**node)],
            Some(_) => Vec::new(),
            // What it had is free now.
            None => all.all().iter().filter(|n| range_of(n).is_none()).map(|n| Key::of(&**n)).collect(),
        }
    });
    vec![controller]
}

fn range_of(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|range| !range.is_empty())
}

/// The addresses of a range, from its first to its last.
fn bounds(range: &str) -> Option<(u32, u32)> {
    let (network, prefix) = range.split_once('/')?;
    let (network, prefix) = (network.parse::<Ipv4Addr>().ok()?, prefix.parse::<u32>().ok()?);
    let rest = u32::MAX.checked_shr(prefix).unwrap_or(0);
    (prefix <= 32).then_some((network.to_bits() & !rest, network.to_bits() | rest))
}

/// The lowest range that has nothing in common with those that are taken.
fn free<'a>(taken: impl Iterator<Item = &'a str>) -> Option<String> {
    let (first, last) = bounds(POD_CIDR).expect("our own constant is a range");
    let size = 1 << (32 - NODE_POD_PREFIX);
    let mut used = BTreeSet::new();
    for (from, to) in taken.filter_map(bounds) {
        let (from, to) = (from.max(first), to.min(last));
        if from <= to {
            used.extend((from - first) / size..=(to - first) / size);
        }
    }
    let number = (0..=(last - first) / size).find(|number| !used.contains(number))?;
    Some(format!("{}/{NODE_POD_PREFIX}", Ipv4Addr::from_bits(first + number * size)))
}

struct Ranges {
    context: Context,
    nodes: Arc<Cache<Node>>,
    recorder: Recorder,
}

impl Reconciler for Ranges {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(node) = self.nodes.get(&key).filter(|node| range_of(node).is_none()) else {
                return Ok(Next::OnChange);
            };
            // Caches may not have seen what was given a moment ago.
            let api: Api<Node> = self.context.cluster_api();
            let all = api.list(&ListParams::default()).await?.items;
            let Some(range) = free(all.iter().filter_map(range_of)) else {
                let why = format!("Node {} status is now: CIDRNotAvailable", key.name);
                self.recorder.record(&*node, Level::Normal, "CIDRNotAvailable", why);
                return Ok(Next::After(AGAIN));
            };
            let held = all.iter().find(|node| meta::name(&node.metadata) == key.name);
            let Some(held) = held.filter(|node| range_of(node).is_none()) else { return Ok(Next::OnChange) };
            let patch = json!({ "metadata": { "resourceVersion": held.metadata.resource_version },
                "spec": { "podCIDR": range, "podCIDRs": [range] } });
            api.patch(&key.name, &context::params_patch(), &Patch::Merge(patch)).await?;
            Ok(Next::OnChange)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(taken: &[&str], expected: Option<&str>) {
        assert_eq!(free(taken.iter().copied()).as_deref(), expected, "{taken:?}");
    }

    #[test]
    fn the_lowest_that_is_free_is_given() {
        check(&[], Some("10.42.0.0/24"));
        check(&["10.42.0.0/24"], Some("10.42.1.0/24"));
        check(&["10.42.0.0/24", "10.42.0.0/24", "10.42.2.0/24"], Some("10.42.1.0/24"));
        check(&["10.42.1.0/24"], Some("10.42.0.0/24"));
        // Those that somebody else gave: of another size, elsewhere, of another family, and none.
        check(&["10.42.0.0/22", "10.42.4.128/25"], Some("10.42.5.0/24"));
        check(&["10.0.0.0/24", "fd00::/64", "x"], Some("10.42.0.0/24"));
        check(&["10.42.0.0/16"], None);
        check(&["0.0.0.0/0"], None);
    }

    #[test]
    fn all_are_different_until_none_is_left() {
        let mut taken: Vec<String> = Vec::new();
        while let Some(range) = free(taken.iter().map(String::as_str)) {
            assert!(!taken.contains(&range), "{range}");
            taken.push(range);
        }
        assert_eq!((taken.len(), taken.last().map(String::as_str)), (256, Some("10.42.255.0/24")));
    }
}
