//! Audit by the real program: its options, the file, and what it says of a policy that is wrong.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use testkit::Cluster;

#[test]
fn what_people_and_components_ask_is_kept_in_a_file_of_ones_own() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    let file = |name: &str| cluster.folder().join(name).to_str().expect("a plain path").to_owned();
    let (policy, log) = (file("policy.yaml"), file("audit.log"));
    std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: All}]}")
        .expect("writes");
    let mut cluster = cluster.told(
        "node-1",
        &["--audit-policy-file", &policy, "--audit-log-path", &log, "--audit-log-maxsize", "10"],
    );
    let told = cluster.launch_in_vain();
    assert!(told.contains("policy.yaml: rules[0].level: Unsupported value: \"All\""), "{told}");
    let good = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Request, resources: [{resources: [configmaps]}]}, {level: Metadata}]}";
    std::fs::write(&policy, good).expect("writes");
    cluster.launch();
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: seen}}\n---\n{apiVersion: v1, kind: Secret, metadata: {name: hidden}, stringData: {a: unseen}}").ok();
    let text = std::fs::read_to_string(&log).expect("a log");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let about = |name: &str| {
        let found = events.iter().find(|e| e["objectRef"]["name"] == name && e["verb"] != "get");
        found.unwrap_or_else(|| panic!("nothing about {name}")).clone()
    };
    let kept = about("kept");
    assert_eq!(kept["requestObject"]["data"]["a"], "seen", "{kept}");
    assert_eq!(kept["sourceIPs"], serde_json::json!(["127.0.0.1"]), "{kept}");
    assert!(about("hidden").get("requestObject").is_none());
    assert!(!text.contains("unseen") && !text.contains("dW5zZWVu"));
    let by_component = |e: &&Value| e["user"]["username"] == "system:kube-controller-manager";
    assert!(events.iter().any(|e| by_component(&e)), "components are audited like anybody");
    let mode = std::fs::metadata(&log).expect("a log").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
