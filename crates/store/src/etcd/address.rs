//! Where an etcd is and how it is reached: `etcd://host:port[,host:port…][/prefix]`, `etcds://…` with TLS.

use std::sync::Arc;

use grpc::{Channel, Fault, Peer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const DEFAULT_PORT: u16 = 2379;
/// Above any page or batch of events that etcd sends: its own messages are bounded by what was written at once.
const MESSAGE_LIMIT_BYTES: usize = 512 << 20;

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("{0:?} is not of the form etcd://host:port[,host:port…][/prefix] (etcds:// for TLS)")]
    Form(String),
    #[error("certificates for etcd are given, but its address is not etcds://")]
    NotSecure,
    #[error("a certificate for etcd needs its key, and a key its certificate")]
    Half,
    #[error("cannot use the certificates for etcd: {0}")]
    Certificates(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdAddress {
    /// Host (or address) and port of each member.
    pub endpoints: Vec<(String, u16)>,
    pub secure: bool,
    /// Goes before every key; empty, or `/…` without a slash at the end.
    pub prefix: String,
}

/// PEM texts: whom to trust (the machine's authorities when there are none), and who we are.
#[derive(Clone, Default)]
pub struct EtcdTls {
    pub authority: Option<Vec<u8>>,
    pub certificate: Option<Vec<u8>>,
    pub key: Option<Vec<u8>>,
}

impl EtcdAddress {
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Form(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let secure = match scheme {
            "etcd" => false,
            "etcds" => true,
            _ => return Err(form()),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        let endpoints =
            hosts.split(',').map(|host| endpoint(host).ok_or_else(form)).collect::<Result<_, _>>()?;
        Ok(Self { endpoints, secure, prefix })
    }

    /// As it is shown: it holds no secret.
    pub fn shown(&self) -> String {
        let hosts: Vec<String> = self.endpoints.iter().map(|(host, port)| authority(host, *port)).collect();
        format!("{}://{}{}", if self.secure { "etcds" } else { "etcd" }, hosts.join(","), self.prefix)
    }
}

fn endpoint(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => DEFAULT_PORT,
    };
    let odd = |c: char| c.is_whitespace() || matches!(c, '@' | '?' | '#' | '/');
    (!host.is_empty() && !host.contains(odd)).then(|| (host.to_owned(), port))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Opens connections to the members.
pub struct Connector {
    endpoints: Vec<(String, u16)>,
    tls: Option<TlsConnector>,
}

impl Connector {
    pub fn new(address: &EtcdAddress, tls: &EtcdTls) -> Result<Self, AddressError> {
        let given = tls.authority.is_some() || tls.certificate.is_some() || tls.key.is_some();
        let tls = match address.secure {
            true => Some(TlsConnector::from(Arc::new(client_config(tls)?))),
            false if given => return Err(AddressError::NotSecure),
            false => None,
        };
        Ok(Self { endpoints: address.endpoints.clone(), tls })
    }

    pub fn count(&self) -> usize {
        self.endpoints.len()
    }

    /// To one of the members, counted round.
    pub async fn connect(&self, number: usize) -> Result<Channel, Fault> {
        let (host, port) = &self.endpoints[number % self.endpoints.len()];
        let shown = authority(host, *port);
        let unreachable =
            |e: &dyn std::fmt::Display| Fault::NotSent(format!("cannot reach etcd at {shown}: {e}"));
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|e| unreachable(&e))?;
        stream.set_nodelay(true).map_err(|e| unreachable(&e))?;
        match &self.tls {
            None => Channel::new(stream, peer(shown, false)).await,
            Some(tls) => {
                let name = ServerName::try_from(host.clone()).map_err(|e| unreachable(&e))?;
                let stream = tls.connect(name, stream).await.map_err(|e| unreachable(&e))?;
                Channel::new(stream, peer(shown, true)).await
            }
        }
    }
}

fn peer(authority: String, secure: bool) -> Peer {
    Peer { authority, secure, pings: true, message_limit_bytes: MESSAGE_LIMIT_BYTES }
}

fn client_config(tls: &EtcdTls) -> Result<ClientConfig, AddressError> {
    let fault = |e: &dyn std::fmt::Display| AddressError::Certificates(e.to_string());
    let certificates = |pem: &[u8]| {
        CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|e| fault(&e))
    };
    let mut roots = RootCertStore::empty();
    match &tls.authority {
        Some(pem) => {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|e| fault(&e))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(fault(&"there is no authority to trust"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| fault(&e))?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| fault(&e))?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(|e| fault(&e))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(AddressError::Half),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        let told = |text: &str| EtcdAddress::parse(text).map(|a| a.shown()).unwrap_or_default();
        assert_eq!(told("etcd://127.0.0.1:2379"), "etcd://127.0.0.1:2379");
        assert_eq!(told("etcds://a,b:1,[::1]:2/x/y/"), "etcds://a:2379,b:1,[::1]:2/x/y");
        for bad in ["", "http://a", "etcd://", "etcd://a:b", "etcd://a,,b", "etcd://u:p@a:1", "etcd://a:1?x"]
        {
            assert_eq!(told(bad), "", "{bad}");
        }
    }
}
