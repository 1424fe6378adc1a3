//! What every cluster has from its first moment: namespaces, roles and their bindings, priority classes, the
//! default storage class, the services of the server itself and of DNS. Applied at every start, through the
//! pipeline like anything else, so that an upgrade brings its own.

use ::http::{Method, Request};
use api::status::ApiError;
use base::constants::{DEFAULT_STORAGE_CLASS, LOCAL_PROVISIONER, annotations, labels, ports};
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::ApiServer;
use crate::auth::{AUTHENTICATED, Identity, MASTERS, UNAUTHENTICATED};
use crate::http::body::{self, full};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

pub async fn run(server: &ApiServer) -> Result<(), ApiError> {
    let namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"];
    let namespaces = namespaces.map(|name| ("/api/v1/namespaces", object("v1", "Namespace", name)));
    try_join_all(namespaces.into_iter().map(|(path, object)| apply(server, path, object))).await?;
    let rest = cluster_roles().into_iter().chain(bindings()).chain(others(server));
    try_join_all(rest.map(|(path, object)| apply(server, path, object))).await?;
    service_range(server).await
}

/// The range that services have their addresses from, ready from the start.
async fn service_range(server: &ApiServer) -> Result<(), ApiError> {
    const PATH: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    let mut range = object("networking.k8s.io/v1", "ServiceCIDR", "kubernetes");
    range["spec"] = json!({"cidrs": [server.0.config.service_cidr]});
    apply(server, PATH, range.clone()).await?;
    let kinds = server.0.catalog.snapshot();
    let kind = kinds.find("networking.k8s.io", "v1", "servicecidrs").ok_or_else(ApiError::no_such_path)?;
    let stored = server.0.objects.get(kind, "", "kubernetes").await?;
    if stored.is_some_and(|(_, range)| range["status"]["conditions"].is_array()) {
        return Ok(());
    }
    let now = base::time::rfc3339_seconds(base::time::now());
    range["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "", "lastTransitionTime": now,
        "message": "Kubernetes default Service CIDR is ready"}]});
    apply_part(server, PATH, range, "/status").await
}

fn object(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})
}

async fn apply(server: &ApiServer, path: &str, object: Value) -> Result<(), ApiError> {
    apply_part(server, path, object, "").await
}

