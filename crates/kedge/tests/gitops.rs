//! Git drives the cluster: the example from a repository to its URL, rollouts without a failed request, broken commits
//! that change nothing, drift, pruning, suspension, and data that stays.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Cluster, Repository, flux, http, until};

const LIMIT: Duration = Duration::from_secs(60);
const OVERLAY: &str = "examples/shop/deploy/overlays/dev/kustomization.yaml";

/// A repository with the example in it, as a user's clone would be, with the built program in place.
fn shop(cluster: &Cluster) -> Repository {
    let root =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository");
    let repository = Repository::new(cluster.folder().join("repo"));
    repository
        .copy(&root.join("kedge.yaml"), "kedge.yaml")
        .copy(&root.join("examples/shop"), "examples/shop");
    repository.write(".gitignore", "bin/\n");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_kedge")).with_file_name("shop");
    assert!(program.exists(), "{} is missing: run `cargo build --package shop` first", program.display());
    let bin = repository.path().join("examples/shop/bin");
    std::fs::create_dir_all(&bin).expect("a folder");
    std::fs::copy(&program, bin.join("shop")).expect("copied");
    repository.commit("the shop");
    repository
}

fn up(cluster: &Cluster, repository: &Repository, words: &[&str]) -> String {
    let mut command =
        cluster.command(&["up", repository.path().to_str().expect("a plain path"), "--timeout", "2m"]);
    command.args(["--api-port", "0"]).args(words);
    let output = command.output().expect("kedge runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kedge up failed:\n{text}\n{}", cluster.log());
    text
}

/// The port of the host where the shop answers.
fn port(cluster: &Cluster) -> u16 {
    until("a published port", LIMIT, || {
        let status: Value = serde_json::from_str(&cluster.kedge(&["status", "-o", "json"]).stdout)
            .map_err(|e| e.to_string())?;
        let url =
            status["urls"][0].as_str().or(status["urls"][0]["url"].as_str()).unwrap_or_default().to_owned();
        url.trim_end_matches('/')
            .rsplit(':')
            .next()
            .and_then(|p| p.parse().ok())
            .ok_or_else(|| status.to_string())
    })
}

fn kustomization(cluster: &Cluster) -> Result<Value, String> {
    let all = cluster.list("kustomizations", "gitops")?;
    all.into_iter().next().ok_or_else(|| "there is no Kustomization".to_owned())
}

/// Waits until a commit is applied and ready.
fn wait_for(cluster: &Cluster, name: &str, commit: &str) {
    flux::wait_applied(cluster, name, commit, LIMIT);
}

