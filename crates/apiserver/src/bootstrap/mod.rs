//! What every cluster has from its first moment: namespaces, roles and their bindings, priority levels and flow schemas,
//! priority classes, the default storage class, the services of the server itself and of DNS. Applied at every start, through the
//! pipeline like anything else, so that an upgrade brings its own.

pub(crate) mod flowcontrol;
pub(crate) mod namespaces;
mod roles;

use ::http::{Method, Request};
use api::status::ApiError;
use base::constants::{DEFAULT_STORAGE_CLASS, LOCAL_PROVISIONER, annotations, labels, ports};
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::ApiServer;
use crate::auth::{Identity, MASTERS};
use crate::http::body::{self, Body, full};
use roles::{lines, list};

pub async fn run(server: &ApiServer) -> Result<(), ApiError> {
    namespaces::make(server).await?;
    let others = others(server).into_iter().map(|(path, object)| (path.to_owned(), object));
    let rest: Vec<(String, Value)> = roles::all().into_iter().chain(others).collect();
    try_join_all(rest.iter().map(|(path, object)| apply(server, path, object.clone()))).await?;
    service_range(server).await?;
    tracked_since(server).await?;
    crate::fairness::settle(server).await
}

/// Since when it is noted on Secrets when their tokens were used: what bears no date was not used since.
async fn tracked_since(server: &ApiServer) -> Result<(), ApiError> {
    const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
    const NAMESPACE: &str = "kube-system";
    let kinds = server.0.catalog.snapshot();
    let kind = kinds.find("", "v1", "configmaps").ok_or_else(ApiError::no_such_path)?;
    let is_date = |text: &str| text.parse::<jiff::civil::Date>().is_ok();
    let found = server.0.objects.get(kind, NAMESPACE, NAME).await?;
    if found.is_some_and(|(_, map)| map["data"]["since"].as_str().is_some_and(is_date)) {
        return Ok(());
    }
    let mut map = object("v1", "ConfigMap", NAME);
    map["data"] = json!({"since": base::time::now().strftime("%Y-%m-%d").to_string()});
    apply(server, &format!("/api/v1/namespaces/{NAMESPACE}/configmaps"), map).await
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
    sent(server, request, &[]).await
}

/// Asks the server itself. These codes are as good as success.
pub(crate) async fn sent(
    server: &ApiServer,
    request: Request<Body>,
    tolerated: &[u16],
) -> Result<(), ApiError> {
    let uri = request.uri().clone();
    let who = Identity::new("system:apiserver", &[MASTERS]);
    let answer = server.handle(request, Some(who)).await;
    let code = answer.status();
    if code.is_success() || tolerated.contains(&code.as_u16()) {
        return Ok(());
    }
    let text = match body::read(answer.into_body(), 1 << 20).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    Err(ApiError::internal(format!("{uri}: {code}: {text}")))
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
    ]
}
