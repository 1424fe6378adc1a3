//! Opening the store that the options name.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use base::layout::Layout;
use front::StoreOptions;
use store::{Embedded, EmbeddedOptions, Etcd, EtcdAddress, EtcdOptions, EtcdTls, Store, StoreError};

pub struct Opened {
    pub store: Arc<dyn Store>,
    /// Set for the engine that has a file to verify.
    pub embedded: Option<Arc<Embedded>>,
    /// Keeps servers off the data directory meanwhile.
    _lock: Option<File>,
}

impl Opened {
    /// Reads everything again where that says more than reading does anyway.
    pub async fn verify(&self) -> anyhow::Result<()> {
        if let Some(embedded) = &self.embedded {
            embedded.verify().await?;
        }
        Ok(())
    }
}

/// A server (`begin`) makes a store where there is none, and holds the data directory's lock already.
pub async fn open(layout: &Layout, options: &StoreOptions, begin: bool) -> anyhow::Result<Opened> {
    if let Some(address) = &options.address {
        let bare = options.certificate.is_none();
        let opened = Etcd::open(etcd_options(address, options)?).await;
        let store = Arc::new(opened.map_err(|error| with_remedy(error, bare))?);
        return Ok(Opened { store, embedded: None, _lock: None });
    }
    let path = layout.state();
    if !begin && !path.exists() {
        bail!("there is no store at {}; name one with --data-dir or --store", path.display());
    }
    let lock = if begin { None } else { Some(crate::server::run_file::lock(layout).await?) };
    let embedded = Arc::new(Embedded::open(&path, EmbeddedOptions::default())?);
    Ok(Opened { store: Arc::clone(&embedded) as Arc<dyn Store>, embedded: Some(embedded), _lock: lock })
}

const CERTIFICATE: &str = "etcd asks for a certificate of an authority that it knows: name one and its key with --store-cert and --store-key";

/// What to do where etcd does not let us in, by what it or TLS says of it; other faults say enough themselves.
const REMEDIES: &[(&str, &str)] = &[
    (
        "invalid peer certificate",
        "name the authority that signed etcd's certificate with --store-ca, and etcd by a name that its certificate has",
    ),
    ("fatal alert: CertificateRequired", CERTIFICATE),
    // What servers say of none where TLS is older, and of one that they do not know.
    ("fatal alert: BadCertificate", CERTIFICATE),
    ("fatal alert: UnknownCA", CERTIFICATE),
    (
        "invalid user ID or password",
        "see that --store-user is a user of etcd's, and that --store-password-file has that user's password",
    ),
    (
        "user name is empty",
        "etcd asks for a user: name one with --store-user, and a password with --store-password-file",
    ),
    ("authentication is not enabled", "etcd knows no users: leave out --store-user and its password"),
    (
        "permission denied",
        "give the user of --store-user a role in etcd that reads and writes all keys of the cluster",
    ),
];

/// The error's words have those of its cause already, so that its cause is not told again. `bare`: without a certificate of ours.
fn with_remedy(error: StoreError, bare: bool) -> anyhow::Error {
    let said = error.to_string();
    // Whoever asks for a certificate may have hung up before it was read why.
    let was_cut = ["broken pipe", "connection reset", "connection closed"];
    match REMEDIES.iter().find(|(words, _)| said.contains(words)) {
        Some((_, remedy)) => anyhow!("{said}; {remedy}"),
        None if bare && was_cut.iter().any(|words| said.contains(words)) => {
            anyhow!("{said}; it may be that {CERTIFICATE}")
        }
        None => anyhow!(said),
    }
}

fn etcd_options(address: &str, options: &StoreOptions) -> anyhow::Result<EtcdOptions> {
    let read = |path: &Option<std::path::PathBuf>| -> anyhow::Result<Option<Vec<u8>>> {
        path.as_deref().map(read).transpose()
    };
    let password = match (&options.password, &options.password_file) {
        (Some(password), _) => Some(password.0.clone()),
        (None, Some(path)) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        (None, None) => None,
    };
    let user = match (&options.user, password) {
        (Some(name), Some(password)) => Some((name.clone(), password)),
        (None, None) => None,
        (Some(_), None) => {
            bail!("etcd's user has no password: --store-password-file or $KEDGE_STORE_PASSWORD")
        }
        (None, Some(_)) => bail!("there is a password for etcd, but no --store-user"),
    };
    let tls = EtcdTls {
        authority: read(&options.authority)?,
        certificate: read(&options.certificate)?,
        key: read(&options.key)?,
    };
    Ok(EtcdOptions { tls, user, ..EtcdOptions::new(EtcdAddress::parse(address)?) })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_hung_up_on_is_told_what_may_be_missing() {
        let told = |detail: &str, bare| {
            with_remedy(StoreError::Unavailable { detail: detail.into() }, bare).to_string()
        };
        let cut = "connection error: stream closed because of a broken pipe";
        assert!(told(cut, true).contains("--store-cert"));
        assert!(!told(cut, false).contains("--store-cert"), "there is one");
        assert!(!told("connection refused", true).contains("--store-cert"), "nobody is there");
        assert!(told("received fatal alert: CertificateRequired", false).contains("--store-cert"));
    }
}
