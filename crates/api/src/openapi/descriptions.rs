//! The official descriptions of types and fields, which `k8s-openapi` carries in its JSON schemas. Everything else
//! about a type comes from the facts table.

use std::sync::LazyLock;

use serde_json::{Map, Value};

macro_rules! roots {
    ($($($segment:ident)::+: $($kind:ident),+;)+) => {
        /// Every type these kinds are made of, by its OpenAPI name.
        fn collect() -> Map<String, Value> {
            let mut generator = schemars::SchemaGenerator::default();
            $({
                use k8s_openapi::$($segment)::+ as module;
                $(generator.subschema_for::<module::$kind>();)+
            })+
            generator.take_definitions(true)
        }
    };
}

roots! {
    api::admissionregistration::v1: MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration;
    api::admissionregistration::v1alpha1: MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding;
    api::admissionregistration::v1beta1: MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding;
    api::apiserverinternal::v1alpha1: StorageVersion;
    api::apps::v1: ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet;
    api::authentication::v1: SelfSubjectReview, TokenRequest, TokenReview;
    api::authorization::v1: LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview;
    api::autoscaling::v1: HorizontalPodAutoscaler, Scale;
    api::autoscaling::v2: HorizontalPodAutoscaler;
    api::batch::v1: CronJob, Job;
    api::certificates::v1: CertificateSigningRequest;
    api::certificates::v1alpha1: ClusterTrustBundle;
    api::certificates::v1beta1: ClusterTrustBundle, PodCertificateRequest;
    api::coordination::v1: Lease;
    api::coordination::v1alpha2: LeaseCandidate;
    api::coordination::v1beta1: LeaseCandidate;
    api::core::v1: Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount;
    api::discovery::v1: EndpointSlice;
    api::events::v1: Event;
    api::flowcontrol::v1: FlowSchema, PriorityLevelConfiguration;
    api::networking::v1: IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR;
    api::networking::v1beta1: IPAddress, ServiceCIDR;
    api::node::v1: RuntimeClass;
    api::policy::v1: Eviction, PodDisruptionBudget;
    api::rbac::v1: ClusterRole, ClusterRoleBinding, Role, RoleBinding;
    api::resource::v1: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
    api::resource::v1alpha3: DeviceTaintRule, ResourcePoolStatusRequest;
    api::resource::v1beta1: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
    api::resource::v1beta2: DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
    api::scheduling::v1: PriorityClass;
    api::scheduling::v1alpha2: PodGroup, Workload;
    api::storage::v1: CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass;
    api::storage::v1beta1: VolumeAttributesClass;
    api::storagemigration::v1beta1: StorageVersionMigration;
    apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition;
    apimachinery::pkg::apis::meta::v1: APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, Status;
    kube_aggregator::pkg::apis::apiregistration::v1: APIService;
}

static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(collect);

fn text(schema: &'static Value) -> Option<&'static str> {
    schema.get("description")?.as_str()
}

/// A type's own description.
pub(super) fn of_type(model: &str) -> Option<&'static str> {
    text(DEFINITIONS.get(model)?)
}

/// A field's description. Types that are not in the crate describe the fields every object has, and no others.
pub(super) fn of_field(model: &str, field: &str) -> Option<&'static str> {
    match DEFINITIONS.get(model).and_then(|schema| schema.get("properties")?.get(field)).and_then(text) {
        Some(text) => Some(text),
        None => of_common(field),
    }
}

pub(super) const LIST_METADATA: &str = "Standard list metadata. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// Of objects within custom resources.
pub(super) const EMBEDDED: &[(&str, &str)] = &[
    (
        "apiVersion",
        "apiVersion defines the versioned schema of this representation of an object. More info: \
         https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
    ),
    (
        "kind",
        "kind is a string value representing the type of this object. In CamelCase. More info: \
         https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    ),
];

pub(super) fn of_common(field: &str) -> Option<&'static str> {
    Some(match field {
        "apiVersion" => {
            "APIVersion defines the versioned schema of this representation of an object. Servers should convert \
             recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"
        }
        "kind" => {
            "Kind is a string value representing the REST resource this object represents. Servers may infer this \
             from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
        }
        "metadata" => {
            "Standard object's metadata. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
        }
        _ => return None,
    })
}
