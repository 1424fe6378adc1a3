//! A server in this process behind a real port of loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use apiserver::auth::certificates::{Authority, Credential, Usage};
use apiserver::http::serve::{ConnectionLimits, serve_within};
use apiserver::http::tls::Serving;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::World;

pub const LIMIT: Duration = Duration::from_secs(20);

pub struct Served {
    pub world: World,
    pub serving: Arc<Serving>,
    pub address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn server_certificate(authority: &Authority) -> Credential {
    let usage = Usage::Server { names: vec!["localhost".into()], addresses: Vec::new() };
    authority.issue("kube-apiserver", usage).expect("issues")
}

pub fn client(authority: &Authority, name: &str, group: &str, seconds: i64) -> Credential {
    authority.issue_for(name, Usage::Client { group: group.into() }, seconds).expect("issues")
}

impl Served {
    pub async fn new(world: World) -> Self {
        Self::within(world, ConnectionLimits::default()).await
    }

    pub async fn within(world: World, limits: ConnectionLimits) -> Self {
        let serving = Serving::new(&server_certificate(&world.authority)).expect("a certificate");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let tls = world.server.tls(&serving).expect("a door");
        tokio::spawn(serve_within(limits, world.server.clone(), listener, tls, stop.clone()));
        Self { world, serving, address, stop }
    }

    pub async fn connect(&self, shown: Option<&Credential>) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_for(shown, "http/1.1").await
    }

    pub async fn connect_for(
        &self,
        shown: Option<&Credential>,
        protocol: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        let authority =
            CertificateDer::from_pem_slice(self.world.authority.certificate.as_bytes()).expect("PEM");
        roots.add(authority).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match shown.map(|credential| credential.parse().expect("parses")) {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a certificate"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.into()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Sends bytes as they are and reads what comes back until the connection ends.
    pub async fn raw(&self, shown: Option<&Credential>, bytes: &[u8]) -> std::io::Result<String> {
        let mut stream = self.connect(shown).await?;
        let mut answer = Vec::new();
        let work = async {
            stream.write_all(bytes).await?;
            stream.read_to_end(&mut answer).await
        };
        match tokio::time::timeout(LIMIT, work).await.expect("the connection ends") {
            // Some end without saying so.
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
        }
    }
}
