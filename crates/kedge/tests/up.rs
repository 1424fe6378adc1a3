//! `kedge up` again: changed code under the same name, folders that hold nothing, names that are taken, repositories
//! that cannot be read. What runs keeps running unless its replacement was asked for.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::{Cluster, Repository, flux, until};

const LIMIT: Duration = Duration::from_secs(60);

/// An application that says the one word its image holds.
fn word(folder: &Path) -> Repository {
    let repository = Repository::new(folder);
    repository.write(
        "kedge.yaml",
        "name: word\npath: deploy\nimages:\n- {name: 'localhost/word:1', context: image}\n",
    );
    repository.write("image/Dockerfile", "FROM localhost/busybox:1\nCOPY word /word\n");
    repository.write("image/word", "one\n");
    repository.write("deploy/kustomization.yaml", "namespace: word\nresources: [app.yaml]\n");
    repository.write(
        "deploy/app.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: word}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: word}\nspec:\n  selector: \
         {matchLabels: {app: word}}\n  template:\n    metadata: {labels: {app: word}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n      \
         - {name: c, image: 'localhost/word:1', command: [sh, -c, 'cat /word; exec sleep 10000']}\n",
    );
    repository.write("empty/README.md", "Nothing yet.\n");
    repository.commit("first");
    repository
}

/// What `kedge up` ended with and said.
fn up(cluster: &Cluster, words: &[&str]) -> (Option<i32>, String) {
    let mut command = cluster.command(&["up"]);
    command.args(words).args(["--timeout", "1m", "--api-port", "0"]);
    let output = command.output().expect("kedge runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.into_owned())
}

/// The one pod that is not about to end, and what it says.
fn says(cluster: &Cluster) -> (String, String) {
    until("one pod says its word", LIMIT, || {
        let pods = cluster.list("pods", "word")?;
        let staying: Vec<&str> = pods
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|pod| pod["metadata"]["name"].as_str())
            .collect();
        let [pod] = staying[..] else { return Err(format!("{staying:?}")) };
        let said = cluster.kedge(&["logs", "-n", "word", pod]).stdout;
        if said.is_empty() { Err(format!("{pod} says nothing")) } else { Ok((pod.to_owned(), said)) }
    })
}

fn status(cluster: &Cluster) -> serde_json::Value {
    serde_json::from_str(&cluster.kedge(&["status", "-o", "json"]).stdout).expect("JSON")
}

fn shown(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}

/// Whether a step ends with how long it took: `…  0.4s`.
fn is_timed(step: &str) -> bool {
    let time = step.rsplit(' ').next().and_then(|last| last.strip_suffix('s')).unwrap_or_default();
    time.parse::<f64>().is_ok()
}

/// Whether a process of the machine sleeps for just so long.
fn sleeps(time: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let wanted = format!("sleep\0{time}\0");
    processes
        .into_iter()
        .any(|p| std::fs::read_to_string(p.path().join("cmdline")).is_ok_and(|line| line == wanted))
}

/// Gives the application a sleep that nothing else on the machine has.
fn own_sleep(repository: &Repository, number: u32) -> String {
    let time = format!("{number}{:07}", std::process::id());
    let manifest = repository.read("deploy/app.yaml").replace("10000", &time);
    repository.write("deploy/app.yaml", &manifest).commit("a sleep of its own");
    time
}

