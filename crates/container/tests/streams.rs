//! Exec, attach, terminals and log rotation.

mod support;

use std::time::Duration;

use container::runtime::{ExecRequest, ExecSession, Runtime, RuntimeError, TerminalSize, UserSpec};
use support::{Cluster, DEADLINE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

async fn read_until(session: &mut ExecSession, wanted: &str) -> String {
    let stdout = session.stdout.as_mut().expect("stdout");
    let mut text = String::new();
    let read = async {
        let mut buffer = [0; 1024];
        while !text.contains(wanted) {
            let count = stdout.read(&mut buffer).await.expect("read");
            assert!(count > 0, "ended after {text:?}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    if tokio::time::timeout(DEADLINE, read).await.is_err() {
        panic!("waited for {wanted:?}, got {text:?}");
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_inside_with_the_containers_identity() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let mut config = cluster.config("c", &["sleep", "1000"]);
    config.env = vec![("A".into(), "1".into())];
    config.working_dir = "/work".into();
    config.security.user = Some(UserSpec::Id { uid: 33, gid: None });
    config.security.no_new_privileges = true;
    config.resources.oom_score_adj = Some(321);
    cluster.start(&sandbox, config).await;
    assert_eq!(cluster.exec("c", "cat /proc/1/oom_score_adj /proc/self/oom_score_adj").await.1, "321\n321\n");
    let (code, text) = cluster
        .exec("c", "echo $A $PWD $HOME; id -u; id -G; hostname; ps -o args | grep -c 'sleep 1000$'; exit 5")
        .await;
    assert_eq!((code, text.as_str()), (5, "1 /work /srv\n33\n34 40\nbox\n1\n"));
    let (_, text) = cluster.exec("c", "grep -E 'NoNewPrivs|Seccomp:|CapEff|CapBnd|SigBlk' /proc/self/status | cut -f2; ls /proc/self/fd | wc -l").await;
    assert_eq!(text, "0000000000000000\n0000000000000000\n00000000a80425fb\n1\n2\n4\n");
    let (_, text) = cluster.exec("c", "for n in mnt pid net ipc uts; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] && echo $n; done").await;
    assert_eq!(text, "mnt\npid\nnet\nipc\nuts\n");
    let (_, cgroup) = cluster.exec("c", "grep -c pods/s/c /proc/self/cgroup").await;
    assert!(cgroup.trim().parse::<u32>().expect("a number") >= 1, "{cgroup}");

    let runtime = cluster.runtime();
    let missing = runtime.exec_sync("c", words(&["nope"]), DEADLINE).await.expect_err("no such program");
    let message = "exec: \"nope\": executable file not found in $PATH".to_owned();
    assert_eq!(missing, RuntimeError::Exec { id: "c".into(), message, exit_code: 127 });
    let slow = runtime.exec_sync("c", words(&["sleep", "600"]), Duration::from_millis(100)).await;
    assert!(matches!(slow, Err(RuntimeError::Timeout { .. })), "{slow:?}");
    let big =
        runtime.exec_sync("c", words(&["head", "-c", "300000", "/dev/zero"]), DEADLINE).await.expect("exec");
    assert_eq!((big.stdout.len(), big.exit_code), (300_000, 0));
    let killed = runtime.exec_sync("c", words(&["sh", "-c", "kill -9 $$"]), DEADLINE).await.expect("exec");
    assert_eq!(killed.exit_code, 137);
    runtime.stop_container("c", Duration::ZERO).await.expect("stop");
    let error = runtime.exec_sync("c", words(&["true"]), DEADLINE).await.expect_err("not running");
    assert!(matches!(error, RuntimeError::NotRunning { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_streams_stdin_and_ends_with_it() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    cluster.start(&sandbox, cluster.config("c", &["sleep", "1000"])).await;
    let request = ExecRequest {
        command: words(&["sh", "-c", "cat; echo end >&2; exit 4"]),
        stdin: true,
        stdout: true,
        stderr: true,
        ..ExecRequest::default()
    };
    let mut session = cluster.runtime().exec("c", request).await.expect("exec");
    let mut stdin = session.stdin.take().expect("stdin");
    stdin.write_all(b"hello\n").await.expect("write");
    assert_eq!(read_until(&mut session, "\n").await, "hello\n");
    stdin.shutdown().await.expect("shutdown");
    let mut error_text = String::new();
    session.stderr.take().expect("stderr").read_to_string(&mut error_text).await.expect("read");
    assert_eq!((error_text.as_str(), session.exit.await.expect("exit")), ("end\n", 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_with_a_terminal() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    cluster.start(&sandbox, cluster.config("c", &["sleep", "1000"])).await;
    let request = ExecRequest {
        command: words(&["sh"]),
        tty: true,
        stdin: true,
        stdout: true,
        size: Some(TerminalSize { width: 100, height: 40 }),
        ..ExecRequest::default()
    };
    let mut session = cluster.runtime().exec("c", request).await.expect("exec");
    let mut stdin = session.stdin.take().expect("stdin");
    stdin.write_all(b"tty; stty size; echo $TERM\n").await.expect("write");
    let text = read_until(&mut session, "xterm").await;
    assert!(text.contains("/dev/pts/0") && text.contains("40 100"), "{text:?}");
    session.resize.resize(TerminalSize { width: 80, height: 24 }).await.expect("resize");
    stdin.write_all(b"stty size\n").await.expect("write");
    read_until(&mut session, "24 80").await;
    stdin.write_all(b"exit 6\n").await.expect("write");
    assert_eq!(tokio::time::timeout(DEADLINE, session.exit).await.expect("in time").expect("exit"), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_joins_stdio() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let mut config =
        cluster.config("c", &["sh", "-c", "while read x; do echo got $x; done; echo closed; exit 2"]);
    (config.stdin, config.stdin_once) = (true, true);
    cluster.start(&sandbox, config).await;
    let mut watcher = cluster.runtime().attach("c").await.expect("attach");
    watcher.stdin = None;
    assert!(
        read_until(&mut watcher, "closed").await.contains("closed"),
        "the first to close its input closes the container's"
    );
    assert_eq!(tokio::time::timeout(DEADLINE, watcher.exit).await.expect("in time").expect("exit"), 2);

    let mut config = cluster.config("d", &["sh", "-c", "while read x; do echo got $x; done"]);
    config.stdin = true;
    cluster.start(&sandbox, config).await;
    let mut first = cluster.runtime().attach("d").await.expect("attach");
    first.stdin.as_mut().expect("stdin").write_all(b"one\n").await.expect("write");
    read_until(&mut first, "got one").await;
    drop(first);
    let mut second = cluster.runtime().attach("d").await.expect("attach again");
    second.stdin.as_mut().expect("stdin").write_all(b"two\n").await.expect("write");
    read_until(&mut second, "got two").await;
    assert_eq!(cluster.log_text("d"), "got one\ngot two\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_with_a_terminal() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let mut config = cluster.config("c", &["sh"]);
    (config.stdin, config.tty) = (true, true);
    config.security.user = Some(UserSpec::Id { uid: 33, gid: None });
    cluster.start(&sandbox, config).await;
    let mut session = cluster.runtime().attach("c").await.expect("attach");
    session.resize.resize(TerminalSize { width: 90, height: 30 }).await.expect("resize");
    session.stdin.as_mut().expect("stdin").write_all(b"tty; stty size; exit 3\n").await.expect("write");
    let text = read_until(&mut session, "30 90").await;
    assert!(text.contains("/dev/"), "{text:?}");
    assert_eq!(cluster.exited("c").await.exit_code, 3);
    assert!(cluster.log("c").contains("30 90"), "{}", cluster.log("c"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_rotated_and_long_lines_split() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let script = "head -c 20000 /dev/zero | tr '\\0' x; echo; while read l; do echo $l; done";
    let mut config = cluster.shell("c", script);
    config.stdin = true;
    cluster.start(&sandbox, config).await;
    cluster.logged("c", " F xxx").await;
    let tags: Vec<String> =
        cluster.log("c").lines().map(|l| l.split(' ').nth(2).unwrap().to_owned()).collect();
    assert_eq!(tags, ["P", "F"]);
    let old = cluster.log_file("old");
    std::fs::rename(cluster.log_file("c"), &old).expect("rotate");
    cluster.runtime().reopen_log("c").await.expect("reopen");
    let mut session = cluster.runtime().attach("c").await.expect("attach");
    session.stdin.as_mut().expect("stdin").write_all(b"after\n").await.expect("write");
    cluster.logged("c", "after").await;
    assert_eq!(cluster.log_text("c"), "after\n");
    assert!(!cluster.log("old").contains("after"));
}
