//! Agents come and go, shims die, and nothing is lost, left or left unsaid.

mod support;

use std::fs;
use std::time::Duration;

use container::own::{purge, record_killed};
use container::runtime::{ContainerEventKind, ContainerState, Runtime, RuntimeError, SandboxState, reason};
use support::{Cluster, is_alive, mounts_below, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_agent_finds_everything() {
    let mut cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let gate = cluster.directory.path().join("gate");
    fs::create_dir_all(&gate).expect("gate");
    let mut waits = cluster
        .shell("waits", "echo ready; while [ ! -e /gate/open ]; do sleep 0.02; done; echo through; exit 42");
    waits.mounts = vec![container::runtime::Mount {
        host_path: gate.clone(),
        container_path: "/gate".into(),
        ..Default::default()
    }];
    cluster.start(&sandbox, waits).await;
    cluster.start(&sandbox, cluster.config("stays", &["sleep", "1000"])).await;
    cluster.logged("waits", "ready").await;
    let before = cluster.runtime().container_status("stays").await.expect("status");

    cluster.runtime = None;
    fs::write(gate.join("open"), "").expect("open the gate");
    let log = cluster.log_file("waits");
    wait_for("the end while away", || fs::read_to_string(&log).is_ok_and(|text| text.contains("through")))
        .await;
    cluster.connect().await;

    let status = cluster.exited("waits").await;
    assert_eq!((status.exit_code, status.reason.as_str()), (42, reason::ERROR));
    assert_eq!(cluster.runtime().container_status("stays").await.expect("status"), before);
    assert_eq!(cluster.exec("stays", "echo alive").await.1, "alive\n");
    assert_eq!(
        cluster.runtime().pod_sandbox_status(&sandbox).await.expect("status").state,
        SandboxState::Ready
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_do_not_notice_a_killed_agent() {
    use std::io::BufRead;
    let mut cluster = Cluster::new().await;
    cluster.runtime = None;
    let gate = cluster.directory.path().join("gate");
    fs::create_dir_all(&gate).expect("gate");
    let mut config =
        cluster.shell("c", "echo ready; while [ ! -e /gate/open ]; do sleep 0.02; done; exit 42");
    config.mounts = vec![container::runtime::Mount {
        host_path: gate.clone(),
        container_path: "/gate".into(),
        ..Default::default()
    }];
    let sandbox = container::runtime::SandboxConfig {
        id: "s".into(),
        log_directory: cluster.directory.path().join("logs"),
        ..Default::default()
    };
    let task = serde_json::json!({
        "state_dir": cluster.directory.path().join("state"), "prefix": cluster.prefix,
        "sandbox": sandbox, "container": config,
    });
    let file = cluster.directory.path().join("task.json");
    fs::write(&file, task.to_string()).expect("task");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kedge-shim-test"));
    let mut agent =
        command.arg("agent").arg(&file).stdout(std::process::Stdio::piped()).spawn().expect("an agent");
    let mut line = String::new();
    let stdout = agent.stdout.take().expect("stdout");
    std::io::BufReader::new(stdout).read_line(&mut line).expect("read");
    assert_eq!(line, "started\n");
    agent.kill().expect("kill");
    agent.wait().expect("reap");
    fs::write(gate.join("open"), "").expect("open the gate");
    let status_file = cluster.directory.path().join("state/sandboxes/s/containers/c/status.json");
    wait_for("the recorded end", || {
        fs::read_to_string(&status_file).is_ok_and(|text| text.contains("Exited"))
    })
    .await;
    cluster.connect().await;
    let status = cluster.runtime().container_status("c").await.expect("status");
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 42));
}

fn shim_pid(cluster: &Cluster, container_pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{container_pid}/stat")).expect("stat");
    let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).expect("ppid");
    let pid = parent.parse().expect("a pid");
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("cmdline");
    assert!(command.contains(&*cluster.directory.path().to_string_lossy()), "{command:?} is our shim");
    pid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_keeps_no_descriptors() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    cluster.start(&sandbox, cluster.config("stays", &["sleep", "1000"])).await;
    let shim = shim_pid(&cluster, cluster.runtime().container_status("stays").await.expect("status").pid);
    let open = || -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{shim}/fd")).expect("fds").flatten();
        entries.filter_map(|e| Some(fs::read_link(e.path()).ok()?.to_string_lossy().into_owned())).collect()
    };
    let before = open();
    for round in 0..3 {
        let id = format!("c{round}");
        cluster.run(&sandbox, cluster.shell(&id, "true")).await;
        cluster.exec("stays", "true").await;
        cluster.runtime().remove_container(&id).await.expect("remove");
    }
    wait_for(&format!("as few descriptors as before, {before:?}"), || {
        let after = open();
        if after.len() > before.len() {
            eprintln!("{after:?}");
        }
        after.len() <= before.len()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_ends_its_containers() {
    let mut cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    cluster.start(&sandbox, cluster.config("c", &["sleep", "1000"])).await;
    let pid = cluster.runtime().container_status("c").await.expect("status").pid;
    let shim = rustix::process::Pid::from_raw(shim_pid(&cluster, pid)).expect("a pid");
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).expect("kill");
    let status = cluster.exited("c").await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, reason::UNKNOWN));
    assert!(!is_alive(pid));
    assert_eq!(
        cluster.runtime().pod_sandbox_status(&sandbox).await.expect("status").state,
        SandboxState::NotReady
    );
    let error =
        cluster.runtime().create_container(&sandbox, cluster.config("d", &["true"])).await.expect_err("dead");
    assert!(matches!(error, RuntimeError::Unreachable { .. }), "{error}");
    cluster.connect().await;
    assert_eq!(cluster.exited("c").await.reason, reason::UNKNOWN, "it stays known");
    cluster.runtime().remove_pod_sandbox(&sandbox).await.expect("remove");
    assert_eq!(mounts_below(cluster.directory.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_killed_while_no_agent_watches() {
    let mut cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    cluster.start(&sandbox, cluster.config("c", &["sleep", "1000"])).await;
    let pid = cluster.runtime().container_status("c").await.expect("status").pid;
    let shim = shim_pid(&cluster, pid);
    cluster.runtime = None;
    let target = rustix::process::Pid::from_raw(shim).expect("a pid");
    rustix::process::kill_process(target, rustix::process::Signal::KILL).expect("kill");
    wait_for("the end of the shim", || !is_alive(shim)).await;
    assert!(is_alive(pid), "the container itself goes on until somebody looks");
    cluster.connect().await;
    let status = cluster.runtime().container_status("c").await.expect("status");
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 137));
    assert!(!is_alive(pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_a_sandbox_ends_all_and_keeps_the_records() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let mut events = cluster.runtime().events();
    cluster.start(&sandbox, cluster.config("c", &["sleep", "1000"])).await;
    cluster.runtime().create_container(&sandbox, cluster.config("d", &["true"])).await.expect("create");
    cluster.runtime().stop_pod_sandbox(&sandbox).await.expect("stop");
    cluster.runtime().stop_pod_sandbox(&sandbox).await.expect("stop twice");
    let states: Vec<_> = cluster.runtime().list_containers(Some(&sandbox)).await.expect("list");
    assert!(
        states.iter().all(|status| status.state == ContainerState::Exited && status.exit_code == 137),
        "{states:?}"
    );
    cluster.runtime().remove_pod_sandbox(&sandbox).await.expect("remove");
    let mut kinds = Vec::new();
    while let Ok(Ok(event)) = tokio::time::timeout(Duration::from_millis(500), events.recv()).await {
        if event.container_id == "c" {
            kinds.push(event.kind);
        }
        if kinds.last() == Some(&ContainerEventKind::Removed) {
            break;
        }
    }
    let exited = ContainerEventKind::Exited { exit_code: 137, reason: reason::ERROR.into() };
    use ContainerEventKind::{Created, Removed, Started};
    assert_eq!(kinds, [Created, Started, exited, Removed]);
    assert!(fs::read_dir(cluster.directory.path().join("state/sandboxes")).expect("dir").next().is_none());
}

/// What a loss of power leaves: the ends that were heard of, and of what ran perhaps files without a byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_are_kept_where_the_files_of_what_ran_are_empty() {
    let mut cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    cluster.run(&sandbox, cluster.shell("done", "exit 7")).await;
    cluster.start(&sandbox, cluster.config("ran", &["sleep", "1000"])).await;
    let pid = cluster.runtime().container_status("ran").await.expect("status").pid;
    cluster.runtime = None;
    let shim = shim_pid(&cluster, pid);
    // SAFETY: a process of this test's own.
    unsafe { libc::kill(shim, libc::SIGKILL) };
    wait_for("the end of the shim", || !is_alive(shim)).await;
    // Mounts do not outlive a loss of power either.
    let root = cluster.directory.path().join("roots/ran/merged");
    let root = std::ffi::CString::new(root.into_os_string().into_encoded_bytes()).expect("a path");
    // SAFETY: the path is one, and what is mounted there is this test's own.
    assert_eq!(unsafe { libc::umount2(root.as_ptr(), libc::MNT_DETACH) }, 0);
    let of_container = cluster.directory.path().join("state/sandboxes/s/containers/ran");
    for file in ["container.json", "status.json"] {
        assert!(of_container.join(file).exists());
        fs::write(of_container.join(file), "").expect("empty it");
    }
    cluster.connect().await;
    let status = async |id: &str| {
        let status = cluster.runtime().container_status(id).await.expect("status");
        (status.state, status.exit_code, status.reason)
    };
    assert_eq!(status("done").await, (ContainerState::Exited, 7, "Error".to_owned()));
    assert_eq!(status("ran").await, (ContainerState::Exited, 137, "Unknown".to_owned()));
    wait_for("the end of what ran", || !is_alive(pid)).await;
    // Who has forgotten it may make it anew, in a living sandbox: what is left of it does not stand in the way.
    let next = cluster.sandbox("next").await;
    let (code, _) = cluster.run(&next, cluster.shell("ran", "exit 4")).await;
    assert_eq!(code, 4);
    cluster.runtime().remove_pod_sandbox(&next).await.expect("remove");
    for id in ["done", "ran"] {
        cluster.runtime().remove_container(id).await.expect("remove");
    }
    cluster.runtime().remove_pod_sandbox("s").await.expect("remove");
    assert!(fs::read_dir(cluster.directory.path().join("state/sandboxes")).expect("dir").next().is_none());
    assert_eq!(mounts_below(cluster.directory.path()), [""; 0]);
}

/// Who kills all of it knows what nobody could find out afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_purge_has_killed_is_known_as_killed() {
    let mut cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    cluster.run(&sandbox, cluster.shell("done", "exit 7")).await;
    cluster.start(&sandbox, cluster.config("ran", &["sleep", "1000"])).await;
    let started = cluster.runtime().container_status("ran").await.expect("status").started_at_ns;
    cluster.runtime = None;
    purge(&cluster.prefix, &[cluster.directory.path()]).expect("purged");
    record_killed(&cluster.directory.path().join("state")).expect("written down");
    cluster.connect().await;
    let of = async |id: &str| cluster.runtime().container_status(id).await.expect("status");
    let (done, ran) = (of("done").await, of("ran").await);
    assert_eq!((done.exit_code, done.reason.as_str()), (7, reason::ERROR));
    assert_eq!((ran.exit_code, ran.reason.as_str(), ran.message.as_str()), (137, reason::ERROR, ""));
    assert!(ran.started_at_ns == started && ran.finished_at_ns > started, "{ran:?}");
}

