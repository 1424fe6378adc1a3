//! The cluster's certificate authority, the certificates it signs, and who a client certificate says it is.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use api::csr::Request;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
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
        self.issue_for(common_name, usage, YEAR_SECONDS)
    }

    /// Signs a certificate that is good for so long.
    pub fn issue_for(&self, common_name: &str, usage: Usage, seconds: i64) -> Result<Credential, PkiError> {
        let make = |source| PkiError::Make { subject: common_name.to_owned(), source };
        let mut params = CertificateParams::default();
        set_lifetime(&mut params, seconds);
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

/// Key usages by the names that certificate requests have for them. One who signs certificates is not among them.
const KEY_USAGES: &[(&str, KeyUsagePurpose)] = &[
    ("digital signature", KeyUsagePurpose::DigitalSignature),
    ("signing", KeyUsagePurpose::DigitalSignature),
    ("content commitment", KeyUsagePurpose::ContentCommitment),
    ("key encipherment", KeyUsagePurpose::KeyEncipherment),
    ("key agreement", KeyUsagePurpose::KeyAgreement),
    ("data encipherment", KeyUsagePurpose::DataEncipherment),
];
const EXTENDED_USAGES: &[(&str, ExtendedKeyUsagePurpose)] = &[
    ("client auth", ExtendedKeyUsagePurpose::ClientAuth),
    ("server auth", ExtendedKeyUsagePurpose::ServerAuth),
    ("code signing", ExtendedKeyUsagePurpose::CodeSigning),
    ("email protection", ExtendedKeyUsagePurpose::EmailProtection),
    ("timestamping", ExtendedKeyUsagePurpose::TimeStamping),
    ("ocsp signing", ExtendedKeyUsagePurpose::OcspSigning),
];

impl Authority {
    /// Signs what somebody asked for: their names and their key, for these usages, and never as an authority. As PEM.
    pub fn sign(&self, request: &Request, usages: &[String], seconds: i64) -> Result<String, PkiError> {
        let make = |source| PkiError::Make { subject: request.common_name.clone(), source };
        let der = rustls::pki_types::CertificateSigningRequestDer::from(request.der.as_slice());
        // This checks that whoever asks has the key.
        let mut asked = CertificateSigningRequestParams::from_der(&der).map_err(make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = asked.params.distinguished_name;
        params.subject_alt_names = asked.params.subject_alt_names;
        params.is_ca = IsCa::ExplicitNoCa;
        asked.params = params;
        set_lifetime(&mut asked.params, seconds);
        for usage in usages {
            let found = KEY_USAGES.iter().find(|(name, _)| name == usage).map(|(_, purpose)| *purpose);
            asked.params.key_usages.extend(found);
            let extended = EXTENDED_USAGES.iter().find(|(name, _)| name == usage);
            asked.params.extended_key_usages.extend(extended.map(|(_, purpose)| purpose.clone()));
        }
        Ok(asked.signed_by(&self.issuer).map_err(make)?.pem())
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

/// Clocks of clients may lag by this.
const LAG_SECONDS: i64 = 300;

fn set_lifetime(params: &mut CertificateParams, seconds: i64) {
    let now = base::time::now().as_second();
    let at = |seconds: i64| {
        let since = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        rcgen::date_time_ymd(1970, 1, 1) + since
    };
    params.not_before = at(now - LAG_SECONDS);
    params.not_after = at(now + seconds);
}

/// From when to when, in seconds since the epoch, a certificate is good.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// When a certificate is made anew: with four fifths of its life gone, early enough for what goes wrong at first.
pub fn renewal((not_before, not_after): (i64, i64)) -> i64 {
    not_before + (not_after - not_before) / 5 * 4
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
    std::fs::rename(&beside, path).map_err(failed)?;
    // What is sealed with a key is on disk at once: the key's name must not come after it.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_request_has_the_names_that_were_asked_for_and_is_no_authority() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(folder.path()).expect("made");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "devs");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let asked = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        let request = Request::parse(asked.as_bytes()).expect("reads");
        let pem = authority.sign(&request, &["client auth".to_owned()], 1000).expect("signs");
        let signed = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let who = identity(&signed).expect("an identity");
        assert_eq!((who.username.as_str(), who.groups[0].as_str()), ("jane", "devs"));
        let (from, until) = validity(&signed).expect("a life");
        assert_eq!(until - from, 1000 + LAG_SECONDS);
        assert_eq!(renewal((0, 1000)), 800);
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&signed).expect("parses");
        assert!(!parsed.is_ca());
        let mut forged = request;
        *forged.der.last_mut().expect("bytes") ^= 0x55;
        assert!(authority.sign(&forged, &[], 1000).is_err(), "whoever asks must have the key");
    }

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
