//! The server's certificates: an authority of its own, kept in a folder, and a leaf made at each start, or when another
//! flaw is asked for while the server runs.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use tokio::sync::watch;

use super::clock::system_now;

/// How the server proves who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Folder for `ca.pem` and `ca-key.pem`, made if missing; `None` makes a new authority at each start.
    pub dir: Option<PathBuf>,
    /// Names and addresses beside `127.0.0.1`, `::1`, `localhost` and the announced host.
    pub names: Vec<String>,
    /// What is wrong with the certificate, for tests.
    pub flaw: Flaw,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// It ended yesterday.
    Expired,
    /// Nothing.
    #[default]
    None,
    /// It begins tomorrow.
    NotYetValid,
    /// It begins in three seconds.
    Soon,
    /// It is of an authority that nobody knows.
    Untrusted,
    /// It is for `elsewhere.invalid` alone.
    WrongName,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A certificate cannot be made, mostly because a name is none or a stored authority is broken.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refuses the certificate.
    #[error("cannot use the certificate")]
    Rustls(#[from] rustls::Error),
}

/// What a listener needs, and what clients trust.
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    /// The same without a word about HTTP.
    pub(super) broker: Arc<ServerConfig>,
    pub(super) ca_pem: String,
    pub(super) certificates: Certificates,
}

/// The certificate that is shown, and how to make another one.
pub(super) struct Certificates {
    tls: Tls,
    host: String,
    authority: Issuer<'static, KeyPair>,
    shown: Arc<Shown>,
    /// Its flaw.
    flaw: watch::Sender<Flaw>,
}

/// What every handshake shows.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Certificates {
    /// Shows a certificate with this flaw from now on; false if that is what was shown.
    pub(super) fn show(&self, flaw: Flaw) -> Result<bool, TlsError> {
        if *self.flaw.borrow() == flaw {
            return Ok(false);
        }
        let leaf = leaf(&self.tls, flaw, &self.host, &self.authority)?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(leaf);
        self.flaw.send_replace(flaw);
        Ok(true)
    }

    /// Tells when another certificate is shown.
    pub(super) fn changes(&self) -> watch::Receiver<Flaw> {
        self.flaw.subscribe()
    }
}

/// Makes the certificate of a server announced as `host`, which may be an address.
pub(super) fn identity(tls: &Tls, host: &str) -> Result<Identity, TlsError> {
    let (ca_pem, ca_key) = match &tls.dir {
        Some(dir) => stored_authority(dir, system_now())?,
        None => new_authority(AUTHORITY, system_now())?,
    };
    let authority = Issuer::from_ca_cert_pem(&ca_pem, ca_key)?;
    let shown = Arc::new(Shown(RwLock::new(Arc::new(leaf(tls, tls.flaw, host, &authority)?))));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(shown.clone());
    // A session that is resumed would not see another certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let broker = Arc::new(config.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (tls, host, flaw) = (tls.clone(), host.to_owned(), watch::Sender::new(tls.flaw));
    let certificates = Certificates { tls, host, authority, shown, flaw };
    Ok(Identity { config: Arc::new(config), broker, ca_pem, certificates })
}

fn leaf(tls: &Tls, flaw: Flaw, host: &str, authority: &Issuer<'_, KeyPair>) -> Result<CertifiedKey, TlsError> {
    let now = system_now();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let params = leaf_params(tls, flaw, host, now)?;
    let certificate = if flaw == Flaw::Untrusted {
        let (pem, unknown) = new_authority("nobody you know", now)?;
        params.signed_by(&key, &Issuer::from_ca_cert_pem(&pem, unknown)?)?
    } else {
        params.signed_by(&key, authority)?
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(CertifiedKey::from_der(vec![certificate.der().clone()], key, &ring::default_provider())?)
}

fn leaf_params(tls: &Tls, flaw: Flaw, host: &str, now: OffsetDateTime) -> Result<CertificateParams, TlsError> {
    let mut names: Vec<_> = ["127.0.0.1", "::1", "localhost", host].map(str::to_owned).into();
    names.extend(tls.names.iter().cloned());
    if flaw == Flaw::WrongName {
        names = vec!["elsewhere.invalid".to_owned()];
    }
    names.sort();
    names.dedup();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, host);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = match flaw {
        Flaw::Expired => (now - Duration::days(30), now - Duration::DAY),
        Flaw::None | Flaw::Untrusted | Flaw::WrongName => (now - Duration::DAY, now + Duration::days(365)),
        Flaw::NotYetValid => (now + Duration::DAY, now + Duration::days(365)),
        Flaw::Soon => (now + Duration::seconds(3), now + Duration::days(365)),
    };
    Ok(params)
}

fn new_authority(name: &str, now: OffsetDateTime) -> Result<(String, KeyPair), TlsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - Duration::days(60);
    params.not_after = now + Duration::days(3650);
    Ok((params.self_signed(&key)?.pem(), key))
}

fn stored_authority(dir: &Path, now: OffsetDateTime) -> Result<(String, KeyPair), TlsError> {
    let (pem_path, key_path) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
    let read = |path: &Path| match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TlsError::File { path: path.to_owned(), source }),
    };
    if let (Some(pem), Some(key)) = (read(&pem_path)?, read(&key_path)?) {
        return Ok((pem, KeyPair::from_pem(&key)?));
    }
    let (pem, key) = new_authority(AUTHORITY, now)?;
    fs::create_dir_all(dir).map_err(|source| TlsError::File { path: dir.to_owned(), source })?;
    write(&key_path, &key.serialize_pem(), 0o600)?;
    write(&pem_path, &pem, 0o644)?;
    Ok((pem, key))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let options = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    let written = options.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| TlsError::File { path: path.to_owned(), source })
}

/// What the authority is called.
const AUTHORITY: &str = "enroll-agent mock server";