#[test]
fn from_a_repository_to_an_answer_and_the_data_stays() {
    let mut cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    let repository = shop(&cluster);
    let text = up(&cluster, &repository, &[]);
    assert!(text.contains("http://localhost:"), "{text}");
    let port_before = port(&cluster);
    let (code, page) = until("the page", LIMIT, || http::get(port_before, "/"));
    assert_eq!(code, 200, "{page}");
    let (code, answer) = http::post(port_before, "/add", "application/x-www-form-urlencoded", "name=anchor")
        .expect("the form is taken");
    assert!(code < 400, "{code} {answer}");
    until("the item is listed", LIMIT, || match http::get(port_before, "/") {
        Ok((200, page)) if page.contains("anchor") => Ok(()),
        other => Err(format!("{other:?}")),
    });

    // The store's pod goes; its claim does not.
    let pods = cluster.list("pods", "shop").expect("pods");
    let names: Vec<String> =
        pods.iter().map(|p| p["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect();
    let store =
        names.iter().find(|n| n.contains("store")).unwrap_or_else(|| panic!("a store among {names:?}"));
    cluster.kedge(&["delete", "pod", store, "-n", "shop"]).ok();
    let listed = || match http::get(port(&cluster), "/") {
        Ok((200, page)) if page.contains("anchor") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("the item after the pod's deletion", LIMIT, listed);

    // A server that is killed and started again finds all of it running.
    let run: Value =
        serde_json::from_str(&std::fs::read_to_string(cluster.data_dir().join("run.json")).expect("it runs"))
            .expect("JSON");
    let pid = run["pid"].to_string();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill runs").success());
    cluster.launch();
    let listed = || match http::get(port(&cluster), "/") {
        Ok((200, page)) if page.contains("anchor") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("the item after the server's restart", LIMIT, listed);
    // That the source is fetched anew is no trouble of what is deployed from it.
    let events = cluster.list("events", "gitops").expect("events");
    let lost: Vec<&Value> = events.iter().filter(|event| event["reason"] == "ArtifactFailed").collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

/// Those who ask end with the one who looks, whatever becomes of it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_commit_and_the_way_to_prod_roll_out_without_a_failed_request() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    let repository = shop(&cluster);
    up(&cluster, &repository, &[]);
    let port = port(&cluster);
    until("the page", LIMIT, || http::get(port, "/"));
    // The next version of the image.
    let context = repository.path().join("examples/shop");
    let version = "localhost/shop:v2";
    cluster.kedge(&["build", "-t", version, context.to_str().expect("a plain path")]).ok();

    let stop = AtomicBool::new(false);
    let (asked, failed) = (AtomicUsize::new(0), parking(Vec::new()));
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    match http::get(port, "/") {
                        Ok((200, _)) => {}
                        other => failed.lock().expect("not poisoned").push(format!("{other:?}")),
                    }
                }
            });
        }
        let overlay = repository.read(OVERLAY);
        let changed = overlay.replace("v1", "v2").replace("blue", "green");
        assert_ne!(overlay, changed, "the overlay names no tag and no colour to change");
        repository.write(OVERLAY, &changed);
        let started = Instant::now();
        let commit = repository.commit("green, and v2");
        until("the commit is applied", LIMIT, || {
            let object = kustomization(&cluster)?;
            let attempted = object["status"]["lastAttemptedRevision"].as_str().unwrap_or_default().to_owned();
            if attempted.ends_with(&commit) { Ok(()) } else { Err(attempted) }
        });
        let applied = started.elapsed();
        wait_for(&cluster, "shop", &commit);
        println!("commit → applied {} ms → ready {} ms", applied.as_millis(), started.elapsed().as_millis());
        until("the new page", LIMIT, || match http::get(port, "/") {
            Ok((200, page)) if page.contains("green") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let workloads = cluster.list("deployments", "shop").expect("deployments");
        assert!(workloads.iter().any(|w| w.to_string().contains(":v2")), "{workloads:?}");

        // Built anew under the same names: all of it is replaced, the store as well, of which there is one.
        let dockerfile = repository.read("examples/shop/Dockerfile");
        repository.write("examples/shop/Dockerfile", &format!("{dockerfile}LABEL rebuilt=yes\n"));
        let told = up(&cluster, &repository, &[]);
        let replaced =
            told.lines().find(|line| line.contains("Replace what runs an older build")).unwrap_or_default();
        assert!(replaced.contains("Deployment/shop/store"), "{told}");
        until("the page of what was built anew", LIMIT, || match http::get(port, "/") {
            Ok((200, page)) if page.contains("green") => Ok(()),
            other => Err(format!("{other:?}")),
        });

        up(&cluster, &repository, &["--path", "examples/shop/deploy/overlays/prod"]);
        until("the page of prod", LIMIT, || match http::get(port, "/") {
            Ok((200, page)) if page.contains("navy") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    });
    let failed = failed.into_inner().expect("not poisoned");
    println!("{} requests", asked.load(Ordering::Relaxed));
    assert!(
        failed.is_empty(),
        "{} of {} requests failed: {:?}",
        failed.len(),
        asked.load(Ordering::Relaxed),
        &failed[..failed.len().min(5)]
    );
}

fn parking<T>(value: T) -> std::sync::Mutex<T> {
    std::sync::Mutex::new(value)
}

/// A small application of one Deployment and one ConfigMap.
fn small(cluster: &Cluster) -> (Repository, String) {
    cluster.busybox();
    let repository = Repository::new(cluster.folder().join("repo"));
    repository.write("app/kustomization.yaml", "namespace: demo\nresources: [app.yaml, extra.yaml]\n");
    repository.write(
        "app/extra.yaml",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: extra}, data: {a: b}}\n",
    );
    repository.write(
        "app/app.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 1\n  \
         selector: {matchLabels: {app: web}}\n  progressDeadlineSeconds: 600\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      \
         terminationGracePeriodSeconds: 0\n      containers:\n      - name: c\n        image: localhost/busybox:1\n        command: [sh, -c, 'mkdir -p /tmp/w; echo \
         v1 > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w']\n        readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: \
         LoadBalancer, selector: {app: web}, ports: [{port: 18081, targetPort: 8080}]}\n",
    );
    let commit = repository.commit("first");
    let url = repository.path().display();
    let manifest = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: gitops}}\n---\napiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {{name: app, \
         namespace: gitops}}\nspec: {{url: 'file://{url}', interval: 1m, ref: {{branch: main}}}}\n---\napiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: \
         Kustomization\nmetadata: {{name: app, namespace: gitops}}\nspec: {{interval: 1m, timeout: 3s, path: ./app, prune: true, wait: true, sourceRef: {{kind: \
         GitRepository, name: app}}}}\n"
    );
    cluster.apply(&manifest).ok();
    wait_for(cluster, "app", &commit);
    (repository, commit)
}