#[test]
fn up_again() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let repository = word(&cluster.folder().join("word"));
    let path = repository.path().to_str().expect("a plain path");
    let (code, text) = up(&cluster, &[&format!("file://{path}")]);
    assert_eq!(code, Some(0), "{text}\n{}", cluster.log());
    let steps: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("✓ ")).collect();
    let wanted = [
        "Start the cluster  https://127.0.0.1:",
        "Build localhost/word:1  ",
        "Read main of ",
        "Deploy ./deploy  ",
    ];
    assert_eq!(steps.len(), wanted.len(), "{text}");
    for (step, wanted) in steps.iter().zip(wanted) {
        assert!(step.starts_with(wanted) && is_timed(step), "{wanted}: {text}");
    }
    let row = text.lines().find(|line| line.starts_with("word/word (Deployment)")).unwrap_or_default();
    assert!(row.contains(" 1/1 ") && row.ends_with("localhost/word:1"), "{text}");
    let kubeconfig = cluster.data_dir().join("kubeconfig");
    assert!(text.contains(&format!("kubectl --kubeconfig {} get pods -A", kubeconfig.display())), "{text}");
    let status = status(&cluster);
    let server = std::fs::read_to_string(&kubeconfig).expect("a kubeconfig");
    let said = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    assert_eq!((said("dataDir"), said("kubeconfig")), (shown(&cluster.data_dir()), shown(&kubeconfig)));
    assert!(
        !said("server").is_empty() && server.contains(&format!("server: {}\n", said("server"))),
        "{status}\n{server}"
    );
    let (first, said) = says(&cluster);
    assert_eq!(said, "one\n");

    // The code has changed, the manifests have not.
    repository.write("image/word", "two\n");
    let (code, text) = up(&cluster, &[path]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("Replace what runs an older build  Deployment/word/word"), "{text}");
    let (second, said) = says(&cluster);
    assert_eq!(said, "two\n");
    assert_ne!(first, second);
    let manifest = repository.read("deploy/app.yaml");
    repository.write("deploy/app.yaml", &manifest.replace("sleep 10000", "sleep 20000"));
    let (code, text) = up(&cluster, &[path]);
    assert!(code == Some(0) && !text.contains("older build"), "{text}");
    let hint = "deploy/app.yaml is changed and not committed: what is deployed is what is committed";
    assert!(text.contains(hint), "{text}");
    repository.write("deploy/app.yaml", &manifest);
    assert_eq!(says(&cluster).0, second, "nothing has changed");

    let refused = |words: &[&str], wanted: &[&str]| {
        let (code, text) = up(&cluster, words);
        let all = wanted.iter().all(|wanted| text.contains(wanted));
        assert!(code == Some(1) && all, "{words:?}: {code:?} {text}");
        assert_eq!(says(&cluster).0, second, "{words:?} took down what runs");
    };
    // A folder that holds nothing is a mistake, and not the wish to have nothing: what runs is not turned to it.
    repository.write("broken/kustomization.yaml", "resources: [nowhere.yaml]\n");
    repository.commit("a folder that cannot be built");
    refused(
        &[path, "--path", "/deploy"],
        &["--path /deploy is absolute", "as seen from the repository's top"],
    );
    repository.write("uncommitted/a.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n");
    let unchanged = || {
        let object = cluster.get("kustomization", "gitops", "word").expect("the Kustomization");
        (
            object["spec"].clone(),
            object["metadata"]["generation"].clone(),
            flux::ready(&object)["status"].clone(),
        )
    };
    let before = unchanged();
    assert_eq!((&before.0["path"], &before.2), (&"./deploy".into(), &"True".into()));
    refused(
        &[path, "--path", "empty"],
        &[
            "./empty has neither a kustomization.yaml nor a manifest",
            "kustomization.yaml are broken, deploy; name one with --path",
        ],
    );
    refused(&[path, "--path", "nowhere"], &["there is no folder nowhere in what is committed"]);
    refused(&[path, "--path", "uncommitted"], &["is not committed", "git add uncommitted && git commit"]);
    refused(&[path, "--path", "broken"], &["word stays at ./deploy", "broken/nowhere.yaml: no such file"]);
    assert_eq!(unchanged(), before);
    assert_eq!(cluster.kedge(&["status"]).code, Some(0));

    // Another repository under the same name.
    let other = word(&cluster.folder().join("other"));
    let other_path = other.path().to_str().expect("a plain path");
    refused(&[other_path], &["word is deployed already, from ", "--name NAME", "--replace"]);

    // An address that answers to nobody leaves nothing that is tried for ever.
    refused(
        &["https://127.0.0.1:1/gone.git", "--name", "gone"],
        &["cannot read https://127.0.0.1:1/gone.git", "git ls-remote https://127.0.0.1:1/gone.git"],
    );
    let left = cluster.get("gitrepository", "gitops", "gone").expect_err("it was left behind");
    assert!(left.contains("not found"), "{left}");

    // In the other's place, when that is said.
    let (code, text) = up(&cluster, &[other_path, "--replace"]);
    assert_eq!(code, Some(0), "{text}");
    let source = cluster.get("gitrepository", "gitops", "word").expect("the source");
    assert_eq!(source["spec"]["url"], other_path);

    // A bare repository, as a Git server has: what it holds is in its commits alone, and its images are there already.
    let bare = cluster.folder().join("word.git");
    repository.git(&["clone", "--quiet", "--bare", path, bare.to_str().expect("a plain path")]);
    let (code, text) = up(&cluster, &[bare.to_str().expect("a plain path"), "--replace"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("localhost/word:1 is not built: a bare repository has no working tree"), "{text}");
    let (code, text) = up(&cluster, &[bare.to_str().expect("a plain path"), "--path", "nowhere"]);
    assert!(code == Some(1) && text.contains("there is no folder"), "{text}");

    // And away, as the help says.
    cluster.kedge(&["delete", "kustomization,gitrepository", "word", "-n", "gitops"]).ok();
    until("the application is gone", LIMIT, || match cluster.get("deployment", "word", "word") {
        Err(error) if error.contains("not found") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Taken away and wanted again at once: the namespace of before is waited for, and that is said.
#[test]
fn a_namespace_that_goes_is_waited_for() {
    let mut cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    cluster.launch();
    let repository = Repository::new(cluster.folder().join("plain"));
    repository.write("kedge.yaml", "name: plain\npath: deploy\n");
    repository.write(
        "deploy/app.yaml",
        "{apiVersion: v1, kind: Namespace, metadata: {name: plain}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: app, namespace: plain}}\n",
    );
    repository.commit("first");
    let path = repository.path().to_str().expect("a plain path");
    let (code, text) = up(&cluster, &[path]);
    assert_eq!(code, Some(0), "{text}");
    // It stays until somebody lets it go.
    let held = |finalizers: &str| {
        let map = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: held, namespace: plain, finalizers: {finalizers}}}}}"
        );
        cluster.apply(&map)
    };
    held("[example.org/hold]").ok();
    cluster.kedge(&["delete", "kustomization,gitrepository", "plain", "-n", "gitops"]).ok();
    until("the namespace goes", LIMIT, || match cluster.get("namespace", "", "plain") {
        Ok(namespace) if namespace["metadata"]["deletionTimestamp"].is_string() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let refused = cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: new, namespace: plain}}");
    assert!(refused.code == Some(1) && refused.stderr.contains("try again when it is gone"), "{refused:?}");

    let waits = "namespace 'plain' is being deleted; what belongs into it is applied when it is gone";
    let again = cluster.command(&["up", path, "--timeout", "2s"]).output().expect("kedge runs");
    let told = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.code() == Some(1) && told.contains("not done in time"), "{told}");
    assert!(told.matches(waits).count() > 1 && told.contains("--timeout"), "{told}");
    let mut again = cluster.command(&["up", path, "--timeout", "1m"]);
    let again = again.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
    let mut again = again.expect("kedge runs");
    let mut lines = BufReader::new(again.stderr.take().expect("a pipe")).lines();
    // What the one before has left in the status is not what this one waits for.
    let told: Vec<String> =
        lines.by_ref().map(|line| line.expect("text")).take_while(|line| !line.contains(waits)).collect();
    flux::wait_refused(&cluster, "kustomization", "plain", &[waits, "example.org/hold"], LIMIT);
    let none = r#"{"metadata": {"finalizers": null}}"#;
    cluster.patch("/api/v1/namespaces/plain/configmaps/held", "application/merge-patch+json", none);
    let rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert!(again.wait().expect("it ends").success() && !rest.is_empty(), "{told:?} {rest:?}");
    assert!(cluster.get("configmap", "plain", "app").is_ok());
}

