//! Whom we believe to be the server: one TLS configuration for every connection.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

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

/// Returns the configuration that trusts `ca_file` alone, or the system's authorities when it is `None`.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let text = fs::read(path).map_err(|source| TrustError::CaFile { path: path.to_owned(), source })?;
            let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
            let (added, _) = roots.add_parsable_certificates(parsed.unwrap_or_default());
            if added == 0 {
                return Err(TrustError::NoCertificate(path.to_owned()));
            }
        }
        None => {
            let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 {
                return Err(TrustError::NoRoots);
            }
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