fn message_with(cluster: &Cluster, wanted: &[&str]) -> String {
    flux::wait_refused(cluster, "kustomization", "app", wanted, LIMIT)
}

#[test]
fn a_broken_commit_changes_nothing_and_is_explained() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let (repository, _) = small(&cluster);
    let good = repository.read("app/app.yaml");
    let pod_of = || {
        let pods = cluster.list("pods", "demo").expect("pods");
        let ready = pods.iter().find(|p| p["status"]["containerStatuses"][0]["ready"] == true);
        ready.map(|p| p["metadata"]["uid"].clone()).unwrap_or_default()
    };
    let serving = pod_of();
    assert!(!serving.is_null());
    let port = port(&cluster);
    let page = || http::get(port, "/index.html");
    until("the page", LIMIT, || {
        page().and_then(|(code, _)| if code == 200 { Ok(()) } else { Err(code.to_string()) })
    });

    // A commit, what the condition says of it, and what `kedge status` says.
    let refused = |text: &str, condition: &[&str], told: &[&str]| {
        repository.write("app/app.yaml", text);
        repository.commit("wrong");
        message_with(&cluster, condition);
        until(&format!("status says {told:?}"), LIMIT, || {
            let status = cluster.kedge(&["status"]);
            let says = status.code == Some(1) && told.iter().all(|words| status.stdout.contains(words));
            if says { Ok(()) } else { Err(format!("{status:?}")) }
        });
        assert_eq!(pod_of(), serving, "the old version still runs");
        assert_eq!(page(), Ok((200, "v1\n".to_owned())), "and serves");
    };
    let line = ["app/app.yaml: line 10"];
    refused(&good.replace("replicas: 1", "replicas: [1"), &line, &line);
    let field = ["Deployment/demo/web", ".spec.replicaz: field not declared in schema"];
    refused(&good.replace("replicas: 1", "replicaz: 1"), &field, &field);
    refused(
        &good.replace("path: /index.html", "path: /nowhere"),
        &["health check failed", "Deployment/demo/web"],
        &[
            "health check failed",
            "Deployment demo/web",
            "c: Readiness probe failed: HTTP probe failed with statuscode: 404",
        ],
    );

    repository.write("app/app.yaml", &good);
    let commit = repository.commit("good again");
    wait_for(&cluster, "app", &commit);
}

