//! What is secret is told to nobody but those who may read it: neither in the log, however much it tells, nor in answers, nor in
//! metrics, nor on the disk but where a container's own variables have to stand, whatever goes wrong with it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use testkit::api::{Api, Connection};
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(60);

/// Words that stand nowhere but in what is secret.
fn canary(number: u32) -> String {
    format!("canary-{number}-{:08x}", std::process::id().wrapping_mul(2_654_435_761).rotate_left(number))
}

/// As it is, and in each way that it may be written.
fn is_in(text: &[u8], secret: &str) -> bool {
    let forms = [secret.to_owned(), STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret), hex(secret)];
    // Within something longer, base64 has another beginning and end: the middle of each shift is the same.
    let shifted = (0..3).map(|shift| {
        let whole = STANDARD.encode(format!("{}{secret}", "x".repeat(shift)));
        whole[4..whole.len() - 4].to_owned()
    });
    forms
        .into_iter()
        .chain(shifted)
        .any(|form| text.windows(form.len()).any(|window| window == form.as_bytes()))
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

async fn ask(
    connection: &mut Connection,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> (u16, Vec<u8>) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = connection.send_with(method, path, headers, body).await;
    let code = answer.status().as_u16();
    (code, answer.into_body().collect().await.expect("a body").to_bytes().to_vec())
}

const JSON: (&str, &str) = ("content-type", "application/json");
const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");
const STRICT: &str = "?fieldValidation=Strict";

/// What is done with secrets, rightly and wrongly; the answers, which those who asked may see.
async fn use_them(kubeconfig: &Path, canaries: &[String]) -> Vec<(u16, String)> {
    let mut c = Api::read(kubeconfig).connect().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let stranger = ("impersonate-user", "stranger");
    let encoded = |n: usize| STANDARD.encode(&canaries[n]);
    let secret = |name: &str, n: usize| json!({"metadata": {"name": name}, "data": {"k": encoded(n)}});
    let tries = [
        (201, "POST", secrets.to_owned(), vec![JSON], secret("kept", 0)),
        (409, "POST", secrets.to_owned(), vec![JSON], secret("kept", 1)),
        (403, "POST", secrets.to_owned(), vec![JSON, stranger], secret("strange", 2)),
        (403, "GET", format!("{secrets}/kept"), vec![stranger], Value::Null),
        (200, "PATCH", format!("{secrets}/kept"), vec![MERGE], json!({"stringData": {"s": canaries[3]}})),
        (422, "PATCH", format!("{secrets}/kept"), vec![MERGE], json!({"type": canaries[4]})),
        // Told with all of the object, by the original: whoever may change it may not read it for that.
        (422, "PATCH", format!("{secrets}/kept"), vec![MERGE], json!({"metadata": {"labels": "x"}})),
        (
            400,
            "POST",
            format!("{secrets}{STRICT}"),
            vec![JSON],
            json!({"metadata": {"name": "x"}, "dota": {"k": canaries[5]}}),
        ),
        (
            422,
            "POST",
            secrets.to_owned(),
            vec![JSON],
            json!({"metadata": {"name": "b"}, "type": "kubernetes.io/tls", "data": {"tls.key": encoded(6)}}),
        ),
        (
            201,
            "POST",
            "/api/v1/namespaces/kube-system/secrets".to_owned(),
            vec![JSON],
            json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "stringData": {
                "token-id": "abcdef", "token-secret": canaries[8], "usage-bootstrap-authentication": "true"}}),
        ),
    ];
    let mut answers = Vec::new();
    for (wanted, method, path, headers, body) in tries {
        let (code, answer) = ask(&mut c, method, &path, &headers, body).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(code, wanted, "{method} {path}: {text}");
        if code >= 400 {
            answers.push((code, text));
        }
    }
    // One that nobody knows, as the only thing that is shown.
    let (code, answer) =
        ask(&mut Api::by_token(kubeconfig, &canaries[7]).connect().await, "GET", secrets, &[], Value::Null)
            .await;
    assert_eq!(code, 401);
    answers.push((code, String::from_utf8_lossy(&answer).into_owned()));
    answers
}

