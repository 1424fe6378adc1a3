//! The one place for the names that several crates, users or other tools must agree on: labels, annotations,
//! ports, address ranges, paths and environment variables.

/// What the API server says it is.
pub const KUBERNETES_VERSION: &str = "v1.36.2";
pub const KUBERNETES_MINOR: &str = "36";

pub mod labels {
    pub const HOSTNAME: &str = "kubernetes.io/hostname";
    pub const OS: &str = "kubernetes.io/os";
    pub const ARCH: &str = "kubernetes.io/arch";
    pub const METADATA_NAME: &str = "kubernetes.io/metadata.name";
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    pub const ENDPOINTSLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
    pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
    pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";
    pub const STATEFULSET_POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
    pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
    pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
    pub const JOB_CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
    pub const KUSTOMIZATION_NAME: &str = "kustomize.toolkit.fluxcd.io/name";
    pub const KUSTOMIZATION_NAMESPACE: &str = "kustomize.toolkit.fluxcd.io/namespace";
}

pub mod annotations {
    pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    pub const DEPLOYMENT_REVISION: &str = "deployment.kubernetes.io/revision";
    pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
    pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
    pub const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
    pub const DEFAULT_STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
    pub const BETA_DEFAULT_STORAGE_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";
    /// A claim's class, before there was a field for it.
    pub const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
    pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
    pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
    pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
    /// Where a service's ports answer on the host's loopback: ports in the order of its own, separated by commas.
    pub const PUBLISHED_PORTS: &str = "kedge.dev/published";
    /// Of a sandbox, as the kubelet calls it: how many seconds its containers have to end by themselves.
    pub const POD_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// Asks a Flux object to reconcile now; its value is copied to `status.lastHandledReconcileAt`.
    pub const RECONCILE_REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";
    /// `disabled`: a Kustomization does not delete the object.
    pub const KUSTOMIZE_PRUNE: &str = "kustomize.toolkit.fluxcd.io/prune";
    /// `enabled`: an object that may not be changed as Git wants it is deleted and made anew.
    pub const KUSTOMIZE_FORCE: &str = "kustomize.toolkit.fluxcd.io/force";
    /// `Merge`: what others have written into the object stays.
    pub const KUSTOMIZE_SSA: &str = "kustomize.toolkit.fluxcd.io/ssa";
    /// In a template, by `kubectl rollout restart`: its pods are made anew.
    pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
}

pub mod taints {
    pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
    pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
    pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
}

pub mod ports {
    pub const API_SERVER: u16 = 6443;
    pub const KUBELET: u16 = 10250;
    pub const DNS: u16 = 53;
    pub const NODE_PORT_FIRST: u16 = 30_000;
    pub const NODE_PORT_LAST: u16 = 32_767;
}

pub mod ranges {
    pub const POD_CIDR: &str = "10.42.0.0/16";
    /// How much of it each node has.
    pub const NODE_POD_PREFIX: u8 = 24;
    pub const SERVICE_CIDR: &str = "10.43.0.0/16";
    pub const NODE_CIDR: &str = "10.44.0.0/16";
    /// The first address of the service range belongs to the `kubernetes` service.
    pub const KUBERNETES_SERVICE_IP: &str = "10.43.0.1";
    pub const DNS_SERVICE_IP: &str = "10.43.0.10";
    pub const CLUSTER_DOMAIN: &str = "cluster.local";
}

/// At the top of a repository: what `kedge up` builds and deploys.
pub const PROJECT_FILE: &str = "kedge.yaml";
/// Provisioner of the default storage class: a directory of the node.
pub const LOCAL_PROVISIONER: &str = "kedge.dev/local-path";
pub const DEFAULT_STORAGE_CLASS: &str = "local-path";
/// The signer of every controller-written field.
pub const FIELD_MANAGER: &str = "kedge";

pub mod paths {
    /// Where a cluster keeps everything unless `--data-dir` says otherwise.
    pub const DATA_DIR: &str = "/var/lib/kedge";
    pub const SERVICE_ACCOUNT_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
}

/// Environment variables; only the binary reads them.
pub mod variables {
    pub const DATA_DIR: &str = "KEDGE_DATA_DIR";
    pub const KUBECONFIG: &str = "KUBECONFIG";
    pub const LOG: &str = "KEDGE_LOG";
    /// Where the state is kept, and how that is reached: see `kedge server --help`.
    pub const STORE: &str = "KEDGE_STORE";
    pub const STORE_CA: &str = "KEDGE_STORE_CA";
    pub const STORE_CERT: &str = "KEDGE_STORE_CERT";
    pub const STORE_KEY: &str = "KEDGE_STORE_KEY";
    pub const STORE_USER: &str = "KEDGE_STORE_USER";
    pub const STORE_PASSWORD: &str = "KEDGE_STORE_PASSWORD";
}
