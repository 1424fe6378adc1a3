//! Starting one container: image, configuration, root, process, postStart hook. Each failure has the reason and words a
//! status shows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use container::runtime::RuntimeError;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;

use super::container_config::{ConfigInput, container_config, container_id};
use super::context::{Context, PodKey};
use super::hooks::run_hook;
use super::record::{RunRecord, Waiting};
use super::superseded::{remove_run, remove_superseded};
use crate::cluster::fetch_objects;
use crate::images::{Credentials, Image, ImageError};
use crate::objects::{Objects, references};
use crate::volumes::Prepared;

/// What a start needs to know; taken when it is decided, so that the task owns it.
pub struct StartOrder {
    pub pod: Arc<Pod>,
    pub container: Container,
    pub attempt: u32,
    pub sandbox_id: String,
    pub volumes: BTreeMap<String, Prepared>,
    pub pod_ip: Ipv4Addr,
    pub target: Option<String>,
    /// A run that is no longer needed, not even as the previous one.
    pub obsolete: Option<RunRecord>,
    /// All runs that are.
    pub keep: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// The image is not here and cannot be had now: retried ever more seldom.
    Image(Waiting),
    /// Will not work until something else changes.
    Config(Waiting),
    /// The runtime could not make or run it.
    Run(Waiting),
    /// It ran, but its hook failed; it has been killed.
    Hook(String),
}

/// The image used, as a status shows it.
pub type Used = (String, String);

pub async fn start(context: &Context, order: &StartOrder) -> (Option<Used>, Result<(), StartFailure>) {
    let pod = &*order.pod;
    let key = PodKey::of(pod);
    clean(context, &key, order).await;
    let objects = match fetch_objects(&context.client, &key.namespace, &references(pod)).await {
        Ok(objects) => objects,
        Err(error) => return (None, Err(config_failure(context, order, &error.to_string()))),
    };
    let image = match ensure_image(context, order, &objects).await {
        Ok(image) => image,
        Err(waiting) => return (None, Err(waiting)),
    };
    let used = Some((image.name.clone(), image.repo_digest.clone()));
    (used, create_and_run(context, order, &objects, &image).await)
}

async fn clean(context: &Context, key: &PodKey, order: &StartOrder) {
    let Some(run) = &order.obsolete else { return };
    remove_run(context, key, &order.container.name, &run.id, run.attempt).await;
    if run.sandbox_id != order.sandbox_id {
        remove_superseded(context, key, &order.sandbox_id, &order.keep).await;
    }
}

fn event(context: &Context, order: &StartOrder, kind: &str, reason: &str, message: &str) {
    context.events.container_event(&order.pod, &order.container.name, kind, reason, message);
}

fn config_failure(context: &Context, order: &StartOrder, message: &str) -> StartFailure {
    event(context, order, "Warning", "Failed", &format!("Error: {message}"));
    StartFailure::Config(Waiting::new("CreateContainerConfigError", message))
}

async fn ensure_image(
    context: &Context,
    order: &StartOrder,
    objects: &Objects,
) -> Result<Image, StartFailure> {
    let reference = order.container.image.as_deref().unwrap_or_default();
    let policy = match order.container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if reference.ends_with(":latest") || !reference.contains(':') => "Always",
        _ => "IfNotPresent",
    };
    let failed = |error: &ImageError| image_failure(context, order, reference, error);
    if policy != "Always" {
        if let Some(image) = context.images.find(reference).await.map_err(|error| failed(&error))? {
            let message = format!("Container image \"{reference}\" already present on machine");
            event(context, order, "Normal", "Pulled", &message);
            return Ok(image);
        }
        if policy == "Never" {
            let message = format!("Container image \"{reference}\" is not present with pull policy of Never");
            event(context, order, "Warning", "ErrImageNeverPull", &message);
            event(context, order, "Warning", "Failed", "Error: ErrImageNeverPull");
            return Err(StartFailure::Config(Waiting::new("ErrImageNeverPull", message)));
        }
    }
    event(context, order, "Normal", "Pulling", &format!("Pulling image \"{reference}\""));
    let asked = Instant::now();
    let slot = context.pulls.acquire().await;
    let begun = Instant::now();
    let pulled = context.images.pull(reference, &credentials(&order.pod, objects)).await;
    drop(slot);
    let image = pulled.map_err(|error| failed(&error))?;
    let message = format!(
        "Successfully pulled image \"{reference}\" in {} ({} including waiting). Image size: {} bytes.",
        brief(begun.elapsed()),
        brief(asked.elapsed()),
        image.size_bytes
    );
    event(context, order, "Normal", "Pulled", &message);
    Ok(image)
}

/// A duration as Go prints it: `1.234s`, `57ms`.
fn brief(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{}.{:03}s", duration.as_secs(), duration.subsec_millis())
    }
}

