//! What a Kustomization says beside its path: the order of several, values put in after the build, and health that is
//! asked of a few objects only.

use std::time::Duration;

use testkit::{Cluster, Repository, flux, until};

const LIMIT: Duration = Duration::from_secs(60);

fn source(cluster: &Cluster) -> Repository {
    let repository = Repository::new(cluster.folder().join("repo"));
    repository.write("base/kustomization.yaml", "namespace: demo\nresources: [base.yaml]\n");
    repository.write(
        "base/base.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: store}\nspec:\n  selector: \
         {matchLabels: {app: store}}\n  template:\n    metadata: {labels: {app: store}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n      \
         - {name: c, image: 'localhost/busybox:1', command: [sleep, '10000'], readinessProbe: {exec: {command: [test, -e, /tmp/on]}, periodSeconds: 1}}\n",
    );
    repository.write("app/kustomization.yaml", "namespace: demo\nresources: [app.yaml]\n");
    repository.write(
        "app/app.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata:\n  greeting: ${greeting} ${name:=nobody}\n  region: '${region}'\n  password: \
         '${password}'\n  price: $${price}\n  nothing: a${unset:-default}b\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, annotations: \
         {kustomize.toolkit.fluxcd.io/substitute: disabled}}\ndata: {text: '${greeting}'}\n",
    );
    repository
}

/// The namespace and the source that all Kustomizations here are from.
fn git_repository(repository: &Repository) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: gitops}}\n---\napiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {{name: all, \
         namespace: gitops}}\nspec: {{url: '{}', interval: 1h, ref: {{branch: main}}}}\n",
        repository.path().display()
    )
}

fn kustomization(name: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: {name}, namespace: gitops}}\nspec:\n  interval: 1h\n  \
         retryInterval: 1s\n  timeout: 40s\n  prune: true\n  path: ./{name}\n  sourceRef: {{kind: GitRepository, name: all}}\n{rest}"
    )
}

#[test]
fn order_substitution_and_health_of_a_few() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let repository = source(&cluster);
    let commit = repository.commit("first");
    let mut manifest = git_repository(&repository);
    manifest += "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: place, namespace: gitops}\ndata: {region: north, greeting: overridden}\n";
    // The one that waits comes first: the order is the engine's to find.
    manifest += &kustomization(
        "app",
        "  dependsOn: [{name: base}]\n  postBuild:\n    substitute: {greeting: hello}\n    substituteFrom:\n    - {kind: ConfigMap, name: place}\n    - {kind: Secret, \
         name: key}\n    - {kind: ConfigMap, name: absent, optional: true}\n",
    );
    manifest += &kustomization(
        "base",
        "  healthChecks: [{apiVersion: apps/v1, kind: Deployment, name: store, namespace: demo}]\n",
    );
    cluster.apply(&manifest).ok();

    // The base is applied, but its Deployment is not ready, and so nothing of the other may be there.
    flux::wait_refused(&cluster, "kustomization", "app", &["dependency 'gitops/base' is not ready"], LIMIT);
    until("health is being waited for", LIMIT, || {
        let condition = flux::ready(&cluster.get("kustomization", flux::NAMESPACE, "base")?);
        let message = condition["message"].as_str().unwrap_or_default();
        let waits = condition["status"] == "Unknown" && message.contains("Deployment/demo/store");
        if waits { Ok(()) } else { Err(condition.to_string()) }
    });
    let absent = cluster.get("configmap", "demo", "app").expect_err("applied before what it depends on");
    assert!(absent.contains("not found"), "{absent}");

    let pod = until("the store's pod runs", LIMIT, || {
        let pods = cluster.list("pods", "demo")?;
        let running = pods.iter().find(|p| p["status"]["phase"] == "Running");
        running.and_then(|p| p["metadata"]["name"].as_str().map(str::to_owned)).ok_or("none yet".to_owned())
    });
    cluster.kedge(&["exec", "-n", "demo", &pod, "--", "touch", "/tmp/on"]).ok();
    flux::wait_applied(&cluster, "base", &commit, LIMIT);

    // Now it is its turn, but a Secret that it takes values from is missing; nothing is applied half.
    let wanted = ["post build failed", "Secret/key", "not found"];
    flux::wait_refused(&cluster, "kustomization", "app", &wanted, LIMIT);
    assert!(cluster.get("configmap", "demo", "app").is_err());
    cluster
        .apply("{apiVersion: v1, kind: Secret, metadata: {name: key, namespace: gitops}, stringData: {password: pw}}")
        .ok();
    flux::wait_applied(&cluster, "app", &commit, LIMIT);
    let data = cluster.get("configmap", "demo", "app").expect("applied")["data"].clone();
    let expected = serde_json::json!({"greeting": "hello nobody", "region": "north", "password": "pw", "price": "${price}", "nothing": "adefaultb"});
    assert_eq!(data, expected);
    assert_eq!(cluster.get("configmap", "demo", "kept").expect("applied")["data"]["text"], "${greeting}");
}