/// As `kubectl rollout restart` does it: Git says nothing of it, and it is not taken back, at once or later.
#[test]
fn a_restart_of_what_git_manages_runs_to_its_end() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let (repository, _) = small(&cluster);
    let path = "/apis/apps/v1/namespaces/demo/deployments/web?fieldManager=kubectl-rollout";
    let merge = "application/strategic-merge-patch+json";
    let restarted = "2026-01-01T00:00:00Z";
    let restart = format!(
        r#"{{"spec": {{"template": {{"metadata": {{"annotations": {{"kubectl.kubernetes.io/restartedAt": "{restarted}"}}}}}}}}}}"#
    );
    cluster.patch(path, merge, &restart);
    let annotations = |object: &Value| object["spec"]["template"]["metadata"]["annotations"].clone();
    let of = |annotations: &Value| annotations["kubectl.kubernetes.io/restartedAt"] == restarted;
    until("the new pod alone runs", LIMIT, || {
        let pods = cluster.list("pods", "demo")?;
        let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
        match pods.as_slice() {
            [pod] if of(&pod["metadata"]["annotations"]) && ready(pod) => Ok(()),
            pods => Err(format!("{pods:#?}")),
        }
    });
    // Another change by kubectl is undone, and a commit is applied, beside it.
    let paused = "/apis/apps/v1/namespaces/demo/deployments/web?fieldManager=kubectl-edit";
    cluster.patch(
        paused,
        merge,
        r#"{"spec": {"minReadySeconds": 1, "template": {"metadata": {"annotations": {"x": "y"}}}}}"#,
    );
    repository.write(
        "app/extra.yaml",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: extra}, data: {a: c}}\n",
    );
    let commit = repository.commit("another");
    wait_for(&cluster, "app", &commit);
    until("the edit is undone and the restart is not", LIMIT, || {
        let deployment = cluster.get("deployment", "demo", "web")?;
        let edited = deployment["spec"]["minReadySeconds"].as_i64().unwrap_or(0) != 0;
        let annotations = annotations(&deployment);
        if of(&annotations) && annotations["x"].is_null() && !edited {
            Ok(())
        } else {
            Err(deployment.to_string())
        }
    });
}

#[test]
fn drift_is_corrected_removal_prunes_and_suspension_holds() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let (repository, _) = small(&cluster);
    let edit =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: extra, namespace: demo}, data: {a: changed}}";
    cluster.kedge_with_input(&["apply", "--force-conflicts", "-f", "-"], edit).ok();
    until("the drift is corrected", LIMIT, || {
        let value = cluster.get("configmap", "demo", "extra")?["data"]["a"].clone();
        if value == "b" { Ok(()) } else { Err(value.to_string()) }
    });

    cluster.kedge(&["suspend", "app"]).ok();
    let late = cluster.kedge(&["reconcile", "app"]);
    assert!(late.stderr.contains("is suspended") && late.stderr.contains(": kedge resume app"), "{late:?}");
    // The same source, and not held: when it has come to a commit, the one that is held has had its chance.
    let other = "{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: other, namespace: gitops}, spec: {interval: 1m, timeout: 3s, path: \
        ./other, prune: true, wait: true, sourceRef: {kind: GitRepository, name: app}}}";
    repository
        .write("app/kustomization.yaml", "namespace: demo\nresources: [app.yaml]\n")
        .remove("app/extra.yaml")
        .write(
            "other/a.yaml",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: demo}, data: {a: b}}",
        );
    let commit = repository.commit("without the extra");
    cluster.apply(other).ok();
    wait_for(&cluster, "other", &commit);
    assert!(cluster.get("configmap", "demo", "extra").is_ok(), "suspended, and yet pruned");
    // So with what is changed by hand: of the two, one is changed back.
    for name in ["extra", "other"] {
        let edit = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: demo}}, data: {{a: by-hand}}}}"
        );
        cluster.kedge_with_input(&["apply", "--force-conflicts", "-f", "-"], &edit).ok();
    }
    let value = |name: &str| Ok::<_, String>(cluster.get("configmap", "demo", name)?["data"]["a"].clone());
    until("the drift of the other is corrected", LIMIT, || match value("other")? {
        value if value == "b" => Ok(()),
        value => Err(value.to_string()),
    });
    assert_eq!(value("extra"), Ok("by-hand".into()));
    cluster.kedge(&["resume", "app"]).ok();
    wait_for(&cluster, "app", &commit);
    until("the removed manifest is pruned", LIMIT, || match cluster.get("configmap", "demo", "extra") {
        Err(error) if error.contains("not found") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