/// The cluster is root's: another user is told so, and not that there is none.
#[test]
fn another_user_is_told_whose_it_is() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    let data_dir = cluster.folder().join("of-root");
    std::fs::create_dir_all(&data_dir).expect("a folder");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&data_dir, private).expect("private");
    // Where the program lies, the other user may not be let in.
    let program = cluster.folder().join("kedge");
    std::fs::copy(env!("CARGO_BIN_EXE_kedge"), &program).expect("copied");
    for verb in ["down", "status", "up"] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
        command.arg(verb).arg("--data-dir").arg(&data_dir).current_dir(cluster.folder());
        let output = command.output().expect("setpriv runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{verb}: {told}");
        assert!(told.contains("belongs to another user; run as root"), "{verb}: {told}");
    }
}

/// It stays, and ends all that it has started: at Ctrl-C, and where what is deployed does not get healthy.
#[test]
fn in_the_foreground_it_ends_with_all_that_it_started() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let repository = word(&cluster.folder().join("word"));
    let time = own_sleep(&repository, 1);
    let path = repository.path().to_str().expect("a plain path");
    let begin = || {
        let mut command =
            cluster.command(&["up", path, "--foreground", "--timeout", "1m", "--api-port", "0"]);
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("kedge runs")
    };
    // Ctrl-C, and a terminal that is closed.
    for signal in ["-INT", "-HUP"] {
        let mut child = begin();
        until("the application is healthy", LIMIT, || match cluster.kedge(&["status"]) {
            ran if ran.code == Some(0) && ran.stdout.contains("Deployment word/word") => Ok(()),
            ran => Err(format!("{ran:?}")),
        });
        assert!(sleeps(&time));
        assert!(child.try_wait().expect("looked").is_none(), "it did not stay");
        let told = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(told.expect("kill runs").success());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(!sleeps(&time) && status(&cluster)["running"] == false, "{output:?}");
    }

    repository
        .write("deploy/kustomization.yaml", "namespace: word\nresources: [nowhere.yaml]\n")
        .commit("broken");
    let output = begin().wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("nowhere.yaml"), "{told}");
    assert!(told.lines().any(|line| line.starts_with("✗ Deploy ./deploy") && is_timed(line)), "{told}");
    assert!(!sleeps(&time) && status(&cluster)["running"] == false, "{told}");
}