/// One commit after the other, each of which gives a generated ConfigMap another name and so rolls the pods: the inventory
/// is always that of the newest, and none of those between is left behind.
#[test]
fn the_inventory_keeps_up_with_commits() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let repository = Repository::new(cluster.folder().join("repo"));
    repository.write(
        "app/app.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: \
         {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n      \
         - {name: c, image: 'localhost/busybox:1', command: [sleep, '10000'], envFrom: [{configMapRef: {name: settings}}]}\n",
    );
    let commit = |number: usize| {
        let generated = format!("configMapGenerator:\n- name: settings\n  literals: [number={number}]\n");
        let text = format!("namespace: demo\nresources: [app.yaml]\n{generated}");
        repository.write("app/kustomization.yaml", &text).commit(&format!("number {number}"))
    };
    let first = commit(0);
    let manifest = git_repository(&repository);
    cluster.apply(&(manifest + &kustomization("app", "  wait: true\n"))).ok();
    flux::wait_applied(&cluster, "app", &first, LIMIT);
    for number in 1..16 {
        let newest = commit(number);
        flux::wait_applied(&cluster, "app", &newest, LIMIT);
        let status = cluster.kedge(&["status"]);
        assert_eq!(status.code, Some(0), "after commit {number}: {}", status.stdout);
        let generated = |name: &&str| name.starts_with("settings-");
        let maps = cluster.list("configmaps", "demo").expect("maps");
        let maps: Vec<&str> =
            maps.iter().filter_map(|m| m["metadata"]["name"].as_str()).filter(generated).collect();
        assert_eq!(maps.len(), 1, "after commit {number}: {maps:?}");
    }
}

