//! Two thousand CustomResourceDefinitions, as the large providers of the cloud bring them, beside the original.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::Cluster;
use testkit::api::Api;

use crate::Row;
use crate::api::runtime;
use crate::idle::pss_mib;
use crate::load::join_all;
use crate::original::Original;

const DEFINITIONS: usize = 2000;
const PER_GROUP: usize = 20;
const CLIENTS: usize = 16;
const LIMIT: Duration = Duration::from_secs(600);

const WHAT: [(&str, &str); 6] = [
    ("2,000 definitions, created and served", "s"),
    ("memory for 2,000 definitions (PSS)", "MiB"),
    ("OpenAPI v2 of all of them", "s"),
    ("OpenAPI v3 of one group", "ms"),
    ("an object of the last of them", "ms"),
    ("start-up with 2,000 definitions", "s"),
];

pub fn run(executable: &Path) -> Vec<Row> {
    let mut cluster = Cluster::start(executable);
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let mut ours = measure("kedge", &api, &[cluster.server_pid()]);
    cluster.kill();
    let started = Instant::now();
    cluster.launch();
    served(&Api::read(&cluster.data_dir().join("kubeconfig")));
    ours.push(started.elapsed().as_secs_f64());
    let theirs = Original::start(cluster.folder()).map(|mut original| {
        let mut numbers = measure("the original", &original.api(), &original.pids());
        let started = Instant::now();
        original.restart();
        served(&original.api());
        numbers.push(started.elapsed().as_secs_f64());
        numbers
    });
    let shown = |value: f64, unit: &str| format!("{value:.1} {unit}");
    let row = |at: usize, (what, unit): &(&str, &str)| {
        let beside = match &theirs {
            Some(theirs) => {
                let ratio = theirs[at] / ours[at].max(0.001);
                format!("kube-apiserver: {} → {ratio:.1} × better", shown(theirs[at], unit))
            }
            None => "kube-apiserver is not installed".to_owned(),
        };
        Row::new(*what, shown(ours[at], unit), "", beside)
    };
    WHAT.iter().enumerate().map(|(at, what)| row(at, what)).collect()
}

fn group(number: usize) -> String {
    format!("g{}.bench.kedge.example", number / PER_GROUP)
}

fn plural(number: usize) -> String {
    format!("r{}s", number % PER_GROUP)
}

/// About as large as one of a small resource of a cloud.
fn definition(number: usize) -> Value {
    let (group, plural, kind) = (group(number), plural(number), format!("R{}", number % PER_GROUP));
    let text = |n: usize| json!({"type": "string", "maxLength": 253, "description": format!("What the provider calls property {n} of this resource, as its documentation has it.")});
    let parameters: serde_json::Map<String, Value> =
        (0..24).map(|n| (format!("parameter{n}"), text(n))).collect();
    let section = json!({"type": "object", "required": ["parameter0"], "properties": parameters});
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"forProvider": section,
            "replicas": {"type": "integer", "minimum": 0, "default": 1}},
            "x-kubernetes-validations": [{"rule": "self.replicas <= 100", "message": "too many"}]},
        "status": {"type": "object", "properties": {"atProvider": section.clone()}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Cluster",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema}}]}})
}

fn measure(who: &str, api: &Api, pids: &[u32]) -> Vec<f64> {
    let memory = || pids.iter().map(|pid| pss_mib(*pid)).sum::<f64>();
    let step = |text: &str| eprintln!("   {who}: {text}");
    let mut numbers = Vec::new();
    let before = memory();
    step("2,000 definitions");
    let started = Instant::now();
    runtime().block_on(create(api));
    served(api);
    numbers.push(started.elapsed().as_secs_f64());
    let held = memory() - before;
    step("what they say of themselves");
    let timed = |path: &str| {
        runtime().block_on(async {
            let mut connection = api.connect().await;
            let started = Instant::now();
            connection.done("GET", path, "").await;
            started.elapsed().as_secs_f64()
        })
    };
    let (v2, v3) = (timed("/openapi/v2"), timed(&format!("/openapi/v3/apis/{}/v1", group(0))));
    numbers.extend([held, v2, v3 * 1000.0]);
    let last = DEFINITIONS - 1;
    numbers.push(
        1000.0
            * runtime().block_on(async {
                let mut connection = api.connect().await;
                let object = json!({"apiVersion": format!("{}/v1", group(last)), "kind": format!("R{}", last % PER_GROUP),
                    "metadata": {"name": "a"}, "spec": {"forProvider": {"parameter0": "x"}}});
                let path = format!("/apis/{}/v1/{}", group(last), plural(last));
                let started = Instant::now();
                connection.done("POST", &path, object.to_string()).await;
                started.elapsed().as_secs_f64()
            }),
    );
    numbers
}

async fn create(api: &Api) {
    let next = AtomicUsize::new(0);
    let clients = (0..CLIENTS).map(|_| async {
        let mut connection = api.connect().await;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= DEFINITIONS {
                return;
            }
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            connection.done("POST", path, definition(number).to_string()).await;
        }
    });
    join_all(clients.collect()).await;
}

/// Returns once objects of every definition can be listed.
fn served(api: &Api) {
    let missing = AtomicUsize::new(0);
    testkit::until("every definition is served", LIMIT, || {
        runtime().block_on(async {
            let mut connection = api.try_connect().await.map_err(|e| e.to_string())?;
            loop {
                let number = missing.load(Ordering::Relaxed);
                if number == DEFINITIONS {
                    return Ok(());
                }
                let path = format!("/apis/{}/v1/{}?limit=1", group(number), plural(number));
                let code = connection.send("GET", &path, "").await.status();
                if !code.is_success() {
                    return Err(format!("definition {number} is answered with {code}"));
                }
                missing.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
}
