//! Making a pod's surroundings: volumes, network, files, sandbox.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use container::runtime::{Dns, RuntimeError, SandboxConfig};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use net::attachment::Attachment;
use net::namespace::NamespaceError;

use super::context::{Context, PodKey, uses_host_network};
use super::files;
use super::record::{GRACE_SECONDS_DEFAULT, keys};
use crate::cluster::fetch_objects;
use crate::objects::references;
use crate::resources::{cgroup_parent, pod_resources};
use crate::volumes::{Prepared, SetUpError, TokenCache, VolumeContext, prepare_all};
use base::constants::annotations::POD_GRACE_PERIOD;

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Volume(#[from] SetUpError),
    #[error("no address is left in the node's range")]
    NoAddress,
    #[error("network: {0}")]
    Network(#[from] NamespaceError),
    #[error("{}: {source}", path.display())]
    File {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("read the objects the pod names: {0}")]
    Api(#[from] kube::Error),
}

impl SetupError {
    /// The reason of the event that tells it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Volume(_) | Self::Api(_) => "FailedMount",
            _ => "FailedCreatePodSandBox",
        }
    }

    pub fn event(&self) -> String {
        match self {
            Self::Volume(_) | Self::Api(_) => self.to_string(),
            other => format!("Failed to create pod sandbox: {other}"),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Surroundings {
    pub volumes: BTreeMap<String, Prepared>,
    pub pod_ip: Ipv4Addr,
}

pub async fn set_up(
    context: &Context,
    pod: &Arc<Pod>,
    tokens: &TokenCache,
    attempt: u32,
    known_ip: Option<Ipv4Addr>,
) -> Result<Surroundings, SetupError> {
    let _slot = context.heavy.acquire().await.map_err(|_| SetupError::NoAddress)?;
    let key = PodKey::of(pod);
    // The address comes first: volumes and environment may show it.
    let host_network = uses_host_network(pod);
    let pod_ip = match known_ip {
        Some(ip) => ip,
        None if host_network => context.config.address,
        None => context.addresses.lock().allocate().ok_or(SetupError::NoAddress)?,
    };
    let made = async {
        let volumes = prepare_volumes(context, pod, tokens, pod_ip).await?;
        attach(context, pod, &key, pod_ip).await?;
        write_files(context, pod, &key, pod_ip)?;
        let config = sandbox_config(context, pod, &key, pod_ip, attempt);
        context.runtime.run_pod_sandbox(config).await?;
        Ok(volumes)
    };
    match made.await {
        Ok(volumes) => Ok(Surroundings { volumes, pod_ip }),
        Err(error) => {
            if known_ip.is_none() && !host_network {
                context.addresses.lock().free(pod_ip);
            }
            Err(error)
        }
    }
}

/// Makes the volumes ready or brings them up to date.
pub async fn prepare_volumes(
    context: &Context,
    pod: &Arc<Pod>,
    tokens: &TokenCache,
    pod_ip: Ipv4Addr,
) -> Result<BTreeMap<String, Prepared>, SetupError> {
    let key = PodKey::of(pod);
    let objects = fetch_objects(&context.client, &key.namespace, &references(pod)).await?;
    let fs_group = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|s| s.fs_group);
    let fields = context.field_context(Some(pod_ip));
    let volumes = VolumeContext {
        pod,
        objects: &objects,
        fields: &fields,
        client: &context.client,
        tokens,
        directory: context.config.pod_dir(&key.uid).join("volumes"),
        fs_group: fs_group.and_then(|group| u32::try_from(group).ok()),
        now: Timestamp::now(),
    };
    private_directory(&context.config.pod_dir(&key.uid))?;
    Ok(prepare_all(&volumes).await?)
}

/// A pod's directory holds its secrets: only root may enter.
fn private_directory(path: &Path) -> Result<(), SetupError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| SetupError::File { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o750)).map_err(failed)
}