/// What a server refuses is told with the object, the field, the file and the next step; nothing that was never there is
/// missed; and what may not be changed is made anew where that is wished.
#[test]
fn refusals_are_told_in_words() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let repository = Repository::new(cluster.folder().join("repo"));
    repository.write("app/kustomization.yaml", "namespace: demo\nresources: [app.yaml, job.yaml]\n");
    let space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n---\n";
    let map = |data: &str| {
        format!("{space}apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app}}\ndata: {data}\n")
    };
    let job = |code: u8, annotations: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: once, annotations: {annotations}}}\nspec:\n  backoffLimit: 0\n  template:\n    spec:\n      \
             restartPolicy: Never\n      terminationGracePeriodSeconds: 0\n      containers: [{{name: c, image: 'localhost/busybox:1', command: [sh, -c, 'exit {code}']}}]\n"
        )
    };
    repository.write("app/app.yaml", &map("{a: b}")).write("app/job.yaml", &job(0, "{}"));
    let first = repository.commit("first");
    let manifest = git_repository(&repository);
    cluster.apply(&(manifest + &kustomization("app", "  wait: true\n"))).ok();
    flux::wait_applied(&cluster, "app", &first, LIMIT);
    let refused = |wanted: &[&str]| flux::wait_refused(&cluster, "kustomization", "app", wanted, LIMIT);

    // A value that is no text.
    repository.write("app/app.yaml", &map("{a: 1}")).commit("a number");
    let message = refused(&[
        "ConfigMap/demo/app dry-run failed",
        ".data.a: expected string, got the number 1; put it in quotes",
        "(from app/app.yaml)",
    ]);
    assert!(!message.contains("valueUnstructured"), "{message}");

    // A kind that nobody knows was never there, and is not missed.
    let widget = "---\napiVersion: example.org/v1\nkind: Widget\nmetadata: {name: w}\n";
    repository.write("app/app.yaml", &(map("{a: b}") + widget)).commit("a widget");
    refused(&["no matches for kind \"Widget\" in version \"example.org/v1\"", "CustomResourceDefinition"]);
    let status = cluster.kedge(&["status"]).stdout;
    assert!(status.contains("no matches for kind \"Widget\"") && !status.contains("is gone"), "{status}");

    // A template that may not change: which field it is and what to do, without the template.
    repository.write("app/app.yaml", &map("{a: b}")).write("app/job.yaml", &job(3, "{}"));
    repository.commit("another job");
    let message = refused(&[
        "Job/demo/once dry-run failed (Invalid): Job.batch \"once\" is invalid: spec.template: field is immutable",
        "kedge delete job once -n demo",
        "kustomize.toolkit.fluxcd.io/force: enabled",
        "(from app/job.yaml)",
    ]);
    assert!(!message.contains("busybox") && message.len() < 400, "{message}");

    // Made anew, as it says by now; this one fails, and its pod tells why.
    let uid =
        |cluster: &Cluster| cluster.get("job", "demo", "once").expect("the job")["metadata"]["uid"].clone();
    let before = uid(&cluster);
    repository.write("app/job.yaml", &job(3, "{kustomize.toolkit.fluxcd.io/force: enabled}"));
    repository.commit("made anew");
    refused(&["health check failed", "Job/demo/once", "BackoffLimitExceeded"]);
    assert_ne!(uid(&cluster), before);
    let ran = cluster.kedge(&["reconcile", "all", "--timeout", "30s"]);
    let pod =
        cluster.list("pods", "demo").expect("pods").into_iter().find(|p| p["status"]["phase"] == "Failed");
    let pod = pod.expect("a failed pod")["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    for wanted in ["c: it ended with code 3", &format!("kedge logs -n demo {pod}")] {
        assert!(ran.code == Some(1) && ran.stderr.contains(wanted), "{wanted}: {ran:?}");
        let status = cluster.kedge(&["status"]).stdout;
        assert!(status.contains(wanted), "{wanted}: {status}");
    }

    // Or the Kustomization says so for all of them.
    let before = uid(&cluster);
    cluster.apply(&kustomization("app", "  wait: true\n  force: true\n")).ok();
    repository.write("app/job.yaml", &job(0, "{}"));
    let good = repository.commit("good again");
    flux::wait_applied(&cluster, "app", &good, LIMIT);
    assert_ne!(uid(&cluster), before);
}

