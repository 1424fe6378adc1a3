//! One cluster: a server process, its data directory, and what a test asks of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::Api;
use crate::wait::until;

pub struct Cluster {
    executable: PathBuf,
    folder: PathBuf,
    server: Option<Child>,
    /// Of the node, and what the server is told beside that.
    node: String,
    arguments: Vec<String>,
    /// From the start of the process to a ready node.
    pub started_in: Duration,
}

const START_LIMIT: Duration = Duration::from_secs(30);

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Its output, when it succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }
}

impl Cluster {
    /// Starts a server on a new directory and waits for its node to be ready.
    pub fn start(executable: impl Into<PathBuf>) -> Self {
        let mut this = Self::prepare(executable);
        this.launch();
        this
    }

    /// A directory for a cluster that does not run yet.
    pub fn prepare(executable: impl Into<PathBuf>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("kedge-t-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self {
            executable: executable.into(),
            folder,
            server: None,
            node: "node-1".into(),
            arguments: Vec::new(),
            started_in: Duration::ZERO,
        }
    }

    /// Names the node, and gives the server further arguments.
    pub fn told(mut self, node: &str, arguments: &[&str]) -> Self {
        self.node = node.into();
        self.arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        self
    }

    /// Where a test may put its own files; deleted with the cluster.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts the server on the directory as it is.
    pub fn launch(&mut self) {
        let started = Instant::now();
        self.begin();
        let node = self.node.clone();
        until("a ready node", START_LIMIT, || {
            let node = self.get("node", "", &node)?;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            if ready { Ok(()) } else { Err(format!("{conditions:?}\n{}", self.log())) }
        });
        self.started_in = started.elapsed();
    }

    /// Starts the server and waits for nothing.
    fn begin(&mut self) {
        std::fs::create_dir_all(self.data_dir()).expect("a folder");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.data_dir().join("server.log"))
            .expect("a log");
        let mut command = Command::new(&self.executable);
        command.args(["server", "--api-port", "0", "--node-name", &self.node, "--data-dir"]);
        command.arg(self.data_dir()).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        self.server = Some(command.spawn().expect("the server starts"));
    }

    /// Starts the server, which ends by itself with a fault; what it said.
    pub fn launch_in_vain(&mut self) -> String {
        self.begin();
        assert!(!self.ended().success(), "it ended well");
        self.log()
    }

    /// The end of the server's log.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.data_dir().join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub fn server_pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }

    /// As a crash or the kernel would end it.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        server.kill().expect("killed");
        server.wait().expect("reaped");
    }

    /// How the server ended that somebody has told to.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        let mut server = self.server.take().expect("the server runs");
        until("the server's end", START_LIMIT, || match server.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        })
    }

    /// Stops the server and every container; the data stays, and [`Cluster::launch`] goes on with it.
    pub fn down(&mut self, args: &[&str]) {
        self.kedge(&[&["down"], args].concat()).ok();
        if let Some(mut server) = self.server.take() {
            server.wait().expect("reaped");
        }
    }

    /// A `kedge` command on this cluster.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .args(args)
            .env("KEDGE_DATA_DIR", self.data_dir())
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        command
    }

    pub fn kedge(&self, args: &[&str]) -> Ran {
        self.command(args).output().expect("kedge runs").into()
    }

    /// The same with something on its standard input.
    pub fn kedge_with_input(&self, args: &[&str], input: &str) -> Ran {
        with_input(self.command(args), input)
    }

    /// An object, or why it could not be had. The namespace is empty for kinds without.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value, String> {
        let mut args = vec!["get", kind];
        if !name.is_empty() {
            args.push(name);
        }
        args.extend(["-o", "json"]);
        if !namespace.is_empty() {
            args.extend(["-n", namespace]);
        }
        let ran = self.kedge(&args);
        match ran.code {
            Some(0) => serde_json::from_str(&ran.stdout).map_err(|e| format!("{e}: {}", ran.stdout)),
            _ => Err(ran.stderr),
        }
    }

    /// The objects of a kind in a namespace.
    pub fn list(&self, kind: &str, namespace: &str) -> Result<Vec<Value>, String> {
        Ok(self.get(kind, namespace, "")?["items"].as_array().cloned().unwrap_or_default())
    }

    pub fn apply(&self, manifest: &str) -> Ran {
        self.kedge_with_input(&["apply", "-f", "-"], manifest)
    }

    /// Patches what is at a path of the API.
    pub fn patch(&self, path: &str, content_type: &str, patch: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut connection = Api::read(&self.data_dir().join("kubeconfig")).connect().await;
            connection.done_with("PATCH", path, &[("content-type", content_type)], patch.to_owned()).await;
        });
    }

    /// A real kubectl, if the machine has one.
    pub fn kubectl(&self, program: &Path, args: &[&str]) -> Ran {
        self.kubectl_command(program, args).output().expect("kubectl runs").into()
    }

    pub fn kubectl_with_input(&self, program: &Path, args: &[&str], input: &str) -> Ran {
        with_input(self.kubectl_command(program, args), input)
    }

    pub fn kubectl_command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(self.data_dir().join("kubeconfig"));
        command.arg("--cache-dir").arg(self.folder.join("kubectl-cache")).args(args).stdin(Stdio::null());
        command
    }

    /// Makes an image of the machine's static busybox: `localhost/busybox:1`.
    pub fn busybox(&self) {
        let context = self.folder.join("busybox");
        std::fs::create_dir_all(&context).expect("a folder");
        std::fs::copy("/bin/busybox", context.join("busybox")).expect("busybox-static is installed");
        let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox --install -s /bin && mkdir -p /tmp /etc && chmod 1777 /tmp\"]\nCMD [\"sh\"]\n";
        std::fs::write(context.join("Dockerfile"), dockerfile).expect("written");
        let ran =
            self.kedge(&["build", "-t", "localhost/busybox:1", context.to_str().expect("a plain path")]);
        ran.ok();
    }
}

fn with_input(mut command: Command, input: &str) -> Ran {
    use std::io::Write;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // One that ends without reading all of it has its reasons; they are in its output.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    child.wait_with_output().expect("it ends").into()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log ends with:\n{}", self.log());
        }
        if let Some(server) = &mut self.server {
            drop(server.kill());
            drop(server.wait());
        }
        // A server that its options kept from starting has made nothing that is to be taken away.
        let was_made = self.data_dir().join("pki").exists();
        let purged = self.kedge(&["down", "--purge", "--now"]);
        if was_made && purged.code != Some(0) && !std::thread::panicking() {
            panic!("purge: {purged:?}");
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Every kubectl of the machine, newest last.
pub fn kubectls() -> Vec<PathBuf> {
    let folders = ["/usr/lib/google-cloud-sdk/bin", "/usr/local/bin", "/usr/bin"];
    let versioned = (27..=40).map(|minor| format!("kubectl.1.{minor}"));
    let names: Vec<String> = versioned.chain(["kubectl".to_owned()]).collect();
    let mut found: Vec<PathBuf> = Vec::new();
    for name in names {
        let path = folders.iter().map(|folder| Path::new(folder).join(&name)).find(|path| path.exists());
        found.extend(path);
    }
    found
}