/// An earlier sandbox of the same owner goes; the limits of the one that is there stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_an_earlier_sandbox_leaves_the_group_of_the_next() {
    let cluster = Cluster::new().await;
    let sandbox = |id: &str| container::runtime::SandboxConfig {
        id: id.into(),
        cgroup_parent: "pods/p".into(),
        resources: container::runtime::Resources { pids_limit: Some(77), ..Default::default() },
        ..Default::default()
    };
    let runtime = cluster.runtime();
    let first = runtime.run_pod_sandbox(sandbox("p-0")).await.expect("a sandbox");
    runtime.stop_pod_sandbox(&first).await.expect("stop");
    let next = runtime.run_pod_sandbox(sandbox("p-1")).await.expect("a sandbox");
    runtime.remove_pod_sandbox(&first).await.expect("remove");
    let group = container::cgroup::Cgroup::detect(&format!("{}/pods/p", cluster.prefix)).expect("cgroup");
    assert!(group.exists(), "its limits are gone");
    runtime.remove_pod_sandbox(&next).await.expect("remove");
    assert!(!group.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purging_needs_no_state_and_leaves_nothing() {
    let mut cluster = Cluster::new().await;
    let (one, two) = (cluster.sandbox("one").await, cluster.sandbox("two").await);
    cluster.start(&one, cluster.config("c", &["sleep", "1000"])).await;
    cluster.start(&two, cluster.shell("d", "sleep 1000 & sleep 1000")).await;
    let pids = [
        cluster.runtime().container_status("c").await.expect("c").pid,
        cluster.runtime().container_status("d").await.expect("d").pid,
    ];
    let shims = pids.map(|pid| shim_pid(&cluster, pid));
    cluster.runtime = None;
    let (prefix, directory) = (cluster.prefix.clone(), cluster.directory.path().to_owned());
    assert!(!mounts_below(&directory).is_empty());
    fs::remove_file(directory.join("state/sandboxes/one/sandbox.json")).expect("lose the state");
    let done = tokio::task::spawn_blocking(move || purge(&prefix, &[&directory])).await.expect("joined");
    done.expect("purged");
    for pid in pids.into_iter().chain(shims) {
        wait_for("the end of every process", || !is_alive(pid)).await;
    }
    assert_eq!(mounts_below(cluster.directory.path()), [""; 0]);
    assert!(!container::cgroup::Cgroup::detect(&cluster.prefix).expect("cgroup").exists());
}