/// One source and several that apply it: all are followed, and all lose it.
#[test]
fn all_that_apply_a_source_are_followed_and_lose_it() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let repository = Repository::new(cluster.folder().join("repo"));
    let write = |name: &str, value: &str| {
        let map = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: default}}, data: {{a: {value}}}}}\n"
        );
        repository.write(&format!("{name}/map.yaml"), &map);
    };
    ["one", "two"].iter().for_each(|name| write(name, "first"));
    let first = repository.commit("first");
    let manifest = git_repository(&repository);
    // The first waits for the second.
    let both = kustomization("one", "  dependsOn: [{name: two}]\n") + &kustomization("two", "");
    cluster.apply(&(manifest + &both)).ok();
    ["one", "two"].iter().for_each(|name| flux::wait_applied(&cluster, name, &first, LIMIT));

    ["one", "two"].iter().for_each(|name| write(name, "second"));
    let second = repository.commit("second");
    let ran = cluster.kedge(&["reconcile", "all"]);
    let told = ran.stderr.find("Deploy two").zip(ran.stderr.find("Deploy one"));
    assert!(told.is_some_and(|(two, one)| two < one), "{ran:?}");
    for name in ["one", "two"] {
        let object = cluster.get("kustomization", flux::NAMESPACE, name).expect("it is there");
        let applied = object["status"]["lastAppliedRevision"].as_str().unwrap_or_default();
        assert!(applied.ends_with(&second), "{name} was not waited for: {applied}");
    }

    let other = cluster.kedge(&["reconcile", "two"]);
    assert!(other.code == Some(1) && other.stderr.contains("kedge reconcile all"), "{other:?}");

    // One that applies what another does.
    let again = kustomization("three", "").replace("./three", "./one").replace("prune: true", "prune: false");
    cluster.apply(&again).ok();
    flux::wait_applied(&cluster, "three", &second, LIMIT);
    let told = "ConfigMap/default/one is applied by the Kustomization";
    until("the two are warned of", LIMIT, || {
        let events = cluster.list("events", "gitops")?;
        let found = events.iter().find(|event| event["reason"] == "Conflict").cloned().unwrap_or_default();
        if found["message"].as_str().is_some_and(|m| m.starts_with(told)) {
            Ok(())
        } else {
            Err(found.to_string())
        }
    });
    let status = cluster.kedge(&["status"]);
    let told = "warning: ConfigMap/default/one is applied by the Kustomizations gitops/one and gitops/three";
    assert!(status.code == Some(0) && status.stdout.contains(told), "{status:?}");

    cluster.kedge(&["delete", "gitrepository", "all", "-n", "gitops"]).ok();
    for name in ["one", "two"] {
        flux::wait_refused(&cluster, "kustomization", name, &["Source 'GitRepository/all' not found"], LIMIT);
        assert!(cluster.get("configmap", "default", name).is_ok(), "what runs stays");
    }
    assert_eq!(cluster.kedge(&["status"]).code, Some(1));
}

/// What a Kustomization changes in what it builds: the namespace, images, and fields by both kinds of patches.
#[test]
fn what_is_built_is_changed_as_the_kustomization_says() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let repository = source(&cluster);
    let manifest = repository.read("base/base.yaml");
    let deployment = manifest
        .split("---\n")
        .nth(1)
        .expect("a Deployment")
        .replace("localhost/busybox:1", "example.org/other:9");
    repository.write("app/app.yaml", &deployment.replace("[test, -e, /tmp/on]", "[\"true\"]"));
    let commit = repository.commit("first");
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: moved}}").ok();
    let changes = "  wait: true\n  targetNamespace: moved\n  images: [{name: example.org/other, newName: localhost/busybox, newTag: '1'}]\n  patches:\n  - target: {kind: Deployment}\n    \
        patch: |\n      - {op: add, path: /spec/replicas, value: 2}\n  - patch: |\n      {apiVersion: apps/v1, kind: Deployment, metadata: {name: store}, spec: {template: {metadata: \
        {labels: {tier: data}}}}}\n";
    cluster.apply(&(git_repository(&repository) + &kustomization("app", changes))).ok();
    flux::wait_applied(&cluster, "app", &commit, LIMIT);
    let pods = cluster.list("pods", "moved").expect("pods");
    let told = |pod: &serde_json::Value| {
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        (
            pod["spec"]["containers"][0]["image"].to_string(),
            pod["metadata"]["labels"]["tier"].to_string(),
            ready,
        )
    };
    let wanted = ("\"localhost/busybox:1\"".to_owned(), "\"data\"".to_owned(), true);
    assert!(pods.len() == 2 && pods.iter().all(|pod| told(pod) == wanted), "{pods:#?}");
    assert_eq!(cluster.list("deployments", "demo").expect("a list"), Vec::<serde_json::Value>::new());
}