/// Applies the part of an object that a subresource is over.
async fn apply_part(server: &ApiServer, path: &str, object: Value, part: &str) -> Result<(), ApiError> {
    let name = api::meta::name(&object);
    let uri = format!("{path}/{name}{part}?fieldManager=kedge-bootstrap&force=true");
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(&uri)
        .header(::http::header::CONTENT_TYPE, "application/apply-patch+yaml")
        .body(full(object.to_string()))
        .map_err(ApiError::internal)?;
    let who = Identity::new("system:apiserver", &[MASTERS]);
    let answer = server.handle(request, Some(who)).await;
    if answer.status().is_success() {
        return Ok(());
    }
    let code = answer.status();
    let text = match body::read(answer.into_body(), 1 << 20).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    Err(ApiError::internal(format!("{uri}: {code}: {text}")))
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["*"];

fn role(name: &str, rules: Value) -> (&'static str, Value) {
    let mut role = object("rbac.authorization.k8s.io/v1", "ClusterRole", name);
    role["rules"] = rules;
    role["metadata"]["labels"] = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    role["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
    (ROLES, role)
}

/// A role that others are folded into by label, and that may be folded into a wider one itself.
fn aggregating(name: &str, into: Option<&str>) -> (&'static str, Value) {
    let (path, mut role) = role(name, json!([]));
    let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
    role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    if let Value::Object(map) = &mut role {
        map.remove("rules");
    }
    if let Some(into) = into {
        role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{into}")] = "true".into();
    }
    (path, role)
}

fn part_of(into: &[&str], name: &str, rules: Value) -> (&'static str, Value) {
    let (path, mut role) = role(name, rules);
    for into in into {
        role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{into}")] = "true".into();
    }
    (path, role)
}

/// What users of a namespace work with; Secrets and rights are dealt with apart.
const CORE: &[&str] = &[
    "configmaps",
    "endpoints",
    "events",
    "persistentvolumeclaims",
    "pods",
    "pods/log",
    "pods/status",
    "services",
    "serviceaccounts",
];
const WORKLOADS: &[&str] = &[
    "controllerrevisions",
    "deployments",
    "deployments/scale",
    "deployments/status",
    "replicasets",
    "replicasets/scale",
    "replicasets/status",
    "statefulsets",
    "statefulsets/scale",
    "statefulsets/status",
];

fn cluster_roles() -> Vec<(&'static str, Value)> {
    let everything = json!([rule(ALL, ALL, ALL), {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let view = json!([
        rule(&[""], CORE, READ),
        rule(&[""], &["namespaces", "namespaces/status"], READ),
        rule(&["apps"], WORKLOADS, READ),
        rule(&["batch"], &["jobs", "jobs/status"], READ),
        rule(&["discovery.k8s.io"], &["endpointslices"], READ),
        rule(&["policy"], &["poddisruptionbudgets"], READ),
        rule(&["source.toolkit.fluxcd.io", "kustomize.toolkit.fluxcd.io"], ALL, READ),
    ]);
    let edit = json!([
        rule(&[""], CORE, WRITE),
        rule(
            &[""],
            &["secrets"],
            &["get", "list", "watch", "create", "delete", "deletecollection", "patch", "update"]
        ),
        rule(&[""], &["pods/attach", "pods/exec", "pods/portforward", "pods/eviction"], &["create", "get"]),
        rule(&[""], &["serviceaccounts"], &["impersonate"]),
        rule(&[""], &["serviceaccounts/token"], &["create"]),
        rule(&["apps"], WORKLOADS, WRITE),
        rule(&["batch"], &["jobs", "jobs/status"], WRITE),
        rule(&["policy"], &["poddisruptionbudgets"], WRITE),
        rule(
            &["coordination.k8s.io"],
            &["leases"],
            &["get", "list", "watch", "create", "delete", "deletecollection", "patch", "update"]
        ),
    ]);
    let admin = json!([
        rule(
            &["rbac.authorization.k8s.io"],
            &["roles", "rolebindings"],
            &["get", "list", "watch", "create", "delete", "deletecollection", "patch", "update"]
        ),
        rule(&["authorization.k8s.io"], &["localsubjectaccessreviews"], &["create"]),
    ]);
    vec![
        role("cluster-admin", everything),
        aggregating("admin", None),
        aggregating("edit", Some("admin")),
        aggregating("view", Some("edit")),
        part_of(&["admin"], "system:aggregate-to-admin", admin),
        part_of(&["edit", "admin"], "system:aggregate-to-edit", edit),
        part_of(&["view", "edit", "admin"], "system:aggregate-to-view", view),
        role("system:discovery", json!([{"nonResourceURLs": discovery, "verbs": ["get"]}])),
        role(
            "system:public-info-viewer",
            json!([{"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}]),
        ),
        role(
            "system:basic-user",
            json!([
                rule(
                    &["authorization.k8s.io"],
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    &["create"]
                ),
                rule(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
            ]),
        ),
        role(
            "system:service-account-issuer-discovery",
            json!([{"nonResourceURLs": ["/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/"], "verbs": ["get"]}]),
        ),
        role("system:node", node_rules()),
        role("system:kube-scheduler", scheduler_rules()),
        role("system:service-publisher", json!([rule(&[""], &["services"], &["patch"])])),
        // The garbage collector and the namespace controller delete whatever there is.
        role("system:kube-controller-manager", json!([rule(ALL, ALL, ALL)])),
    ]
}

fn node_rules() -> Value {
    json!([
        rule(&[""], &["nodes"], &["create", "get", "list", "watch", "update", "patch"]),
        rule(&[""], &["nodes/status"], &["update", "patch"]),
        rule(&[""], &["pods"], &["get", "list", "watch", "create", "delete"]),
        rule(&[""], &["pods/status"], &["update", "patch"]),
        rule(
            &[""],
            &[
                "services",
                "endpoints",
                "configmaps",
                "secrets",
                "namespaces",
                "serviceaccounts",
                "persistentvolumes",
                "persistentvolumeclaims"
            ],
            READ
        ),
        rule(&[""], &["services/status"], &["update", "patch"]),
        rule(&[""], &["serviceaccounts/token"], &["create"]),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
        rule(&["discovery.k8s.io"], &["endpointslices"], READ),
        rule(
            &["coordination.k8s.io"],
            &["leases"],
            &["create", "get", "list", "watch", "update", "patch", "delete"]
        ),
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
    ])
}

fn scheduler_rules() -> Value {
    json!([
        rule(
            &[""],
            &["nodes", "pods", "namespaces", "persistentvolumes", "persistentvolumeclaims", "services"],
            READ
        ),
        rule(&[""], &["pods"], &["delete"]),
        rule(&[""], &["pods/binding", "bindings"], &["create"]),
        rule(&[""], &["pods/status"], &["patch", "update"]),
        rule(&[""], &["persistentvolumeclaims"], &["patch", "update"]),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
        rule(&["apps"], &["replicasets", "statefulsets"], READ),
        rule(&["policy"], &["poddisruptionbudgets"], READ),
        rule(&["storage.k8s.io"], &["storageclasses"], READ),
        rule(&["scheduling.k8s.io"], &["priorityclasses"], READ),
        rule(&["coordination.k8s.io"], &["leases"], &["create", "get", "list", "watch", "update", "patch"]),
    ])
}

fn bindings() -> Vec<(&'static str, Value)> {
    let binding = |name: &str, role: &str, subjects: &[(&str, &str)]| {
        let mut binding = object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", name);
        let group = "rbac.authorization.k8s.io";
        binding["roleRef"] = json!({"apiGroup": group, "kind": "ClusterRole", "name": role});
        let subjects =
            subjects.iter().map(|(kind, name)| json!({"apiGroup": group, "kind": kind, "name": name}));
        binding["subjects"] = subjects.collect();
        binding["metadata"]["labels"] = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        (BINDINGS, binding)
    };
    vec![
        binding("cluster-admin", "cluster-admin", &[("Group", MASTERS)]),
        binding("system:discovery", "system:discovery", &[("Group", AUTHENTICATED)]),
        binding("system:basic-user", "system:basic-user", &[("Group", AUTHENTICATED)]),
        binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            &[("Group", AUTHENTICATED), ("Group", UNAUTHENTICATED)],
        ),
        binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            &[("Group", "system:serviceaccounts")],
        ),
        binding("system:node", "system:node", &[("Group", "system:nodes")]),
        binding("system:kube-scheduler", "system:kube-scheduler", &[("User", "system:kube-scheduler")]),
        binding(
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            &[("User", "system:kube-controller-manager")],
        ),
        binding(
            "system:service-publisher",
            "system:service-publisher",
            &[("User", "system:service-publisher")],
        ),
        binding("kedge:gitops", "cluster-admin", &[("User", "system:gitops")]),
    ]
}

/// What an aggregated server needs to believe us who asks.
fn authentication_reader() -> Value {
    let name = "extension-apiserver-authentication";
    let mut role = object("rbac.authorization.k8s.io/v1", "Role", &format!("{name}-reader"));
    role["metadata"]["labels"] = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    role["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
    let mut read = rule(&[""], &["configmaps"], READ);
    read["resourceNames"] = json!([name]);
    role["rules"] = json!([read]);
    role
}

fn others(server: &ApiServer) -> Vec<(&'static str, Value)> {
    let config = &server.0.config;
    let mut class = object("storage.k8s.io/v1", "StorageClass", DEFAULT_STORAGE_CLASS);
    class["metadata"]["annotations"] = json!({annotations::DEFAULT_STORAGE_CLASS: "true"});
    class["provisioner"] = LOCAL_PROVISIONER.into();
    class["volumeBindingMode"] = "WaitForFirstConsumer".into();
    let priority = |name: &str, value: i64, text: &str| {
        let mut class = object("scheduling.k8s.io/v1", "PriorityClass", name);
        class["value"] = value.into();
        class["description"] = text.into();
        ("/apis/scheduling.k8s.io/v1/priorityclasses", class)
    };
    let (ip, port) = (config.advertise.ip().to_string(), config.advertise.port());
    let mut kubernetes = object("v1", "Service", "kubernetes");
    kubernetes["metadata"]["labels"] = json!({"component": "apiserver", "provider": "kubernetes"});
    let cluster_ip = base::constants::ranges::KUBERNETES_SERVICE_IP;
    kubernetes["spec"] = json!({"type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
        "ports": [{"name": "https", "port": 443, "targetPort": port, "protocol": "TCP"}]});
    let mut slice = object("discovery.k8s.io/v1", "EndpointSlice", "kubernetes");
    slice["metadata"]["labels"] = json!({labels::SERVICE_NAME: "kubernetes"});
    slice["addressType"] = "IPv4".into();
    slice["endpoints"] = json!([{"addresses": [ip], "conditions": {"ready": true}}]);
    slice["ports"] = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let mut endpoints = object("v1", "Endpoints", "kubernetes");
    // The slice above is its mirror.
    endpoints["metadata"]["labels"] = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    endpoints["subsets"] =
        json!([{"addresses": [{"ip": ip}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]);
    let mut dns = object("v1", "Service", "kube-dns");
    let dns_ip = config.dns_address.to_string();
    dns["metadata"]["labels"] = json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    dns["spec"] = json!({"type": "ClusterIP", "clusterIP": dns_ip, "clusterIPs": [dns_ip], "ports": [
        {"name": "dns", "port": ports::DNS, "protocol": "UDP"}, {"name": "dns-tcp", "port": ports::DNS, "protocol": "TCP"}]});
    vec![
        ("/apis/storage.k8s.io/v1/storageclasses", class),
        priority(
            "system-cluster-critical",
            2_000_000_000,
            "Pods that the cluster cannot do without; they may move to another node.",
        ),
        priority("system-node-critical", 2_000_001_000, "Pods that their node cannot do without."),
        ("/api/v1/namespaces/default/services", kubernetes),
        ("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice),
        ("/api/v1/namespaces/default/endpoints", endpoints),
        ("/api/v1/namespaces/kube-system/services", dns),
        ("/api/v1/namespaces/kube-system/configmaps", server.0.aggregation.authentication(&config.authority)),
        ("/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles", authentication_reader()),
    ]
}
