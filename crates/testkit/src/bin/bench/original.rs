//! The original where the machine has it: etcd and kube-apiserver, and what watches them in every cluster as our own
//! controllers and scheduler do, if it is there too. Started on the same disk, measured in the same run.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::api::Api;
use testkit::{Certificate, until};

use testkit::etcd::{Etcd, free_port};

const TOKEN: &str = "a-token-of-this-measurement";
const START_LIMIT: Duration = Duration::from_secs(60);

pub struct Original {
    folder: PathBuf,
    certificate: Certificate,
    etcd: Etcd,
    server: Child,
    companions: Vec<Child>,
    port: u16,
}

/// What kedge does in the same process.
const COMPANIONS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

impl Original {
    pub fn start(beside: &Path) -> Option<Self> {
        let folder = beside.join("original");
        std::fs::create_dir_all(&folder).expect("a folder");
        let certificate = Certificate::new();
        for (name, text) in [
            ("tls.crt", certificate.certificate.as_str()),
            ("tls.key", &certificate.key),
            ("ca.crt", &certificate.authority),
            ("tokens.csv", &format!("{TOKEN},admin,admin,\"system:masters\"\n")),
        ] {
            std::fs::write(folder.join(name), text).expect("written");
        }
        let etcd = Etcd::start(beside)?;
        let port = free_port();
        let server = spawn(&folder, &etcd, port)?;
        let mut this = Self { folder, certificate, etcd, server, companions: Vec::new(), port };
        this.wait();
        this.companions = COMPANIONS.iter().filter_map(|program| this.companion(program)).collect();
        Some(this)
    }

    /// All that runs, as a table names it.
    pub fn name(&self) -> &'static str {
        match self.companions.len() {
            0 => "kube-apiserver and etcd",
            1 => "kube-apiserver, etcd and one of their companions",
            _ => "kube-apiserver, etcd, kube-controller-manager and kube-scheduler",
        }
    }

    fn companion(&self, program: &str) -> Option<Child> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": format!("https://localhost:{}", self.port),
                "certificate-authority": file("ca.crt")}}],
            "users": [{"name": "it", "user": {"token": TOKEN}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        std::fs::write(file("kubeconfig"), kubeconfig.to_string()).expect("written");
        let mut command = Command::new(program);
        command.args([format!("--kubeconfig={}", file("kubeconfig")), "--leader-elect=false".into()]);
        command.arg("--secure-port=0");
        if program == COMPANIONS[0] {
            command.arg(format!("--service-account-private-key-file={}", file("tls.key")));
        }
        let log = std::fs::File::create(self.folder.join(format!("{program}.log"))).expect("a log");
        command.stdout(Stdio::null()).stderr(log).spawn().ok()
    }

    pub fn api(&self) -> Api {
        Api::of(&format!("127.0.0.1:{}", self.port), &self.certificate.authority, TOKEN)
    }

    pub fn pids(&self) -> Vec<u32> {
        [self.server.id(), self.etcd.pid()].into_iter().chain(self.companions.iter().map(Child::id)).collect()
    }

    /// Ends the server, starts it again on what is stored, and says how long it took to be ready. Alone: its companions
    /// would come back at their own pace.
    pub fn restart(&mut self) -> Duration {
        self.stop();
        let started = Instant::now();
        self.server = spawn(&self.folder, &self.etcd, self.port).expect("it started before");
        self.wait();
        started.elapsed()
    }

    fn wait(&self) {
        let runtime = crate::api::runtime();
        let api = self.api();
        until("the original is ready", START_LIMIT, || {
            let ready = runtime.block_on(async {
                let mut connection = api.try_connect().await.map_err(|e| e.to_string())?;
                Ok::<_, String>(connection.send("GET", "/readyz", "").await.status())
            })?;
            if ready.is_success() { Ok(()) } else { Err(format!("it is not ready: {ready}")) }
        });
    }
}

fn spawn(folder: &Path, etcd: &Etcd, port: u16) -> Option<Child> {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut command = Command::new("kube-apiserver");
    command.args([
        format!("--etcd-servers=http://{}", etcd.address),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".into(),
        "--endpoint-reconciler-type=none".into(),
        format!("--tls-cert-file={}", file("tls.crt")),
        format!("--tls-private-key-file={}", file("tls.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".into(),
        "--service-cluster-ip-range=10.43.0.0/16".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", file("tls.crt")),
        format!("--service-account-signing-key-file={}", file("tls.key")),
    ]);
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    command.stdout(Stdio::null()).stderr(log).spawn().ok()
}

impl Original {
    fn stop(&mut self) {
        for mut child in self.companions.drain(..) {
            drop(child.kill());
            drop(child.wait());
        }
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        self.stop();
    }
}
