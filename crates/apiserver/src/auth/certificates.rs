//! The cluster's certificate authority, the certificates it signs, and who a client certificate says it is.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::FromDer;

use super::{AUTHENTICATED, Identity};

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot read or write {path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot make the certificate for {subject}")]
    Make { subject: String, source: rcgen::Error },
    #[error("{path} holds no valid certificate or key: {detail}; delete it to have it made anew")]
    Invalid { path: PathBuf, detail: String },
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Credential {
    pub certificate: String,
    pub key: String,
}

impl Credential {
    /// As rustls takes it.
    pub fn parse(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let invalid = |detail: String| PkiError::Invalid { path: "credential".into(), detail };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect();
        let chain = chain.map_err(|e| invalid(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|e| invalid(e.to_string()))?;
        Ok((chain, key))
    }
}

/// What a certificate is for.
pub enum Usage {
    Client {
        group: String,
    },
    /// Names and addresses it serves; the agent's serves and asks.
    Server {
        names: Vec<String>,
        addresses: Vec<IpAddr>,
    },
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate, as PEM.
    pub certificate: String,
}

const YEAR_SECONDS: i64 = 365 * 24 * 3600;

impl Authority {
    /// Reads the authority from a folder, or makes it there.
    pub fn open(folder: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        if !certificate_path.exists() {
            let made = make_authority()?;
            write_private(&key_path, made.key.as_bytes())?;
            write(&certificate_path, made.certificate.as_bytes())?;
        }
        let (certificate, key) = (read(&certificate_path)?, read(&key_path)?);
        let invalid = |e: rcgen::Error| PkiError::Invalid { path: key_path.clone(), detail: e.to_string() };
        let key = KeyPair::from_pem(&key).map_err(invalid)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(invalid)?;
        Ok(Self { issuer, certificate })
    }

    /// Signs a certificate that is good for a year.
    pub fn issue(&self, common_name: &str, usage: Usage) -> Result<Credential, PkiError> {
        let make = |source| PkiError::Make { subject: common_name.to_owned(), source };
        let mut params = CertificateParams::default();
        set_lifetime(&mut params, YEAR_SECONDS);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        match usage {
            Usage::Client { group } => {
                params.distinguished_name.push(DnType::OrganizationName, group);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
            Usage::Server { names, addresses } => {
                for name in names {
                    params.subject_alt_names.push(SanType::DnsName(name.try_into().map_err(make)?));
                }
                params.subject_alt_names.extend(addresses.into_iter().map(SanType::IpAddress));
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
        }
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(Credential { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn make_authority() -> Result<Credential, PkiError> {
    let make = |source| PkiError::Make { subject: "the authority".into(), source };
    let mut params = CertificateParams::default();
    set_lifetime(&mut params, 10 * YEAR_SECONDS);
    // Distinct per cluster, so that a client that knows several tells them apart.
    let name = format!("kedge-ca-{}", base::id::name_suffix(6));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(make)?;
    let certificate = params.self_signed(&key).map_err(make)?;
    Ok(Credential { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn set_lifetime(params: &mut CertificateParams, seconds: i64) {
    // An hour back: clocks of clients may lag.
    let start = base::time::now().as_second() - 3600;
    let day = |at: i64| {
        let date =
            jiff::Timestamp::from_second(at).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(start);
    params.not_after = day(start + seconds + 24 * 3600);
}

/// The user that a verified client certificate names: its common name, in the groups of its organizations.
pub fn identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let username = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> =
        parsed.subject().iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    groups.push(AUTHENTICATED.into());
    (!username.is_empty()).then_some(Identity { username, groups, ..Default::default() })
}

pub fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

pub fn write(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    write_with_mode(path, bytes, 0o644)
}

/// Readable by the owner only, from the moment it exists.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    write_with_mode(path, bytes, 0o600)
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |source: std::io::Error| PkiError::File { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    // Written beside and renamed: a crash leaves the old file or the new one. What lies there from a crash may have
    // another mode, and is not written to.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_certificate_names_its_user_and_groups() {
        let folder = std::env::temp_dir().join(format!("kedge-t-pki-{}", base::id::name_suffix(8)));
        let authority = Authority::open(&folder).expect("made");
        let again = Authority::open(&folder).expect("read");
        assert_eq!(authority.certificate, again.certificate);
        let usage = Usage::Client { group: "system:nodes".into() };
        let credential = again.issue("system:node:n1", usage).expect("issues");
        let (chain, _) = credential.parse().expect("parses");
        let who = identity(&chain[0]).expect("an identity");
        assert_eq!(who.username, "system:node:n1");
        assert_eq!(who.groups, ["system:nodes", AUTHENTICATED]);
        std::fs::remove_dir_all(folder).expect("removes");
    }
}
