//! `kedge up` again: changed code under the same name, folders that hold nothing, names that are taken, repositories
//! that cannot be read. What runs keeps running unless its replacement was asked for.

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

#[test]
fn up_again() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let repository = word(&cluster.folder().join("word"));
    let path = repository.path().to_str().expect("a plain path");
    let (code, text) = up(&cluster, &[path]);
    assert_eq!(code, Some(0), "{text}\n{}", cluster.log());
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
    flux::wait_refused(&cluster, "kustomization", "plain", &[waits, "example.org/hold"], LIMIT);
    let none = r#"{"metadata": {"finalizers": null}}"#;
    cluster.patch("/api/v1/namespaces/plain/configmaps/held", "application/merge-patch+json", none);
    let ended = again.expect("kedge runs").wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && told.contains(waits), "{told}");
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
