//! What the server shows of itself to nodes and to servers that extend it, before and after it was made anew.

mod world;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::auth::certificates::{Credential, Usage};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use world::World;

/// Takes any certificate: who shows which is what the test looks at.
#[derive(Debug)]
struct Any(Arc<rustls::crypto::CryptoProvider>);

impl ClientCertVerifier for Any {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate that was shown last, with the path that was asked for.
type Shown = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A server that answers anything with an empty object and notes who asked, one request a connection.
async fn behind(listener: TcpListener, credential: Credential, shown: Shown) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = credential.parse().expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(Arc::new(Any(provider)))
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let certificate = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
        let mut head = Vec::new();
        while !head.windows(4).any(|w| w == b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                break;
            }
        }
        let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
        shown.lock().expect("not poisoned").push((path, certificate.unwrap_or_default()));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        drop(stream.write_all(answer).await);
        drop(stream.shutdown().await);
    }
}

#[tokio::test]
async fn nodes_and_other_servers_are_shown_what_was_made_anew() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let world = World::reaching(listener.local_addr().expect("an address").port()).await;
    let names = vec!["n".to_owned(), "wardle.default.svc".to_owned()];
    let address = IpAddr::V4(Ipv4Addr::new(10, 44, 0, 1));
    let usage = Usage::Server { names, addresses: vec![address] };
    let serving = world.authority.issue("system:node:n", usage).expect("issues");
    let shown = Shown::default();
    tokio::spawn(behind(listener, serving, Arc::clone(&shown)));
    world.grant("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address.to_string()}]}});
    let (code, answer) = world.json("PATCH", "/api/v1/nodes/n/status", status).await;
    assert_eq!(code, 200, "{answer}");
    let service = json!({"metadata": {"name": "wardle"}, "spec": {"ports": [{"port": 443}]}});
    world.grant("/api/v1/namespaces/default/services", service).await;
    let slice = json!({"metadata": {"name": "wardle", "labels": {"kubernetes.io/service-name": "wardle"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.42.0.5"]}], "ports": [{"name": "", "port": 443}]});
    world.grant("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    let api = json!({"metadata": {"name": "v1.wardle.example"}, "spec": {"group": "wardle.example", "version": "v1",
        "groupPriorityMinimum": 2000, "versionPriority": 200, "caBundle": STANDARD.encode(&world.authority.certificate),
        "service": {"namespace": "default", "name": "wardle"}}});
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    world.grant(services, api).await;
    let available = async {
        loop {
            let (_, api) = world.json("GET", &format!("{services}/v1.wardle.example"), Value::Null).await;
            if api["status"]["conditions"][0]["status"] == "True" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), available).await.expect("it is available");

    // Who is shown what: the node its server's certificate, the other server that of a proxy.
    let asked = async |mark: &str| {
        for path in ["/api/v1/nodes/n/proxy/", "/apis/wardle.example/v1/"] {
            let (code, answer) = world.json("GET", &format!("{path}{mark}"), Value::Null).await;
            assert_eq!(code, 200, "{path}: {answer}");
        }
        let shown = shown.lock().expect("not poisoned");
        let find = |path: String| {
            let found = shown.iter().find(|(asked, _)| *asked == path).map(|(_, shown)| shown.clone());
            found
                .filter(|certificate| !certificate.is_empty())
                .unwrap_or_else(|| panic!("nothing shown: {path}"))
        };
        (find(format!("/{mark}")), find(format!("/apis/wardle.example/v1/{mark}")))
    };
    let before = asked("before").await;
    assert_eq!(asked("again").await, before, "nothing was made anew");
    let usage = Usage::Client { group: "g".into() };
    let anew = world.authority.issue("kube-apiserver-kubelet-client", usage).expect("issues");
    world.server.renew(&anew).expect("they are shown from now on");
    let after = asked("after").await;
    let (chain, _) = anew.parse().expect("PEM");
    assert_eq!(after.0, chain[0].to_vec(), "what the node is shown");
    assert_ne!(after.1, before.1, "what the other server is shown");
}
