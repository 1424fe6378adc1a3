//! Containers run, end, log and are shaped as their configuration says. Real processes, mounts and cgroups.

mod support;

use std::time::Duration;

use container::cgroup::{Cgroup, Layout, detect_layout};
use container::runtime::{
    Capabilities, ContainerConfig, ContainerState, Mount, MountKind, Propagation, Resources, Runtime,
    RuntimeError, SandboxConfig, Seccomp, Security, UserSpec, reason,
};
use support::{Cluster, DEADLINE, is_alive, mounts_below};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_runs_logs_and_ends() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let config =
        cluster.shell("c", "echo out; echo err >&2; hostname; echo $HOSTNAME; cat /etc/hostname; exit 3");
    let id = cluster.runtime().create_container(&sandbox, config).await.expect("create");
    let created = cluster.runtime().container_status(&id).await.expect("status");
    assert_eq!((created.state, created.started_at_ns), (ContainerState::Created, 0));
    assert!(is_alive(created.pid));
    cluster.runtime().start_container(&id).await.expect("start");
    let status = cluster.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, reason::ERROR));
    assert!(status.started_at_ns >= status.created_at_ns && status.finished_at_ns >= status.started_at_ns);
    let log = cluster.log(&id);
    assert!(log.lines().any(|line| line.ends_with("Z stdout F out")), "{log}");
    assert!(log.lines().any(|line| line.ends_with("Z stderr F err")), "{log}");
    assert_eq!(log.lines().filter(|line| line.ends_with(" F box")).count(), 3, "{log}");

    assert_eq!(cluster.run(&sandbox, cluster.shell("ok", "true")).await.0, 0);
    assert_eq!(cluster.runtime().container_status("ok").await.expect("status").reason, reason::COMPLETED);
    cluster.runtime().remove_container(&id).await.expect("remove");
    cluster.runtime().remove_container(&id).await.expect("remove twice");
    assert!(cluster.runtime().container_status(&id).await.expect_err("gone").is_not_found());
    cluster.runtime().remove_pod_sandbox(&sandbox).await.expect("remove sandbox");
    cluster.runtime().remove_pod_sandbox(&sandbox).await.expect("remove sandbox twice");
    assert_eq!(mounts_below(cluster.directory.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environment_user_and_directories_are_as_configured() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let check =
        |id: &'static str, script: &'static str, change: fn(&mut ContainerConfig), expect: &'static str| {
            let mut config = cluster.shell(id, script);
            change(&mut config);
            let (cluster, sandbox) = (&cluster, &sandbox);
            async move {
                let (code, text) = cluster.run(sandbox, config).await;
                assert_eq!((code, text.trim()), (0, expect), "{id}");
            }
        };
    check(
        "env",
        "echo $A-$B-$HOME-$PWD",
        |c| {
            c.image_config.env = vec!["A=image".into(), "B=image".into()];
            c.env = vec![("B".into(), "own".into())];
            c.working_dir = "/made/for/it".into();
        },
        "image-own-/root-/made/for/it",
    )
    .await;
    check(
        "user",
        "id -u; id -g; id -G; echo $HOME; echo again > /dev/stdout",
        |c| c.image_config.user = "web".into(),
        "33\n34\n34 40\n/srv\nagain",
    )
    .await;
    check(
        "uid",
        "id -u; id -g; id -G",
        |c| {
            c.security.user = Some(UserSpec::Id { uid: 1000, gid: Some(7) });
            c.security.supplemental_groups = vec![8];
        },
        "1000\n7\n7 8",
    )
    .await;
    check(
        "caps",
        "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 | sort -u",
        |_| {},
        "0000000000000000\n00000000a80425fb",
    )
    .await;
    check(
        "nocaps",
        "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 | sort -u",
        |c| {
            c.security.capabilities =
                Capabilities { add: vec!["NET_BIND_SERVICE".into()], drop: vec!["ALL".into()] };
        },
        "0000000000000000\n0000000000000400",
    )
    .await;
    check(
        "nnp",
        "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | cut -f2",
        |c| {
            c.security.no_new_privileges = true;
            c.security.user = Some(UserSpec::Id { uid: 5, gid: None });
        },
        "1\n2",
    )
    .await;
    check(
        "readonly",
        "exec 2>&1; echo x > /x || echo refused; echo y > /dev/shm/y && cat /dev/shm/y",
        |c| c.security.readonly_rootfs = true,
        "sh: can't create /x: Read-only file system\nrefused\ny",
    )
    .await;
    check(
        "masked",
        "exec 2>&1; cat /proc/keys | wc -c; echo 1 > /proc/sys/kernel/panic || echo refused",
        |_| {},
        "0\nsh: can't create /proc/sys/kernel/panic: Read-only file system\nrefused",
    )
    .await;
    check(
        "groups",
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/kedge-test 2>/dev/null && echo $d; done; echo none",
        |_| {},
        "none",
    )
    .await;
    check(
        "signals",
        "grep -E 'SigBlk|SigIgn' /proc/self/status | cut -f2 | sort -u",
        |_| {},
        "0000000000000000",
    )
    .await;
    check("descriptors", "ls /proc/self/fd | wc -l", |_| {}, "4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_and_shared_memory() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let data = cluster.directory.path().join("data");
    std::fs::create_dir_all(&data).expect("data");
    std::fs::write(data.join("f"), "hello\n").expect("file");
    let mut config = cluster.shell("c", "exec 2>&1; cat /data/f /etc/f; echo x > /data/f || echo refused; df -m /t | tail -1 | awk '{print $2}'; echo shared > /dev/shm/x; stat -f -c %T /sys/fs/cgroup; ls /sys/fs/cgroup | wc -l");
    let bind = |from: &std::path::Path, to: &str| Mount {
        host_path: from.into(),
        container_path: to.into(),
        readonly: true,
        ..Mount::default()
    };
    config.mounts = vec![
        bind(&data.join("f"), "/etc/f"),
        bind(&data, "/data"),
        Mount {
            container_path: "/t".into(),
            kind: MountKind::Tmpfs { size_bytes: Some(4 << 20) },
            ..Mount::default()
        },
    ];
    let (_, text) = cluster.run(&sandbox, config).await;
    assert!(
        text.starts_with("hello\nhello\nsh: can't create /data/f: Read-only file system\nrefused\n4\n"),
        "{text}"
    );
    assert_eq!(cluster.run(&sandbox, cluster.shell("d", "cat /dev/shm/x")).await.1, "shared\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_cannot_be_executed_fail_the_start() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let check = |id: &'static str, command: &'static str, code: i32, text: &'static str| {
        let (cluster, sandbox) = (&cluster, &sandbox);
        async move {
            cluster
                .runtime()
                .create_container(sandbox, cluster.config(id, &[command]))
                .await
                .expect("create");
            let error = cluster.runtime().start_container(id).await.expect_err("no such program");
            assert_eq!(error, RuntimeError::Start { id: id.into(), message: text.into(), exit_code: code });
            let status = cluster.exited(id).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (code, reason::START_ERROR));
        }
    };
    check("none", "nope", 127, "exec: \"nope\": executable file not found in $PATH").await;
    check("path", "/nope", 127, "exec: \"/nope\": stat /nope: no such file or directory").await;
    check("data", "/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied").await;
    let mut config = cluster.shell("user", "true");
    config.image_config.user = "nobody-knows".into();
    let error = cluster.runtime().create_container(&sandbox, config).await.expect_err("no such user");
    assert!(matches!(error, RuntimeError::InvalidConfig { .. }), "{error}");
    assert_eq!(mounts_below(&cluster.directory.path().join("roots/user")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seccomp_holds_in_run_and_exec() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let mut config = cluster.shell(
        "default",
        "exec 2>&1; unshare -m true || echo refused; grep Seccomp: /proc/self/status; exec sleep 1000",
    );
    config.security.capabilities.add = vec!["NET_ADMIN".into()];
    cluster.start(&sandbox, config).await;
    cluster.logged("default", "Seccomp:").await;
    assert!(
        cluster.log_text("default").contains("Operation not permitted\nrefused\nSeccomp:\t2"),
        "{}",
        cluster.log("default")
    );
    let (_, text) =
        cluster.exec("default", "unshare -m true || echo refused; grep Seccomp: /proc/self/status").await;
    assert!(text.contains("refused\nSeccomp:\t2"), "{text}");

    let profile = cluster.directory.path().join("profile.json");
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
    std::fs::write(&profile, json).expect("profile");
    let mut config = cluster.shell("local", "exec 2>&1; mkdir /a || echo refused");
    config.security.seccomp = Seccomp::Localhost(profile);
    assert!(cluster.run(&sandbox, config).await.1.ends_with("Operation not permitted\nrefused\n"));

    let mut config = cluster
        .shell("free", "grep Seccomp: /proc/self/status; unshare -m true && echo allowed; ls /dev | wc -l");
    config.security = Security { privileged: true, ..Security::default() };
    let (_, text) = cluster.run(&sandbox, config).await;
    assert!(text.starts_with("Seccomp:\t0\nallowed\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_limits_end_in_oom_killed() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let mut config = cluster.shell("c", "exec tail /dev/zero");
    config.resources =
        Resources { memory_limit_bytes: Some(16 << 20), oom_score_adj: Some(900), ..Resources::default() };
    cluster.start(&sandbox, config).await;
    let status = cluster.exited("c").await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, reason::OOM_KILLED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_are_measured_and_changed() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let mut config =
        cluster.shell("c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo spun; exec sleep 1000");
    config.resources = Resources {
        cpu_shares: Some(512),
        pids_limit: Some(50),
        memory_limit_bytes: Some(64 << 20),
        ..Resources::default()
    };
    cluster.start(&sandbox, config).await;
    cluster.logged("c", "spun").await;
    let stats = cluster.runtime().container_stats("c").await.expect("stats");
    assert!(
        stats.cpu_usage_ns > 1_000_000 && stats.memory_usage_bytes > 0 && stats.process_count == 1,
        "{stats:?}"
    );
    let change = Resources {
        memory_limit_bytes: Some(32 << 20),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        ..Resources::default()
    };
    cluster.runtime().update_resources("c", change).await.expect("update");
    let group = container::cgroup::Cgroup::detect(&format!("{}/pods/s/c", cluster.prefix)).expect("cgroup");
    assert!(group.exists());
    // It, its children and what is executed in it, in every hierarchy.
    let in_all = |pid: i32| group.holds(pid);
    let pids = group.pids();
    assert!(!pids.is_empty() && pids.iter().all(|pid| in_all(*pid)), "{pids:?}");
    let (_, own) = cluster.exec("c", "cat /proc/self/cgroup").await;
    let inside = |line: &str| line.ends_with("/pods/s/c") || line.ends_with(":/");
    assert!(own.lines().filter(|line| inside(line)).count() >= 2, "{own}");
    assert!(!own.contains("/shims"), "{own}");
    let (_, limit) = cluster
        .exec("c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null")
        .await;
    assert_eq!(limit.trim(), (32 << 20).to_string());
    // So many processes and no more.
    let many = "for n in $(seq 100); do sleep 1000 > /dev/null 2>&1 & done";
    let (code, said) = cluster.exec("c", many).await;
    assert!(code != 0 && said.contains("can't fork"), "{code} {said}");
    let count = group.pids().len();
    assert!((40..=50).contains(&count), "{count} processes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_asks_first_and_then_kills() {
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    cluster
        .start(
            &sandbox,
            cluster.shell("kind", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"),
        )
        .await;
    cluster.logged("kind", "ready").await;
    cluster.runtime().stop_container("kind", DEADLINE).await.expect("stop");
    let status = cluster.runtime().container_status("kind").await.expect("status");
    assert_eq!((status.exit_code, cluster.log_text("kind").as_str()), (7, "ready\nbye\n"));

    let mut config = cluster.shell("signal", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done");
    config.image_config.stop_signal = Some("SIGUSR1".into());
    cluster.start(&sandbox, config).await;
    cluster.logged("signal", "ready").await;
    cluster.runtime().stop_container("signal", DEADLINE).await.expect("stop");
    assert_eq!(cluster.runtime().container_status("signal").await.expect("status").exit_code, 9);

    cluster
        .start(&sandbox, cluster.shell("deaf", "trap '' TERM; echo ready; while :; do sleep 1; done"))
        .await;
    cluster.logged("deaf", "ready").await;
    cluster.runtime().stop_container("deaf", Duration::from_millis(200)).await.expect("stop");
    assert_eq!(cluster.runtime().container_status("deaf").await.expect("status").exit_code, 137);
    cluster.runtime().stop_container("deaf", Duration::ZERO).await.expect("stop again");

    cluster.runtime().create_container(&sandbox, cluster.shell("unstarted", "true")).await.expect("create");
    cluster.runtime().stop_container("unstarted", DEADLINE).await.expect("stop");
    assert_eq!(cluster.exited("unstarted").await.exit_code, 137);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pid_namespaces_are_private_shared_or_joined() {
    let cluster = Cluster::new().await;
    let private = cluster.sandbox("private").await;
    assert_eq!(cluster.run(&private, cluster.shell("a", "echo $$")).await.1, "1\n");
    let shared = cluster
        .sandbox_with(SandboxConfig { id: "shared".into(), share_pid: true, ..SandboxConfig::default() })
        .await;
    cluster.start(&shared, cluster.config("b", &["sleep", "1234"])).await;
    let (_, text) = cluster.run(&shared, cluster.shell("c", "ps -o args; (sleep 1000 &) ; true")).await;
    assert!(text.contains("sleep 1234"), "{text}");
    let mut debug = cluster.shell("d", "ps -o pid,args");
    debug.target_container = Some("target".into());
    cluster.start(&private, cluster.config("target", &["sleep", "4321"])).await;
    let (_, text) = cluster.run(&private, debug).await;
    assert!(text.contains("    1 sleep 4321"), "{text}");
    cluster.runtime().remove_pod_sandbox(&shared).await.expect("remove");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandboxes_set_kernel_parameters_or_fail() {
    let cluster = Cluster::new().await;
    let sysctls = [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into();
    let sandbox =
        cluster.sandbox_with(SandboxConfig { id: "s".into(), sysctls, ..SandboxConfig::default() }).await;
    assert_eq!(
        cluster.run(&sandbox, cluster.shell("c", "cat /proc/sys/kernel/shm_rmid_forced")).await.1,
        "1\n"
    );
    let sysctls = [("kernel.no_such".to_owned(), "1".to_owned())].into();
    let config = SandboxConfig { id: "t".into(), sysctls, ..SandboxConfig::default() };
    let error = cluster.runtime().run_pod_sandbox(config).await.expect_err("refused");
    assert!(error.to_string().contains("cannot set kernel parameters"), "{error}");
    assert_eq!(cluster.runtime().list_pod_sandboxes().await.expect("list").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_propagate_as_asked() {
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
    let cluster = Cluster::new().await;
    let sandbox = cluster.sandbox("s").await;
    let host = cluster.directory.path().join("host");
    std::fs::create_dir_all(&host).expect("host");
    mount("t", &host, "tmpfs", MountFlags::empty(), None).expect("mount");
    mount_change(&host, MountPropagationFlags::SHARED).expect("share");
    for name in ["private", "slave", "shared"] {
        std::fs::create_dir_all(host.join(name)).expect("directory");
    }
    std::fs::create_dir_all(host.join("late")).expect("directory");
    for (id, propagation) in [
        ("private", Propagation::Private),
        ("slave", Propagation::HostToContainer),
        ("shared", Propagation::Bidirectional),
    ] {
        let mut config = cluster.shell(id, &format!("mount -t tmpfs t /m/{id}; echo ready; exec sleep 1000"));
        config.security = Security { privileged: true, ..Security::default() };
        config.mounts = vec![Mount {
            host_path: host.clone(),
            container_path: "/m".into(),
            propagation,
            ..Mount::default()
        }];
        cluster.start(&sandbox, config).await;
        cluster.logged(id, "ready").await;
    }
    mount("t", host.join("late"), "tmpfs", MountFlags::empty(), None).expect("mount");
    let mut seen = Vec::new();
    for id in ["private", "slave", "shared"] {
        let (_, text) = cluster.exec(id, "grep -c ' /m/late ' /proc/self/mountinfo").await;
        let on_host = mounts_below(&host.join(id)).len();
        seen.push((id, text.trim().to_owned(), on_host));
    }
    unmount(host.join("late"), UnmountFlags::DETACH).expect("unmount");
    let expected = [("private", "0", 0), ("slave", "1", 0), ("shared", "1", 1)];
    assert_eq!(seen, expected.map(|(id, count, on_host)| (id, count.to_owned(), on_host)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_join_the_network_namespace_given() {
    let cluster = Cluster::new().await;
    let pinned = cluster.directory.path().join("netns");
    std::fs::write(&pinned, "").expect("file");
    let target = pinned.clone();
    // A namespace of this one thread's, kept by the mount.
    let made = std::thread::spawn(move || {
        // SAFETY: the thread ends with its namespace; nothing else runs on it.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "unshare");
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &target).expect("pin");
    });
    made.join().expect("made");
    let own = std::fs::read_link("/proc/self/ns/net").expect("own").to_string_lossy().into_owned();
    let sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "77".to_owned())].into();
    let config = SandboxConfig {
        id: "s".into(),
        network_namespace: Some(pinned),
        sysctls,
        ..SandboxConfig::default()
    };
    let sandbox = cluster.sandbox_with(config).await;
    let script =
        "readlink /proc/self/ns/net; ls /sys/class/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let (_, text) = cluster.run(&sandbox, cluster.shell("c", script)).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_ne!(lines[0], own);
    assert_eq!(lines[1..], ["lo", "77"]);
    let host = cluster.sandbox("host").await;
    assert_eq!(cluster.run(&host, cluster.shell("h", "readlink /proc/self/ns/net")).await.1.trim(), own);
}

/// Frozen by somebody, it is ended all the same: by a stop, with its sandbox, and with its cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_containers_end() {
    let cluster = Cluster::new().await;
    let freeze = |group: &str| {
        let layout = detect_layout().expect("a layout");
        let thaw = layout.thaw(&format!("{}/{group}", cluster.prefix)).expect("a freezer");
        let frozen = if thaw.value == "0" { "1" } else { "FROZEN" };
        std::fs::write(thaw.file, frozen).expect("frozen");
    };
    let sandbox = cluster.sandbox("s").await;
    cluster.start(&sandbox, cluster.shell("one", "exec sleep 1000")).await;
    cluster.start(&sandbox, cluster.shell("two", "exec sleep 1000")).await;
    freeze("pods/s/one");
    cluster.runtime().stop_container("one", Duration::from_millis(100)).await.expect("stop");
    assert_eq!(cluster.runtime().container_status("one").await.expect("status").exit_code, 137);
    cluster.runtime().remove_container("one").await.expect("remove");
    // The group above.
    freeze("pods/s");
    cluster.runtime().remove_pod_sandbox(&sandbox).await.expect("remove");
    let last = cluster.sandbox("last").await;
    cluster.start(&last, cluster.shell("three", "exec sleep 1000")).await;
    freeze("pods/last/three");
    freeze("pods/last");
    container::own::purge(&cluster.prefix, &[cluster.directory.path()]).expect("purged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_limits_what_all_its_containers_take() {
    let cluster = Cluster::new().await;
    let limited = |bytes: i64| Resources { memory_limit_bytes: Some(bytes), ..Resources::default() };
    let config = SandboxConfig { id: "s".into(), resources: limited(24 << 20), ..SandboxConfig::default() };
    let sandbox = cluster.sandbox_with(config).await;
    let group = format!("{}/pods/s", cluster.prefix);
    let has = || {
        let layout = detect_layout().expect("a layout");
        let file = if matches!(layout, Layout::V2 { .. }) { "memory.max" } else { "memory.limit_in_bytes" };
        let directory = layout.controller_directory("memory", &group).expect("a memory controller");
        std::fs::read_to_string(directory.join(file)).expect("a limit").trim().to_owned()
    };
    assert_eq!(has(), (24 << 20).to_string());
    // The container itself has no limit.
    cluster.start(&sandbox, cluster.shell("c", "exec tail /dev/zero")).await;
    assert_eq!(cluster.exited("c").await.exit_code, 137);
    cluster.runtime().update_sandbox_resources(&sandbox, limited(32 << 20)).await.expect("changed");
    assert_eq!(has(), (32 << 20).to_string());
    cluster.runtime().remove_pod_sandbox(&sandbox).await.expect("remove");
    assert!(!Cgroup::detect(&group).expect("a group").exists());
}
