//! A real etcd on the same disk, if the machine has one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::until;

pub struct Etcd {
    child: Child,
    folder: PathBuf,
    pub address: String,
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

impl Etcd {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn start(beside: &Path) -> Option<Self> {
        let folder = beside.join("etcd");
        let (client, peer) = (free_port(), free_port());
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(&folder);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let address = client.trim_start_matches("http://").to_owned();
        let port: u16 = address.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
        until("etcd is healthy", Duration::from_secs(20), || match testkit::http::get(port, "/health") {
            Ok((200, body)) if body.contains("true") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        Some(Self { child, folder, address })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
