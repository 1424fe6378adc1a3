//! A node of its own for the scenarios; everything it made goes with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use container::own::{OwnRuntime, purge};
use image::{ImageStore, Settings};
use net::namespace::Namespace;
use node::agent::Listener;
use node::{Node, NodeConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::Api;

pub struct World {
    pub api: Api,
    pub directory: tempfile::TempDir,
    prefix: String,
    images: ImageStore,
    pub namespace: Namespace,
    run_dir: PathBuf,
    node: Option<(CancellationToken, JoinHandle<()>)>,
    pub server: Option<std::net::SocketAddr>,
    pub certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Drop for World {
    fn drop(&mut self) {
        // The agent first: it would mend what is taken away below.
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(self.stop()));
        let mut left = Vec::new();
        if let Err(error) = purge(&self.prefix, &[self.directory.path()]) {
            left.push(format!("{error:?}"));
        }
        if let Err(error) = Namespace::purge(&self.run_dir) {
            left.push(format!("{error:?}"));
        }
        assert!(left.is_empty() || std::thread::panicking(), "{left:?}");
    }
}

/// An image of nothing but busybox.
fn import_busybox(images: &ImageStore, directory: &Path) {
    let root = directory.join("busybox");
    fs::create_dir_all(root.join("bin")).expect("bin");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
    for name in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).expect("link");
    }
    for name in ["tmp", "etc", "www"] {
        fs::create_dir_all(root.join(name)).expect("a directory");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("passwd");
    fs::write(root.join("www/index.html"), "hello\n").expect("a page");
    let settings = Settings { cmd: vec!["sh".into()], env: vec!["PATH=/bin".into()], ..Settings::default() };
    images.import_rootfs_dir(&root, "busybox:test", settings).expect("imports");
}

impl World {
    pub async fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("kedge-t").tempdir().expect("a directory");
        let id = base::id::name_suffix(8);
        let run_dir = PathBuf::from(format!("/run/kedge-t{id}"));
        let images = ImageStore::open(directory.path().join("images")).expect("a store");
        import_busybox(&images, directory.path());
        let names = vec!["n".to_owned()];
        let mut world = Self {
            api: Api::new(),
            directory,
            prefix: format!("kedge-t-{id}"),
            images,
            namespace: Namespace::create(&run_dir.join("netns/node")).expect("a namespace"),
            run_dir,
            node: None,
            server: None,
            certificate: rcgen::generate_simple_self_signed(names).expect("a certificate"),
        };
        world.start().await;
        world
    }

    fn tls(&self) -> rustls::ServerConfig {
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(self.certificate.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_no_client_auth();
        builder
            .with_single_cert(vec![self.certificate.cert.der().clone()], key.into())
            .expect("a certificate")
    }

    /// A new agent on the same state.
    pub async fn start(&mut self) {
        let state = self.directory.path().join("state");
        let executable = std::env::current_exe().expect("our own path");
        let runtime = OwnRuntime::new(state, executable, &self.prefix).await.expect("a runtime");
        let config = NodeConfig::new(
            "n",
            "t",
            self.directory.path().join("node"),
            self.run_dir.clone(),
            self.namespace.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        self.server = listener.local_addr().ok();
        let node = Node::new(
            config,
            self.api.client(),
            self.api.client(),
            Arc::new(runtime),
            Arc::new(self.images.clone()),
        )
        .expect("a node");
        let node = node.with_server(Listener { listener, tls: Arc::new(self.tls()) });
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { node.run(token).await.expect("the node runs") });
        self.node = Some((shutdown, task));
    }

    pub async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.node.take() {
            shutdown.cancel();
            let stopped = task.await;
            assert!(stopped.is_ok() || std::thread::panicking(), "the node stops");
        }
    }
}