/// No other program, no library, no network but the machine's own loopback.
#[test]
fn nothing_else_is_needed() {
    assert_eq!(
        dynamic_parts(&std::fs::read(env!("CARGO_BIN_EXE_kedge")).expect("the program")),
        0,
        "it is not static"
    );
    assert!(dynamic_parts(&std::fs::read("/bin/sh").expect("a shell")) > 0, "the check sees nothing");
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let repository = word(&cluster.folder().join("word"));
    let alone = |words: &str| {
        let mut command = Command::new("unshare");
        let data_dir = cluster.data_dir();
        // Without a path, no program is found by its name.
        let script = format!(
            "ip link set lo up && exec env -i KEDGE_DATA_DIR={} PATH=/nowhere {} {words}",
            data_dir.display(),
            env!("CARGO_BIN_EXE_kedge")
        );
        command.args(["--net", "sh", "-c", &script]).output().expect("unshare runs")
    };
    let output = alone(&format!("up {} --api-port 0 --timeout 1m", repository.path().display()));
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("word/word (Deployment)"), "{told}\n{}", cluster.log());
    let output = alone("down --purge --now");
    assert!(output.status.success(), "{output:?}");
}

/// How many of a program's parts ask for a loader or a library.
fn dynamic_parts(file: &[u8]) -> usize {
    let number = |at: usize, bytes: usize| {
        let field = &file[at..at + bytes];
        field.iter().rev().fold(0_usize, |number, byte| (number << 8) | usize::from(*byte))
    };
    assert_eq!((&file[..4], file[4]), (&b"\x7fELF"[..], 2), "no program of 64 bits");
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    // PT_DYNAMIC, PT_INTERP
    (0..count).filter(|part| [2, 3].contains(&number(table + part * size, 4))).count()
}

/// Who is not the first to start a server takes the one that is there.
#[test]
fn several_at_once_come_to_one_cluster() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    let begin = || {
        let mut command = cluster.command(&["up", "--api-port", "0", "--timeout", "1m"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).current_dir("/");
        command.spawn().expect("kedge runs")
    };
    let all = [begin(), begin(), begin()];
    for child in all {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}\n{}", cluster.log());
    }
    assert_eq!(status(&cluster)["running"], true);
}
