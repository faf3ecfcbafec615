//! Whom we believe to be the server: one TLS configuration for its API, and one for its broker.
//!
//! Pins bind the API alone, at whatever address the server has it: a broker may have another name and certificate, and
//! is told by the API where it is.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::WebPkiServerVerifier,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::pinned::Pinned;
use crate::model::{Pins, Server};

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file given as certificate authority cannot be read.
    #[error("cannot read certificate file {path}")]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The file holds no usable certificate.
    #[error("{0} holds no PEM certificate")]
    NoCertificate(PathBuf),
    /// The machine has no certificate authorities installed.
    #[error("this machine trusts no certificate authority (package ca-certificates is missing?)")]
    NoRoots,
    /// The TLS library refused its own defaults.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

/// How far a server is trusted.
#[derive(Clone, Debug)]
pub struct Trust {
    /// For the API.
    pub api: Arc<ClientConfig>,
    /// For the broker.
    pub broker: Arc<ClientConfig>,
    /// Whether a server at a loopback address is talked to by plain HTTP.
    pub plain_on_loopback: bool,
}

impl Trust {
    /// Trusts `ca_file` alone, or the system's authorities when it is `None`; of those the API has to have one of `pins`,
    /// if there are any.
    pub fn new(ca_file: Option<&Path>, pins: &Pins, plain_on_loopback: bool) -> Result<Self, TrustError> {
        let (roots, known) = roots(ca_file)?;
        let roots = Arc::new(roots);
        let broker = Arc::new(config(&roots)?);
        if pins.is_empty() {
            return Ok(Self { api: Arc::clone(&broker), broker, plain_on_loopback });
        }
        let provider = Arc::new(ring::default_provider());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider).build();
        let inner = inner.map_err(|error| TrustError::Tls(rustls::Error::General(error.to_string())))?;
        let mut api = config(&roots)?;
        api.dangerous().set_certificate_verifier(Arc::new(Pinned::new(inner, pins.clone(), &known)));
        Ok(Self { api: Arc::new(api), broker, plain_on_loopback })
    }

    /// Whether `server` is talked to by plain HTTP.
    pub(super) fn is_plain(&self, server: &Server) -> bool {
        self.plain_on_loopback && server.is_loopback()
    }
}

/// The authorities that are trusted, and their certificates.
fn roots(ca_file: Option<&Path>) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TrustError> {
    let known = match ca_file {
        Some(path) => {
            let text = fs::read(path).map_err(|source| TrustError::CaFile { path: path.to_owned(), source })?;
            let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
            parsed.unwrap_or_default()
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(known.iter().cloned());
    match (added, ca_file) {
        (0, Some(path)) => Err(TrustError::NoCertificate(path.to_owned())),
        (0, None) => Err(TrustError::NoRoots),
        (_, _) => Ok((roots, known)),
    }
}

fn config(roots: &Arc<RootCertStore>) -> Result<ClientConfig, TrustError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
