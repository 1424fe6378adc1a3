//! What protection costs, in percent: rights, audit and encryption, each with and without, in turns on one machine so that
//! both see the same noise.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;
use testkit::Cluster;
use testkit::api::Api;

use crate::Row;
use crate::api::runtime;
use crate::load::load;

const CLIENTS: usize = 16;
/// Each side is measured so often, in turns; the best counts: noise only ever slows.
const ROUNDS: usize = 3;
const BOUND: &[(&str, &str)] = &[("content-type", "application/json"), ("impersonate-user", "bench")];
const MASTER: &[(&str, &str)] = &[
    ("content-type", "application/json"),
    ("impersonate-user", "bench"),
    ("impersonate-group", "system:masters"),
];
const PLAIN: &[(&str, &str)] = &[("content-type", "application/json")];

/// What is asked again and again.
#[derive(Clone, Copy)]
enum Work {
    Read,
    Create(&'static str),
}

pub fn run(executable: &Path) -> Vec<Row> {
    let runtime = runtime();
    let start = |options: &dyn Fn(&Cluster) -> Vec<String>| {
        let prepared = Cluster::prepare(executable);
        let options = options(&prepared);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut cluster = prepared.told("node-1", &options);
        cluster.launch();
        let api = Api::read(&cluster.data_dir().join("kubeconfig"));
        (cluster, api)
    };
    let usual = start(&|_| Vec::new());
    let audited = start(&|cluster| {
        vec!["--audit-log-path".into(), cluster.folder().join("audit.log").display().to_string()]
    });
    let open = start(&|cluster| {
        let file = cluster.folder().join("encryption.yaml");
        let text = "{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, \
                    resources: [{resources: [secrets], providers: [{identity: {}}]}]}";
        std::fs::write(&file, text).expect("writes");
        vec!["--encryption-provider-config".into(), file.display().to_string()]
    });
    runtime.block_on(prepare(&usual.1));
    runtime.block_on(prepare(&audited.1));
    let compare = |what: &str, work: Work, without: (&Api, Headers), with: (&Api, Headers)| {
        let (mut bare, mut guarded) = (0_f64, 0_f64);
        for _ in 0..ROUNDS {
            bare = bare.max(runtime.block_on(rate(without.0, without.1, work)));
            guarded = guarded.max(runtime.block_on(rate(with.0, with.1, work)));
        }
        let cost = (bare / guarded - 1.0) * 100.0;
        Row::new(what, format!("{cost:+.1} %"), "", format!("{bare:.0}/s without, {guarded:.0}/s with"))
    };
    let (usual, audited, open) = (&usual.1, &audited.1, &open.1);
    let maps = Work::Create("configmaps");
    vec![
        compare("rights (RBAC), reads", Work::Read, (usual, MASTER), (usual, BOUND)),
        compare("rights (RBAC), writes", maps, (usual, MASTER), (usual, BOUND)),
        compare("audit (Metadata), reads", Work::Read, (usual, PLAIN), (audited, PLAIN)),
        compare("audit (Metadata), writes", maps, (usual, PLAIN), (audited, PLAIN)),
        compare("encryption, writes of Secrets", Work::Create("secrets"), (open, PLAIN), (usual, PLAIN)),
    ]
}

type Headers = &'static [(&'static str, &'static str)];

/// A user with rights of a role, and something to read. Nobody of that name queues: masters do not either, and what is compared is
/// what it costs to look rights up.
async fn prepare(api: &Api) {
    let mut connection = api.connect().await;
    let group = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "bench"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]}]});
    connection.done("POST", &format!("{group}/clusterroles"), role.to_string()).await;
    let binding = json!({"metadata": {"name": "bench"},
        "subjects": [{"kind": "User", "name": "bench", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "bench", "apiGroup": "rbac.authorization.k8s.io"}});
    connection.done("POST", &format!("{group}/clusterrolebindings"), binding.to_string()).await;
    let schema = json!({"metadata": {"name": "bench"}, "spec": {"matchingPrecedence": 2,
        "priorityLevelConfiguration": {"name": "exempt"}, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "bench"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]}]}});
    let flows = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    connection.done("POST", flows, schema.to_string()).await;
    let map = json!({"metadata": {"name": "read"}, "data": {"v": "x".repeat(256)}});
    connection.done("POST", "/api/v1/namespaces/default/configmaps", map.to_string()).await;
}

async fn rate(api: &Api, headers: Headers, work: Work) -> f64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let value = "x".repeat(256);
    let done = load(CLIENTS, async |end, latencies: &mut Vec<f64>| {
        let mut connection = api.connect().await;
        while Instant::now() < end {
            let started = Instant::now();
            match work {
                Work::Read => {
                    let path = "/api/v1/namespaces/default/configmaps/read";
                    connection.done_with("GET", path, headers, "").await;
                }
                Work::Create(plural) => {
                    let name = format!("p-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
                    let field = if plural == "secrets" { "stringData" } else { "data" };
                    let object = json!({"metadata": {"name": name}, field: {"v": value}}).to_string();
                    let path = format!("/api/v1/namespaces/default/{plural}");
                    connection.done_with("POST", &path, headers, object).await;
                }
            }
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    })
    .await;
    done.per_second
}
