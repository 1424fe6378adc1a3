//! A server on an etcd that is guarded, by certificates or by a password: it serves with what its options say, and without it ends and
//! says why and what to do.

use std::path::{Path, PathBuf};

use testkit::{Certificate, Cluster, Etcd};

fn file(cluster: &Cluster, name: &str, text: &str) -> String {
    let path: PathBuf = cluster.folder().join(name);
    std::fs::write(&path, text).expect("written");
    shown(&path)
}

fn shown(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}

/// Writes, reads, and reads what was written before it was started again.
fn serves(mut cluster: Cluster) {
    cluster.launch();
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: b}}").ok();
    cluster.kill();
    cluster.launch();
    assert_eq!(cluster.get("configmap", "default", "kept").expect("the map")["data"]["a"], "b");
    assert!(!cluster.data_dir().join("state").exists(), "nothing of it is in a file");
}

/// What it said before it ended, as one who reads its last lines sees it.
fn refuses(cluster: Cluster, arguments: &[&str], words: &[&str]) -> Cluster {
    let mut cluster = cluster.told("node-1", arguments);
    let said = cluster.launch_in_vain();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    drop(std::fs::remove_file(cluster.data_dir().join("server.log")));
    cluster
}

#[test]
fn with_certificates() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    let certificate = Certificate::of(&["localhost", "127.0.0.1"]);
    let etcd = Etcd::with_tls(cluster.folder(), &certificate);
    let ours = file(&cluster, "ca.pem", &certificate.authority);
    let own = file(&cluster, "own.pem", &certificate.certificate);
    let key = file(&cluster, "key.pem", &certificate.key);
    let other = file(&cluster, "other.pem", &Certificate::new().authority);
    let address = format!("etcds://{}", etcd.address);
    let shown = ["--store-cert", &own, "--store-key", &key];
    let with = |authority| [&["--store", &address, "--store-ca", authority], &shown[..]].concat();
    let cluster = refuses(cluster, &with(&other), &["certificate", "--store-ca"]);
    let nothing = ["--store", &*address, "--store-ca", &ours];
    let cluster = refuses(cluster, &nothing, &["etcd asks for a certificate", "--store-cert"]);
    let half = ["--store", &*address, "--store-ca", &ours, "--store-cert", &own];
    let cluster = refuses(cluster, &half, &["a certificate for etcd needs its key"]);
    let plain = address.replace("etcds", "etcd");
    let cluster =
        refuses(cluster, &["--store", &plain, "--store-ca", &ours], &["its address is not etcds://"]);
    let missing = ["--store", &*address, "--store-ca", "/nowhere/ca.pem"];
    let cluster = refuses(cluster, &missing, &["cannot read /nowhere/ca.pem"]);
    serves(cluster.told("node-1", &with(&ours)));
}

#[test]
fn with_a_password() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    let etcd = Etcd::required(cluster.folder());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(etcd.ask_for_password("secret"));
    let right = file(&cluster, "password", "secret\n");
    let wrong = file(&cluster, "wrong", "guessed\n");
    let address = format!("etcd://{}", etcd.address);
    let as_root =
        |password| ["--store", &*address, "--store-user", "root", "--store-password-file", password];
    let cluster = refuses(cluster, &as_root(&wrong), &["password", "--store-user", "--store-password-file"]);
    let cluster = refuses(cluster, &["--store", &address], &["--store-user"]);
    let half = ["--store", &*address, "--store-user", "root"];
    let cluster = refuses(cluster, &half, &["etcd's user has no password: --store-password-file"]);
    let half = ["--store", &*address, "--store-password-file", &right];
    let cluster = refuses(cluster, &half, &["there is a password for etcd, but no --store-user"]);
    serves(cluster.told("node-1", &as_root(&right)));
}
