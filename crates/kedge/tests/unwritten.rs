//! Words that cannot be written anywhere: the disk that a log is on is full, or nobody reads the pipe. Nothing breaks off for that.

use std::fs::File;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(40);

/// A place that has no room.
fn full() -> File {
    File::options().write(true).open("/dev/full").expect("it is there")
}

fn kedge(args: &[&str], data_dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kedge"));
    command.args(args).env("KEDGE_DATA_DIR", data_dir).env("KEDGE_LOG", "trace").stdin(Stdio::null());
    command
}

/// Of a verb whose words had no place.
fn check(what: &str, status: ExitStatus) {
    assert_eq!(status.code(), Some(1), "{what}: {status}");
}

#[test]
fn verbs_end_as_those_that_have_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    for args in [&["version"][..], &["completion", "bash"], &["status"], &["store", "check"]] {
        let status = kedge(args, folder.path()).stdout(full()).stderr(full()).status().expect("it runs");
        check(&format!("{args:?} with nowhere to write"), status);
    }
    let told = kedge(&["completion", "bash"], folder.path()).stdout(full()).output().expect("it runs");
    check("a full standard output", told.status);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("cannot write to standard output") && !told.contains("panicked"), "{told}");
}

/// What cannot start has something to say, and ends as it would otherwise.
#[test]
fn a_server_that_cannot_say_why_it_ends_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("state.redb"), "").expect("written");
    let args = ["server", "--api-port", "0", "--node-name", "node-1"];
    let end = |log: Stdio| kedge(&args, folder.path()).stdout(Stdio::null()).stderr(log).spawn();
    let told = end(Stdio::piped()).expect("it runs").wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(words.contains("the file is empty"), "{words}");
    check("a log that is read", told.status);
    check("a log without room", end(full().into()).expect("it runs").wait().expect("it ends"));
}

#[test]
fn a_server_is_not_ended_by_its_log() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    assert!(cluster.log().contains("INFO"), "it has nothing to log");
    cluster.kill();
    let args = ["server", "--api-port", "0", "--node-name", "node-1"];
    let mut server = cluster.command(&args).stdout(full()).stderr(full()).spawn().expect("it runs");
    until("a server that cannot log", LIMIT, || {
        assert!(server.try_wait().expect("it is ours").is_none(), "it ended");
        cluster.get("node", "", "node-1").map(drop)
    });
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: b}}").ok();
    assert!(server.try_wait().expect("it is ours").is_none(), "it ended");
    server.kill().expect("it is ours");
    server.wait().expect("it ends");
}
