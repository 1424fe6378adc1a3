//! Repositories on a server: behind HTTPS with an authority and a password of its own, noticed by the server's push hook
//! long before the interval is over, and deployed by `kedge up`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use testkit::{Certificate, Cluster, GitServer, Repository, flux, until};

const LIMIT: Duration = Duration::from_secs(60);

fn repository(cluster: &Cluster) -> Repository {
    let repository = Repository::new(cluster.folder().join("repo"));
    repository.write("app/kustomization.yaml", "namespace: default\nresources: [map.yaml]\n");
    write_map(&repository, "one");
    repository
}

fn write_map(repository: &Repository, value: &str) {
    let map = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: app}}, data: {{a: {value}}}}}\n");
    repository.write("app/map.yaml", &map);
}

fn secret(entries: &[(&str, &str)]) -> String {
    let data: serde_json::Map<String, serde_json::Value> =
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: gitops}}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: git, namespace: gitops}}\nstringData: {}\n",
        serde_json::Value::Object(data)
    )
}

/// A source that looks again only after an hour, and what applies it.
fn follow(url: &str) -> String {
    format!(
        "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {{name: app, namespace: gitops}}\nspec: {{url: '{url}', interval: 1h, ref: \
         {{branch: main}}, secretRef: {{name: git}}}}\n---\napiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: app, namespace: \
         gitops}}\nspec: {{interval: 1h, path: ./app, prune: true, sourceRef: {{kind: GitRepository, name: app}}}}\n"
    )
}

/// Asks the engine to look at once; what it says when that fails.
fn refused_now(cluster: &Cluster) -> String {
    let ran = cluster.kedge(&["reconcile", "app", "--timeout", "20s"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    ran.stderr
}

#[test]
fn a_repository_behind_https_is_followed_and_a_push_is_noticed_at_once() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let repository = repository(&cluster);
    let first = repository.commit("first");
    let certificate = Certificate::new();
    let root = cluster.folder().join("served");
    let server = GitServer::start(&root, Some(&certificate), Some(("anna", "secret")));
    let bare = server.publish(repository.path(), "app.git");
    let url = server.url("app.git");

    // An authority that nobody named is not trusted, a wrong password is told from it, and neither is shown.
    cluster.apply(&secret(&[("username", "anna"), ("password", "secret")])).ok();
    cluster.apply(&follow(&url)).ok();
    let wanted = ["cannot fetch https://localhost", "certificate"];
    let message = flux::wait_refused(&cluster, "gitrepository", "app", &wanted, LIMIT);
    assert!(!message.contains("secret"), "{message}");
    let authority = server.authority.as_deref().expect("it has one");
    cluster.apply(&secret(&[("username", "anna"), ("password", "wrong-word"), ("ca.crt", authority)])).ok();
    let message = refused_now(&cluster);
    assert!(message.contains("cannot fetch https://localhost"), "{message}");
    assert!(!message.contains("certificate") && !message.contains("wrong-word"), "{message}");
    cluster.apply(&secret(&[("username", "anna"), ("password", "secret"), ("ca.crt", authority)])).ok();
    cluster.kedge(&["reconcile", "app"]).ok();
    flux::wait_applied(&cluster, "app", &first, LIMIT);

    // The server's hook tells the cluster of each push.
    install_hook(&cluster, &bare);
    write_map(&repository, "two");
    let second = repository.commit("second");
    repository.git(&["push", "--quiet", bare.to_str().expect("a plain path"), "main"]);
    flux::wait_applied(&cluster, "app", &second, LIMIT);
    let map = cluster.get("configmap", "default", "app").expect("the map");
    assert_eq!(map["data"]["a"], "two");

    // Without a hook it is looked at by its interval.
    std::fs::remove_file(bare.join("hooks/post-receive")).expect("removed");
    let interval = "/apis/source.toolkit.fluxcd.io/v1/namespaces/gitops/gitrepositories/app";
    cluster.patch(interval, "application/merge-patch+json", r#"{"spec": {"interval": "1s"}}"#);
    write_map(&repository, "three");
    let third = repository.commit("third");
    repository.git(&["push", "--quiet", bare.to_str().expect("a plain path"), "main"]);
    flux::wait_applied(&cluster, "app", &third, LIMIT);
    cluster.patch(interval, "application/merge-patch+json", r#"{"spec": {"interval": "1h"}}"#);
    install_hook(&cluster, &bare);

    // A branch that is deleted there cannot be deployed from what was fetched before.
    repository.git(&["push", "--quiet", bare.to_str().expect("a plain path"), "main:other"]);
    until("the other branch is mirrored", LIMIT, || mirrored(&cluster, "other"));
    repository.git(&["push", "--quiet", bare.to_str().expect("a plain path"), ":other"]);
    until("the deleted branch is forgotten", LIMIT, || match mirrored(&cluster, "other") {
        Ok(()) => Err("it is still there"),
        Err(_) => Ok(()),
    });
    assert!(mirrored(&cluster, "main").is_ok());
    assert!(server.asked() > 0);
}

/// What a company puts into `hooks/post-receive`: one command that says «look now».
fn install_hook(cluster: &Cluster, bare: &Path) {
    let script = format!(
        "#!/bin/sh\nKEDGE_DATA_DIR={} exec {} reconcile app --wait=false\n",
        cluster.data_dir().display(),
        env!("CARGO_BIN_EXE_kedge")
    );
    let hook = bare.join("hooks/post-receive");
    std::fs::write(&hook, script).expect("written");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

/// Whether some mirror of the server has the branch.
fn mirrored(cluster: &Cluster, branch: &str) -> Result<(), String> {
    let mut folders = vec![cluster.data_dir()];
    while let Some(folder) = folders.pop() {
        if folder.ends_with("refs/heads") && folder.join(branch).exists() {
            return Ok(());
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    Err(format!("no mirror has {branch}"))
}

#[test]
fn up_deploys_from_https() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    let repository = repository(&cluster);
    let commit = repository.commit("first");
    let certificate = Certificate::new();
    let server = GitServer::start(&cluster.folder().join("served"), Some(&certificate), None);
    server.publish(repository.path(), "app.git");
    // The machine trusts the authority, as it would a public one.
    let bundle = cluster.folder().join("authorities.pem");
    std::fs::write(&bundle, &certificate.authority).expect("written");
    let up = |folder: &str| {
        let mut command =
            cluster.command(&["up", &server.url("app.git"), "--path", folder, "--timeout", "1m"]);
        command.args(["--api-port", "0"]).env("SSL_CERT_FILE", &bundle).output().expect("kedge runs")
    };
    // A folder that is not in it leaves nothing behind, and does not move what is deployed.
    let refused = |folder: &str| {
        let output = up(folder);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let names =
            told.contains("there is no folder") && told.contains("with a kustomization.yaml are app;");
        assert!(output.status.code() == Some(1) && names, "{told}\n{}", cluster.log());
    };
    refused("nowhere");
    for kind in ["gitrepository", "kustomization"] {
        let left = cluster.get(kind, "gitops", "app").expect_err("it was left behind");
        assert!(left.contains("not found"), "{left}");
    }
    let output = up("app");
    assert!(output.status.success(), "{output:?}\n{}", cluster.log());
    flux::wait_applied(&cluster, "app", &commit, LIMIT);
    assert_eq!(cluster.get("configmap", "default", "app").expect("the map")["data"]["a"], "one");
    refused("nowhere");
    let kept = cluster.get("kustomization", "gitops", "app").expect("the Kustomization");
    assert_eq!((&kept["spec"]["path"], &flux::ready(&kept)["status"]), (&"./app".into(), &"True".into()));
}