fn image_failure(context: &Context, order: &StartOrder, reference: &str, error: &ImageError) -> StartFailure {
    if let ImageError::InvalidName { .. } = error {
        let message = format!("Failed to apply default image tag \"{reference}\": {error}");
        event(context, order, "Warning", "InspectFailed", &message);
        event(context, order, "Warning", "Failed", "Error: InvalidImageName");
        return StartFailure::Config(Waiting::new("InvalidImageName", message));
    }
    let message = format!("failed to pull image \"{reference}\": {error}");
    event(context, order, "Warning", "Failed", &format!("Failed to pull image \"{reference}\": {error}"));
    event(context, order, "Warning", "Failed", "Error: ErrImagePull");
    StartFailure::Image(Waiting::new("ErrImagePull", message))
}

async fn create_and_run(
    context: &Context,
    order: &StartOrder,
    objects: &Objects,
    image: &Image,
) -> Result<(), StartFailure> {
    let key = PodKey::of(&order.pod);
    let id = container_id(&key.uid, &order.container.name, order.attempt);
    let run_failure = |reason: &str, message: String| {
        event(context, order, "Warning", "Failed", &format!("Error: {message}"));
        StartFailure::Run(Waiting::new(reason, message))
    };
    let rootfs = context.images.prepare_rootfs(&image.id, &id).await;
    let rootfs = rootfs.map_err(|error| run_failure("CreateContainerError", error.to_string()))?;
    let config = container_config(
        &ConfigInput {
            context,
            pod: &order.pod,
            container: &order.container,
            attempt: order.attempt,
            image,
            objects,
            volumes: &order.volumes,
            pod_ip: order.pod_ip,
            target: order.target.clone(),
        },
        rootfs,
    );
    let config = config.map_err(|error| config_failure(context, order, &error.to_string()))?;
    match context.runtime.create_container(&order.sandbox_id, config).await {
        // A start that was cut short is taken up where it was.
        Ok(_) | Err(RuntimeError::AlreadyExists { .. }) => {}
        Err(RuntimeError::InvalidConfig { message, .. }) => {
            return Err(config_failure(context, order, &message));
        }
        Err(error) => return Err(run_failure("CreateContainerError", error.to_string())),
    }
    let name = &order.container.name;
    event(context, order, "Normal", "Created", &format!("Created container: {name}"));
    if let Err(error) = context.runtime.start_container(&id).await {
        return Err(run_failure("RunContainerError", error.to_string()));
    }
    event(context, order, "Normal", "Started", &format!("Started container {name}"));
    post_start(context, order, &id).await
}

async fn post_start(context: &Context, order: &StartOrder, id: &str) -> Result<(), StartFailure> {
    let hook = order.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    let Some(hook) = hook else { return Ok(()) };
    /// A hook has no limit of its own; the container is not up before it ends, however long that takes.
    const HOOK_LIMIT: Duration = Duration::from_secs(24 * 3600);
    let ran = run_hook(context, &order.container, id, order.pod_ip.into(), hook, HOOK_LIMIT).await;
    let Err(error) = ran else { return Ok(()) };
    let message = format!("PostStartHook failed: {error}");
    event(context, order, "Warning", "FailedPostStartHook", &message);
    event(context, order, "Normal", "Killing", "FailedPostStartHook");
    let grace = order.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
    if let Err(error) = context.runtime.stop_container(id, grace).await {
        tracing::warn!(%error, %id, "kill a container whose hook failed");
    }
    Err(StartFailure::Hook(message))
}

/// Credentials out of the pull secrets that are there; one that is missing is no obstacle to a public image.
fn credentials(pod: &Pod, objects: &Objects) -> Vec<Credentials> {
    let names = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let mut all = Vec::new();
    for secret in names.filter_map(|reference| objects.secret(&reference.name).ok()) {
        let data = secret.data.as_ref();
        let current = data.and_then(|data| data.get(".dockerconfigjson"));
        let Some(bytes) = current.or_else(|| data.and_then(|data| data.get(".dockercfg"))) else { continue };
        let Ok(config) = serde_json::from_slice::<serde_json::Value>(&bytes.0) else { continue };
        let registries = config.get("auths").unwrap_or(&config).as_object();
        all.extend(
            registries.into_iter().flatten().filter_map(|(registry, entry)| credential(registry, entry)),
        );
    }
    all
}

fn credential(registry: &str, entry: &serde_json::Value) -> Option<Credentials> {
    let text = |field: &str| entry.get(field).and_then(serde_json::Value::as_str).map(str::to_owned);
    let (username, password) = match (text("username"), text("password")) {
        (Some(username), Some(password)) => (username, password),
        _ => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")?).ok()?;
            let decoded = String::from_utf8(decoded).ok()?;
            let (username, password) = decoded.split_once(':')?;
            (username.to_owned(), password.to_owned())
        }
    };
    Some(Credentials { registry: registry.to_owned(), username, password })
}
