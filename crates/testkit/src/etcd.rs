//! A real etcd of one member on loopback, with its data in a folder of its own, gone when the value is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::certificate::Certificate;
use crate::wait::until;

const LIMIT: Duration = Duration::from_secs(20);

pub struct Etcd {
    child: Option<Child>,
    folder: PathBuf,
    /// Host and port that clients speak to.
    pub address: String,
    peer: String,
    name: String,
    /// All members, as etcd wants them named.
    members: String,
    tls: bool,
}

/// A port of loopback that nobody listens on. Below those that the kernel gives out itself: what is killed and comes back finds it
/// free, whoever has connected meanwhile.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(131);
    let ports = (0..COUNT).map(|_| begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST);
    let mut ports = ports.filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

impl Etcd {
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn port(&self) -> u16 {
        self.address.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port")
    }

    /// `None` where the machine has no etcd.
    pub fn start(beside: &Path) -> Option<Self> {
        Self::prepared(beside, None).begun().ok()
    }

    /// For tests that prove nothing without one.
    pub fn required(beside: &Path) -> Self {
        match Self::prepared(beside, None).begun() {
            Ok(etcd) => etcd,
            Err(error) => panic!("cannot start etcd (Debian's package is etcd-server): {error}"),
        }
    }

    /// One that only speaks TLS, and only with clients whose certificate the same authority has signed.
    pub fn with_tls(beside: &Path, certificate: &Certificate) -> Self {
        let this = Self::prepared(beside, Some(certificate));
        this.begun().expect("etcd starts: Debian's package is etcd-server")
    }

    /// Lets in only who knows the password of `root` from now on.
    pub async fn ask_for_password(&self, password: &str) {
        let mut etcd = crate::api::Grpc::connect(&self.address).await;
        let field = |number: u8, text: &str| {
            let length = u8::try_from(text.len()).expect("short");
            [&[number << 3 | 2, length], text.as_bytes()].concat()
        };
        let of_root = |what: &str| [field(1, "root"), field(2, what)].concat();
        for (method, request) in
            [("UserAdd", of_root(password)), ("UserGrantRole", of_root("root")), ("AuthEnable", Vec::new())]
        {
            etcd.call(&format!("/etcdserverpb.Auth/{method}"), &request).await;
        }
    }

    fn prepared(beside: &Path, certificate: Option<&Certificate>) -> Self {
        let folder = beside.join("etcd");
        std::fs::create_dir_all(&folder).expect("a folder");
        if let Some(certificate) = certificate {
            for (name, pem) in [
                ("ca.pem", &certificate.authority),
                ("own.pem", &certificate.certificate),
                ("key.pem", &certificate.key),
            ] {
                std::fs::write(folder.join(name), pem).expect("written");
            }
        }
        let address = format!("127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let (name, members) = ("default".to_owned(), format!("default={peer}"));
        Self { child: None, folder, address, peer, name, members, tls: certificate.is_some() }
    }

    /// Several members of one cluster.
    pub fn members(beside: &Path, count: usize) -> Vec<Self> {
        let mut members: Vec<Self> =
            (0..count).map(|n| Self::prepared(&beside.join(format!("member-{n}")), None)).collect();
        let named = members.iter().enumerate().map(|(n, member)| format!("m{n}={}", member.peer));
        let all = named.collect::<Vec<_>>().join(",");
        for (n, member) in members.iter_mut().enumerate() {
            (member.name, member.members) = (format!("m{n}"), all.clone());
            member.child = Some(member.spawn().expect("etcd starts: Debian's package is etcd-server"));
        }
        members.iter().for_each(Self::wait);
        members
    }

    fn begun(mut self) -> std::io::Result<Self> {
        self.try_launch()?;
        Ok(self)
    }

    fn try_launch(&mut self) -> std::io::Result<()> {
        self.child = Some(self.spawn()?);
        self.wait();
        Ok(())
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let program = std::env::var_os("KEDGE_ETCD").unwrap_or_else(|| "etcd".into());
        let mut command = Command::new(program);
        command.arg("--data-dir").arg(self.folder.join("data"));
        let client = format!("{}://{}", if self.tls { "https" } else { "http" }, self.address);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer]);
        command.args(["--name", &self.name, "--initial-cluster", &self.members]);
        if self.tls {
            command.arg("--client-cert-auth");
            for (flag, file) in
                [("--trusted-ca-file", "ca.pem"), ("--cert-file", "own.pem"), ("--key-file", "key.pem")]
            {
                command.arg(flag).arg(self.folder.join(file));
            }
        }
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    fn wait(&self) {
        let port = self.port();
        let tls = self.tls;
        until("etcd answers", LIMIT, || match tls {
            true => std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|e| e.to_string()),
            false => match crate::http::get(port, "/health") {
                Ok((200, body)) if body.contains("true") => Ok(()),
                other => Err(format!("{other:?}")),
            },
        });
    }

    /// As after a crash: with nothing said to anyone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// On the same data and ports again.
    pub fn launch(&mut self) {
        self.try_launch().expect("etcd starts again");
    }

    /// Takes its data away, as who puts another cluster in its place. It must not be running.
    pub fn forget(&self) {
        std::fs::remove_dir_all(self.folder.join("data")).expect("removed");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
