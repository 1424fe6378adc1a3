//! What runs an older build of an image that was built anew under the same name. Its manifest says nothing new, so that
//! neither the engine nor a controller would replace it: it is restarted as `kubectl rollout restart` does.

use std::collections::BTreeSet;

use base::constants::annotations::RESTARTED_AT;
use gitops::inventory::Id;
use image::{ImageRecord, Reference};
use kube::Client;
use serde_json::{Value, json};

use super::plan::{NAMESPACE, Plan};
use crate::discovery::Discovery;
use crate::progress::Progress;
use crate::tree::pods_of;
use crate::world::{self, Scope, World};
use crate::requests;

/// Kinds that replace their pods when the template changes.
const ROLLING: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

/// Before the rest is applied, so that it is waited for with the rest.
pub async fn restart(
    client: &Client,
    plan: &Plan,
    built: &[ImageRecord],
    progress: Progress,
) -> anyhow::Result<()> {
    if built.is_empty() {
        return Ok(());
    }
    let world = world::read(client, Scope::One { namespace: NAMESPACE, name: &plan.name }).await?;
    let Outdated { rolling, fixed } = outdated(&world, built);
    if !rolling.is_empty() {
        let step = progress.step("Replace what runs an older build");
        let discovery = Discovery::read(client).await?;
        let now = base::time::rfc3339_seconds(base::time::now());
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
        for id in &rolling {
            let Some(resource) = discovery.by_group(&id.group, &id.kind) else { continue };
            requests::merge(client, &requests::path(resource, Some(&id.namespace), Some(&id.name)), &patch).await?;
        }
        step.done(&rolling.iter().map(Id::label).collect::<Vec<_>>().join(", "));
    }
    for id in &fixed {
        eprintln!(
            "  {} runs an older build, and nothing replaces it: `kedge delete {}/{} -n {}` has it made anew",
            id.label(),
            id.kind.to_lowercase(),
            id.name,
            id.namespace
        );
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq)]
struct Outdated {
    rolling: Vec<Id>,
    /// What has to be deleted to be made anew: Jobs, and pods by themselves.
    fixed: Vec<Id>,
}

fn outdated(world: &World, built: &[ImageRecord]) -> Outdated {
    let mut outdated = Outdated::default();
    for (id, object) in &world.objects {
        let Some(object) = object else { continue };
        let old = match id.kind.as_str() {
            "Pod" => runs_older(object, built),
            _ => pods_of(world, object).any(|pod| runs_older(pod, built)),
        };
        match ROLLING.contains(&id.kind.as_str()) {
            _ if !old => {}
            true => outdated.rolling.push(id.clone()),
            false => outdated.fixed.push(id.clone()),
        }
    }
    outdated
}

fn runs_older(pod: &Value, built: &[ImageRecord]) -> bool {
    let list = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let ended = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
    if ended || pod.pointer("/metadata/deletionTimestamp").is_some() {
        return false;
    }
    list("/spec/containers").any(|container| {
        let name = container["image"].as_str().and_then(|name| name.parse::<Reference>().ok());
        let Some(name) = name.map(|name| name.to_string()) else { return false };
        let Some(record) = built.iter().find(|record| record.tags.contains(&name)) else { return false };
        let status = list("/status/containerStatuses").find(|status| status["name"] == container["name"]);
        let runs = status.and_then(|status| status["imageID"].as_str()).unwrap_or_default();
        !runs.is_empty() && !is_of(runs, record)
    })
}

/// A status names an image by its configuration's digest, or by its manifest's with the repository.
fn is_of(image_id: &str, record: &ImageRecord) -> bool {
    let digests = BTreeSet::from([record.id.as_str(), record.manifest_digest.as_str()]);
    digests.contains(image_id.rsplit('@').next().unwrap_or(image_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Settings;

    fn built(tag: &str, id: &str) -> ImageRecord {
        ImageRecord {
            id: id.into(),
            manifest_digest: format!("{id}-manifest"),
            tags: vec![tag.into()],
            digests: Vec::new(),
            size_bytes: 1,
            created: None,
            config: Settings::default(),
            diff_ids: Vec::new(),
        }
    }

    fn add(world: &mut World, kind: &str, image_id: &str) {
        let group = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        let object = json!({"apiVersion": group, "kind": kind, "metadata": {"name": "web", "namespace": "shop", "uid": kind}});
        world.objects.insert(Id::of(&object), Some(object));
        world.pods.push(json!({
            "metadata": {"ownerReferences": [{"uid": kind}]},
            "spec": {"containers": [{"name": "c", "image": "localhost/shop:v1"}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "c", "imageID": image_id}]},
        }));
    }

    #[test]
    fn what_runs_an_older_build_is_found() {
        let check = |kind: &str, image_id: &str, tag: &str, rolling: usize, fixed: usize| {
            let mut world = World::default();
            add(&mut world, kind, image_id);
            let found = outdated(&world, &[built(tag, "sha256:new")]);
            assert_eq!((found.rolling.len(), found.fixed.len()), (rolling, fixed), "{kind} {image_id} {tag}");
            world.pods[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            assert_eq!(outdated(&world, &[built(tag, "sha256:new")]), Outdated::default(), "it ends already");
        };
        let tag = "localhost/shop:v1";
        check("Deployment", "sha256:old", tag, 1, 0);
        check("StatefulSet", "localhost/shop@sha256:old", tag, 1, 0);
        check("Job", "sha256:old", tag, 0, 1);
        check("Deployment", "sha256:new", tag, 0, 0);
        check("Deployment", "localhost/shop@sha256:new-manifest", tag, 0, 0);
        check("Deployment", "sha256:old", "localhost/shop:v2", 0, 0);
        check("Deployment", "", tag, 0, 0);
    }
}
