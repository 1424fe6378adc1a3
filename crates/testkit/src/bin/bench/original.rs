//! The original, etcd and kube-apiserver, where the machine has both: started on the same disk, measured in the same run.

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
    port: u16,
}

impl Original {
    pub fn start(beside: &Path) -> Option<Self> {
        let folder = beside.join("original");
        std::fs::create_dir_all(&folder).expect("a folder");
        let certificate = Certificate::new();
        for (name, text) in [
            ("tls.crt", certificate.certificate.as_str()),
            ("tls.key", &certificate.key),
            ("tokens.csv", &format!("{TOKEN},admin,admin,\"system:masters\"\n")),
        ] {
            std::fs::write(folder.join(name), text).expect("written");
        }
        let etcd = Etcd::start(beside)?;
        let port = free_port();
        let server = spawn(&folder, &etcd, port)?;
        let this = Self { folder, certificate, etcd, server, port };
        this.wait();
        Some(this)
    }

    pub fn api(&self) -> Api {
        Api::of(&format!("127.0.0.1:{}", self.port), &self.certificate.authority, TOKEN)
    }

    pub fn pids(&self) -> [u32; 2] {
        [self.server.id(), self.etcd.pid()]
    }

    /// Ends the server, starts it again on what is stored, and says how long it took to be ready.
    pub fn restart(&mut self) -> Duration {
        drop(self.server.kill());
        drop(self.server.wait());
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

impl Drop for Original {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
