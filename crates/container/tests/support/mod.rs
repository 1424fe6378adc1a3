//! A runtime of its own for each test, on a root of busybox; gone with all it made when the test ends, however it ends.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use container::own::{OwnRuntime, purge};
use container::runtime::{
    ContainerConfig, ContainerState, ContainerStatus, Rootfs, Runtime, SandboxConfig, Seccomp, Security,
};

pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub directory: tempfile::TempDir,
    pub prefix: String,
    pub runtime: Option<OwnRuntime>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = purge(&self.prefix, &[self.directory.path()]) {
            eprintln!("purge: {error:?}");
        }
    }
}

impl Cluster {
    pub async fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("kedge-t").tempdir().expect("a directory");
        let root = directory.path().join("busybox");
        fs::create_dir_all(root.join("bin")).expect("bin");
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
        for name in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(name)).expect("link");
        }
        fs::create_dir_all(root.join("tmp")).expect("tmp");
        fs::create_dir_all(root.join("etc")).expect("etc");
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n")
            .expect("passwd");
        fs::write(root.join("etc/group"), "root:x:0:\nwww:x:34:\nlog:x:40:web\n").expect("group");
        let mut cluster =
            Self { directory, prefix: format!("kedge-t-{}", base::id::name_suffix(8)), runtime: None };
        cluster.connect().await;
        cluster
    }

    /// A new agent on the same state.
    pub async fn connect(&mut self) {
        self.runtime = None;
        let state = self.directory.path().join("state");
        let runtime = OwnRuntime::new(state, env!("CARGO_BIN_EXE_kedge-shim-test"), &self.prefix).await;
        self.runtime = Some(runtime.expect("a runtime"));
    }

    pub fn runtime(&self) -> &OwnRuntime {
        self.runtime.as_ref().expect("a runtime")
    }

    pub async fn sandbox(&self, id: &str) -> String {
        self.sandbox_with(SandboxConfig { id: id.into(), ..SandboxConfig::default() }).await
    }

    pub async fn sandbox_with(&self, config: SandboxConfig) -> String {
        let config = SandboxConfig {
            hostname: "box".into(),
            log_directory: self.directory.path().join("logs"),
            cgroup_parent: format!("pods/{}", config.id),
            ..config
        };
        self.runtime().run_pod_sandbox(config).await.expect("a sandbox")
    }

    pub fn config(&self, id: &str, command: &[&str]) -> ContainerConfig {
        let own = self.directory.path().join("roots").join(id);
        ContainerConfig {
            id: id.into(),
            name: id.into(),
            rootfs: Rootfs {
                lower: vec![self.directory.path().join("busybox")],
                upper: own.join("upper"),
                work: own.join("work"),
                merged: own.join("merged"),
            },
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: PathBuf::from(format!("{id}.log")),
            security: Security { seccomp: Seccomp::RuntimeDefault, ..Security::default() },
            ..ContainerConfig::default()
        }
    }

    pub fn shell(&self, id: &str, script: &str) -> ContainerConfig {
        self.config(id, &["sh", "-c", script])
    }

    pub async fn start(&self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.runtime().create_container(sandbox, config).await.expect("create");
        self.runtime().start_container(&id).await.expect("start");
        id
    }

    pub async fn exited(&self, id: &str) -> ContainerStatus {
        self.until(id, |status| status.state == ContainerState::Exited).await
    }

    pub async fn until(&self, id: &str, expected: impl Fn(&ContainerStatus) -> bool) -> ContainerStatus {
        let mut events = self.runtime().events();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.runtime().container_status(id).await.expect("status");
            if expected(&status) {
                return status;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let event = tokio::time::timeout(left, events.recv()).await;
            event.unwrap_or_else(|_| panic!("{id} is still {status:?}")).expect("events");
        }
    }

    /// Runs a script to its end; its exit code and the text of its log.
    pub async fn run(&self, sandbox: &str, config: ContainerConfig) -> (i32, String) {
        let id = self.start(sandbox, config).await;
        let status = self.exited(&id).await;
        (status.exit_code, self.log_text(&id))
    }

    pub fn log_file(&self, id: &str) -> PathBuf {
        self.directory.path().join("logs").join(format!("{id}.log"))
    }

    pub fn log(&self, id: &str) -> String {
        fs::read_to_string(self.log_file(id)).expect("a log")
    }

    /// Without times, streams and tags.
    pub fn log_text(&self, id: &str) -> String {
        self.log(id).lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n").collect()
    }

    /// Waits for a text in the log: the program has come that far.
    pub async fn logged(&self, id: &str, text: &str) {
        wait_for(&format!("{text:?} in the log of {id}"), || {
            fs::read_to_string(self.log_file(id)).is_ok_and(|log| log.contains(text))
        })
        .await;
    }

    pub async fn exec(&self, id: &str, script: &str) -> (i32, String) {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let result = self.runtime().exec_sync(id, command, DEADLINE).await.expect("exec");
        let text =
            String::from_utf8_lossy(&result.stdout).into_owned() + &String::from_utf8_lossy(&result.stderr);
        (result.exit_code, text)
    }
}

pub async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tick.tick().await;
    }
}

pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

pub fn mounts_below(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let wanted = directory.to_string_lossy().into_owned();
    text.lines().filter(|line| line.contains(&wanted)).map(str::to_owned).collect()
}