#[test]
fn secrets_are_told_nowhere() {
    let mut cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge")).told("node-1", &["--log", "trace"]);
    cluster.launch();
    cluster.busybox();
    let canaries: Vec<String> = (0..9).map(canary).collect();
    let kubeconfig = cluster.data_dir().join("kubeconfig");
    let api = Api::read(&kubeconfig);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answers = runtime.block_on(use_them(&kubeconfig, &canaries));
    // Refused, or mistaken: the answer goes to logs of clients.
    for (code, text) in &answers {
        let own = canaries.iter().find(|secret| is_in(text.as_bytes(), secret));
        // What stands where no secret belongs is told as any wrong value.
        let misplaced = [&canaries[4]];
        assert!(own.is_none_or(|own| misplaced.contains(&own)), "{code} {text}");
    }
    // A pod that has it as a variable and as a file, and fails.
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: fails}\nspec:\n  restartPolicy: Never\n  volumes: [{name: v, secret: {secretName: kept}}]\n  containers:\n  - name: c\n    \
        image: localhost/busybox:1\n    command: [sh, -c, 'test -n \"$K\" && test -s /v/k && exit 7']\n    envFrom: [{secretRef: {name: kept}}]\n    env: [{name: K, valueFrom: {secretKeyRef: {name: \
        kept, key: k}}}]\n    volumeMounts: [{name: v, mountPath: /v}]\n";
    cluster.apply(pod).ok();
    until("the pod fails, with its secret", LIMIT, || {
        let pod = cluster.get("pod", "default", "fails")?;
        let code = &pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
        if *code == 7 { Ok(()) } else { Err(pod["status"].to_string()) }
    });
    let token = runtime.block_on(async {
        let mut c = api.connect().await;
        let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
        let answer: Value = serde_json::from_slice(&c.done("POST", path, "{}").await).expect("JSON");
        answer["status"]["token"].as_str().expect("a token").to_owned()
    });
    let signature = token.rsplit('.').next().expect("a signature").to_owned();
    let metrics = runtime.block_on(async { api.connect().await.done("GET", "/metrics", "").await });
    let log = std::fs::read(cluster.data_dir().join("server.log")).expect("a log");
    assert!(is_in(&log, "/api/v1/namespaces/default/secrets/kept"), "the log tells of no request");
    for secret in canaries.iter().filter(|secret| **secret != canaries[4]).chain([&signature]) {
        assert!(!is_in(&log, secret), "{secret} is in the log");
        assert!(!is_in(&metrics, secret), "{secret} is in the metrics");
    }
    let described = cluster.kedge(&["describe", "secret", "kept"]).ok()
        + &cluster.kedge(&["describe", "pod", "fails"]).ok();
    let shown = cluster.kedge(&["get", "secrets,pods,events", "-A", "-o", "wide"]).ok();
    for secret in [&canaries[0], &canaries[3], &canaries[8]] {
        assert!(
            !is_in(described.as_bytes(), secret) && !is_in(shown.as_bytes(), secret),
            "{described}\n{shown}"
        );
    }
    // At rest as well, but for what a container is started with: its variables stand where its runtime reads them, as they do
    // with other runtimes, in a folder that is its owner's alone.
    cluster.kill();
    let variables = [&canaries[0], &canaries[3]];
    let mut read = 0;
    for path in files_on_disk(&cluster.data_dir()) {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        read += 1;
        let starts = path.ends_with("container.json") || path.ends_with("config.json");
        let secrets = canaries
            .iter()
            .filter(|secret| **secret != canaries[4] && !(starts && variables.contains(secret)));
        let found = secrets.into_iter().find(|secret| is_in(&bytes, secret));
        assert!(found.is_none(), "{found:?} lies in {}", path.display());
    }
    assert!(read > 10, "{read} files were read");
    let containers = base::layout::Layout::new(cluster.data_dir()).containers();
    let mode = std::fs::metadata(containers).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

/// Of a folder, without what is mounted in it (volumes of secrets are in memory) and the layers of images.
fn files_on_disk(top: &Path) -> Vec<PathBuf> {
    let device = std::fs::metadata(top).expect("a folder").dev();
    let (mut folders, mut files) = (vec![top.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.path().symlink_metadata() else { continue };
            let is_image = entry.path() == top.join("images");
            match metadata.file_type() {
                kind if kind.is_dir() && metadata.dev() == device && !is_image => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files
}