/// Tried, refused, mended: the newest first, each revision once, and told of by events.
#[test]
fn what_was_tried_is_remembered_and_told() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let repository = Repository::new(cluster.folder().join("repo"));
    let write = |text: &str| {
        repository.write(
            "app/map.yaml",
            &format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: app, namespace: default}}, {text}}}\n"
            ),
        );
    };
    write("data: {a: b}");
    let first = repository.commit("good");
    cluster.apply(&(git_repository(&repository) + &kustomization("app", ""))).ok();
    flux::wait_applied(&cluster, "app", &first, LIMIT);
    write("dota: {a: b}");
    let second = repository.commit("bad");
    flux::wait_refused(&cluster, "kustomization", "app", &["dota"], LIMIT);
    write("data: {a: c}");
    let third = repository.commit("good again");
    flux::wait_applied(&cluster, "app", &third, LIMIT);

    let object = cluster.get("kustomization", flux::NAMESPACE, "app").expect("it is there");
    let history = object["status"]["history"].as_array().cloned().unwrap_or_default();
    let told: Vec<(String, String)> = history
        .iter()
        .map(|entry| (entry["metadata"]["revision"].to_string(), entry["lastReconciledStatus"].to_string()))
        .collect();
    let of = |commit: &str, outcome: &str| (format!("\"main@sha1:{commit}\""), format!("\"{outcome}\""));
    let wanted = [
        of(&third, "ReconciliationSucceeded"),
        of(&second, "ReconciliationFailed"),
        of(&first, "ReconciliationSucceeded"),
    ];
    assert_eq!(told, wanted, "{object}");
    assert!(
        history.iter().all(|entry| entry["digest"].as_str().is_some_and(|d| d.starts_with("sha256:"))),
        "{object}"
    );
    let wanted = [
        (
            "GitRepository",
            "Normal",
            "NewArtifact",
            format!("stored artifact for revision 'main@sha1:{first}'"),
        ),
        ("Kustomization", "Normal", "Progressing", "ConfigMap/default/app created".to_owned()),
        (
            "Kustomization",
            "Normal",
            "ReconciliationSucceeded",
            format!("applied revision: main@sha1:{third}"),
        ),
        ("Kustomization", "Warning", "ReconciliationFailed", "dota".to_owned()),
    ];
    until("all of it is told by events", LIMIT, || {
        let events = cluster.list("events", "gitops")?;
        let is_told = |(kind, level, reason, text): &(&str, &str, &str, String)| {
            events.iter().any(|event| {
                let message = event["message"].as_str().unwrap_or_default();
                event["involvedObject"]["kind"] == *kind
                    && event["type"] == *level
                    && event["reason"] == *reason
                    && message.contains(text)
            })
        };
        if wanted.iter().all(is_told) { Ok(()) } else { Err(format!("{events:#?}")) }
    });
}