async fn attach(context: &Context, pod: &Pod, key: &PodKey, pod_ip: Ipv4Addr) -> Result<(), SetupError> {
    if uses_host_network(pod) {
        return Ok(());
    }
    let attachment = Attachment {
        id: key.uid.clone(),
        namespace_path: context.config.netns_path(&key.uid),
        address: pod_ip,
        node_address: context.config.address,
        mtu: context.config.mtu,
        sysctls: sysctls(pod).into_iter().filter(|(name, _)| name.starts_with("net.")).collect(),
    };
    attachment.attach(&context.config.namespace).await?;
    Ok(())
}

fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let all = context.and_then(|context| context.sysctls.clone()).unwrap_or_default();
    all.into_iter().map(|sysctl| (sysctl.name, sysctl.value)).collect()
}

fn write_files(context: &Context, pod: &Pod, key: &PodKey, pod_ip: Ipv4Addr) -> Result<(), SetupError> {
    let directory = context.config.pod_dir(&key.uid);
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|source| SetupError::File { path, source })
    };
    // A host without these files has nothing to hand on.
    let host = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let hosts = files::hosts(
        pod,
        &pod_ip.to_string(),
        &context.config.cluster_domain,
        &host(Path::new("/etc/hosts")),
    );
    write("etc-hosts", &hosts)?;
    write("resolv.conf", &files::resolver(pod, &context.config, &host(&context.config.resolv_conf)).text())?;
    let logs = context.config.log_dir(&key.namespace, &key.name, &key.uid);
    fs::create_dir_all(&logs).map_err(|source| SetupError::File { path: logs.clone(), source })
}

/// The id of the sandbox of an attempt.
pub fn sandbox_id(uid: &str, attempt: u32) -> String {
    format!("{uid}-{attempt}")
}

/// The pod a sandbox belongs to.
pub fn uid_of_sandbox(id: &str) -> Option<&str> {
    id.rsplit_once('-').map(|(uid, _)| uid)
}

fn sandbox_config(
    context: &Context,
    pod: &Pod,
    key: &PodKey,
    pod_ip: Ipv4Addr,
    attempt: u32,
) -> SandboxConfig {
    let spec = pod.spec.as_ref();
    let config = &context.config;
    let host_network = uses_host_network(pod);
    let resolver_text = fs::read_to_string(config.pod_dir(&key.uid).join("resolv.conf")).unwrap_or_default();
    let resolver = files::Resolver::parse(&resolver_text);
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.insert(keys::POD_UID.into(), key.uid.clone());
    labels.insert(keys::POD_NAME.into(), key.name.clone());
    labels.insert(keys::POD_NAMESPACE.into(), key.namespace.clone());
    let annotations = BTreeMap::from([
        (keys::POD_IP.to_owned(), pod_ip.to_string()),
        (keys::CLUSTER.to_owned(), config.cluster_id.clone()),
        (
            POD_GRACE_PERIOD.to_owned(),
            spec.and_then(|s| s.termination_grace_period_seconds)
                .unwrap_or(GRACE_SECONDS_DEFAULT)
                .to_string(),
        ),
    ]);
    SandboxConfig {
        id: sandbox_id(&key.uid, attempt),
        uid: key.uid.clone(),
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        attempt,
        hostname: if host_network {
            config.name.clone()
        } else {
            files::sandbox_hostname(pod, &config.cluster_domain)
        },
        log_directory: config.log_dir(&key.namespace, &key.name, &key.uid),
        dns: Dns {
            nameservers: resolver.nameservers,
            searches: resolver.searches,
            options: resolver.options,
        },
        network_namespace: if host_network {
            config.namespace.path().map(Path::to_owned)
        } else {
            Some(config.netns_path(&key.uid))
        },
        share_pid: spec.and_then(|s| s.share_process_namespace).unwrap_or(false),
        host_ipc: spec.and_then(|s| s.host_ipc).unwrap_or(false),
        host_pid: spec.and_then(|s| s.host_pid).unwrap_or(false),
        sysctls: sysctls(pod).into_iter().filter(|(name, _)| !name.starts_with("net.")).collect(),
        cgroup_parent: cgroup_parent(pod, &key.uid),
        resources: pod_resources(pod),
        labels,
        annotations,
    }
}