/// A branch, a tag, a range of versions, the name of a reference, a commit; and a source that is suspended stays where it was.
#[test]
fn each_kind_of_reference_finds_its_commit() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let repository = source(&cluster);
    let mut commits = Vec::new();
    for version in ["v1.0.0", "v1.2.0", "v2.0.0"] {
        commits.push(repository.commit(version));
        // With an object of its own, as releases have.
        repository.git(&["tag", "--annotate", "--message", version, version]);
    }
    repository.git(&["update-ref", "refs/pull/7/head", &commits[0]]);
    let last = repository.commit("after the releases");
    let sources = [
        ("branch", "{branch: main}".to_owned(), format!("main@sha1:{last}")),
        ("held", "{branch: main}".to_owned(), format!("main@sha1:{last}")),
        ("tag", "{tag: v1.0.0}".to_owned(), format!("v1.0.0@sha1:{}", commits[0])),
        ("semver", "{semver: '^1.0'}".to_owned(), format!("v1.2.0@sha1:{}", commits[1])),
        ("name", "{name: refs/pull/7/head}".to_owned(), format!("refs/pull/7/head@sha1:{}", commits[0])),
        ("commit", format!("{{commit: {}}}", commits[2]), format!("sha1:{}", commits[2])),
    ];
    let mut manifest = "apiVersion: v1\nkind: Namespace\nmetadata: {name: gitops}\n".to_owned();
    for (name, reference, _) in &sources {
        manifest += &format!(
            "---\napiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {{name: {name}, namespace: gitops}}\nspec: {{url: '{}', interval: 1h, ref: {reference}}}\n",
            repository.path().display()
        );
    }
    cluster.apply(&manifest).ok();
    let at = |name: &str, wanted: &str| {
        until(&format!("{name} is at {wanted}"), LIMIT, || {
            let object = cluster.get("gitrepository", flux::NAMESPACE, name)?;
            if object["status"]["artifact"]["revision"] == wanted {
                Ok(())
            } else {
                Err(object["status"].to_string())
            }
        });
    };
    sources.iter().for_each(|(name, _, wanted)| at(name, wanted));

    let held = "/apis/source.toolkit.fluxcd.io/v1/namespaces/gitops/gitrepositories/held";
    cluster.patch(held, "application/merge-patch+json", r#"{"spec": {"suspend": true}}"#);
    let newest = repository.commit("another");
    at("branch", &format!("main@sha1:{newest}"));
    at("held", &format!("main@sha1:{last}"));
    let ran = cluster.kedge(&["reconcile", "held", "--timeout", "20s"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("the GitRepository held is suspended"), "{ran:?}");
    cluster.kedge(&["resume", "held"]).ok();
    at("held", &format!("main@sha1:{newest}"));
}

/// Pods that cannot run say why, each with the container it is about and the next step.
#[test]
fn pods_in_trouble_are_told_with_the_next_step() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let repository = Repository::new(cluster.folder().join("repo"));
    let pod = |name: &str, rest: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: demo}}\nspec:\n  terminationGracePeriodSeconds: 0\n{rest}"
        )
    };
    let greedy = "  containers: [{name: c, image: 'localhost/busybox:1', command: [sh, -c, 'x=a; while true; do x=$x$x; done'], resources: {limits: {memory: 24Mi}}}]\n";
    let main = "  containers: [{name: c, image: 'localhost/busybox:1', command: [sleep, '10000']}]\n";
    let prepare = "  initContainers: [{name: prepare, image: 'localhost/busybox:1', command: [sh, -c, 'echo no; exit 5']}]\n";
    let mut manifest = "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n".to_owned();
    manifest += &pod("greedy", greedy);
    manifest += &pod("prepared", &format!("{prepare}{main}"));
    let never = "  containers: [{name: c, image: 'localhost/busybox:1', command: [sleep, '10000'], readinessProbe: {exec: {command: [sh, -c, 'echo not today; exit 1']}, periodSeconds: 1}}]\n";
    manifest += &pod("unready", never);
    manifest += &pod("misnamed", "  containers: [{name: c, image: 'Bad//Name'}]\n");
    repository.write("app/app.yaml", &manifest);
    repository.commit("first");
    let source = git_repository(&repository);
    cluster.apply(&(source + &kustomization("app", "  wait: true\n"))).ok();
    let wanted = [
        "OOMKilled: it took more memory than its limit of 24Mi",
        "kedge logs -n demo -p greedy    (then raise `resources.limits.memory` of the container c)",
        "(it ended with code 5)",
        "kedge logs -n demo -p prepared -c prepare",
        "c: InvalidImageName",
        "c: Readiness probe failed: not today",
        "write the image of the container c as REGISTRY/NAME:TAG, the name in small letters; it is \"Bad//Name\"",
    ];
    until("all troubles are told", LIMIT, || {
        let status = cluster.kedge(&["status"]).stdout;
        if wanted.iter().all(|wanted| status.contains(wanted)) { Ok(()) } else { Err(status) }
    });
    assert_eq!(cluster.kedge(&["logs", "-n", "demo", "-p", "prepared", "-c", "prepare"]).ok(), "no\n");
}
